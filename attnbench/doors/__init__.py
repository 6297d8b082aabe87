"""The doors to other frameworks: attnbench as a model of lm-eval and of lighteval, and their command lines.

May import the wings from `methods` to `matrix`. Begin with `lm_eval_cli.py` or `lighteval_cli.py`, to
which the command line hands over; `asking.py` and `frameworks.py` hold what both share.
"""
