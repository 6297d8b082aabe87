"""What vectors of a model tell: classifiers on pooled vectors, the tasks that they are trained for.

May import the wings from `methods` to `doors`, and of `studies` the protocol's data. Begin with `probing.py`,
which the study `probe` calls: `pooled.py` reads the vectors, `tasks.py` finds the data, `fits.py`
trains and chooses, and `logistic.py` solves for all heads at once.
"""
