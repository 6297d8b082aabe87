"""How methods learn from calibration samples: fitting, gates on heads, one training loop.

May import `engine/serving` and what that may import. Begin with `fit.py`; what `heads:gradient` and
`gates:l0` learn with is in `gates.py` and `training.py`.
"""
