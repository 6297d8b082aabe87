"""From records to boards: suites, claims and their decisions, checks, and the files of a leaderboard.

May import the wings from `methods` to `studies`. Begin with `suite.py`, what is asked for, and
`board.py`, what there is of it. The rooms write it: `tables/`, `pictures/`, `page/` and `formats/`.
`publish.py` writes all files of a board together, `checks.py` says what is wrong with records,
`result.py` is `attnbench.run`.
"""
