"""Boards for other programs: comma-separated values and LaTeX.

May import `boards/tables` and what that may import. Begin with `exports.py`.
"""
