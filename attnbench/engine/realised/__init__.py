"""Less work for the same answers: heads cut out of the weights, entries that are skipped, and checkpoints.

May import `engine/serving` and what that may import, not `engine/learning`. Begin with `removal.py`,
where `realize` is; `slicing.py` cuts one attention module, `sidecar.py` reads the file that an export
lays beside its weights. `skipping.py` attends to what masks and windows leave: `patterns.py` reads what that
is off their stages, `planning.py` makes a plan of it (`plans.py`), `sparse.py` and `flexible.py` follow it.
"""
