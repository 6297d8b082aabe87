"""Causal language models, on lm-eval's stock tasks and YAML files of their form.

May import what the rooms of `backends` share, `backends/encoders`, and what `backends` may import. Begin
with `prepared.py`, a task made ready for one checkpoint; `stock.py` and `stock_files.py` read lm-eval's
tasks, `model.py` and `inputs.py` answer them.
"""
