"""The shipped models: the text they learn, how they are trained, the cards that state their scores.

May import every other wing, and none imports it. Begin with `train.py`, the command that makes a model,
and `text.py`, what it reads; `card.py` and `fluency.py` measure what came of it.
"""
