"""What vectors of a model tell: classifiers on pooled vectors, the tasks that they are trained for.

May import the wings from `methods` to `studies`. Begin with `fits.py`; `logistic.py` solves for all heads at
once, `pooled.py` reads the vectors, `tasks.py` finds the data.
"""
