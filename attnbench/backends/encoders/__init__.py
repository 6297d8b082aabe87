"""Encoders with a head, on tasks of ours: classification, regression, spans, masked words.

May import what the rooms of `backends` share, and what `backends` may import, but no other room. Begin
with `prepared.py`, a task made ready for one checkpoint; `tasks.py` is what its YAML names, `model.py`
answers lm-eval.
"""
