"""Boards as text and markdown: the cells, the verdicts, and the notes under a table.

May import what `boards` may, and from `boards` what a board holds. Begin with `leaderboard.py`.
`cells.py` and `footnotes.py` serve the other rooms too.
"""
