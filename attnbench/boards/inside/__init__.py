"""A look as one HTML file that needs no server and no network: a grid of heads, and each head's maps.

May import `boards/page`, `studies` and what those may import. Begin with `document.py`; its scripts and its
style sheet lie beside it.
"""
