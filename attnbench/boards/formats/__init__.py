"""Boards for other programs: values with commas, LaTeX, Parquet, JSON of Every Eval Ever and of lm-eval.

May import `boards/tables` and what that may import. Begin with `exports.py` for tables, with `numbers.py` for
what reads records.
"""
