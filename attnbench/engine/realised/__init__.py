"""Less work for the same answers: heads cut out of the weights, and the checkpoint that holds what is left.

May import `engine/serving` and what that may import, not `engine/learning`. Begin with `removal.py`,
where `realize` is; `slicing.py` cuts one attention module, `sidecar.py` reads the file that an export
lays beside its weights.
"""
