"""Boards as pictures: which points they show, where labels fit, and the drawing.

May import what `boards` may, and from `boards` what a board holds; matplotlib only where it draws. Begin
with `points.py`, which is numbers alone, then `draw.py`. `heatmap.py` draws a study of heads.
"""
