"""Boards of looks: a TOML file that holds looks at models and what is claimed of their tables.

May import what `boards` may. Begin with `asked.py`, what such a file says; `kept.py` reads the records of its
looks, `claims.py` decides, `document.py` and `drawn.py` make text and pictures, `checked.py` holds them true.
"""
