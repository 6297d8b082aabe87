"""What lm-eval is asked: tasks, their requests, the models that answer them, the samples to learn from.

May import the wings from `methods` to `measures`. Begin with `lm_eval.py`, which chooses a room by the
kind of checkpoint: `encoders/`, `causal/` or `translation/`. The files that task YAMLs name by their path
(`classification`, `spans`, `masked`, `seq2seq`) lie beside the rooms, as do `own_data.py` for the user's
files and `calibration.py`.
"""
