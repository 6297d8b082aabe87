"""Boards as one HTML file that needs no server and no network.

May import `boards/tables`, `boards/pictures` and what those may import. Begin with `document.py`; its
script and its style sheet lie beside it.
"""
