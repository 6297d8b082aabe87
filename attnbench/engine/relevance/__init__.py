"""Relevance: which heads and tokens an output rests on, by layer-wise relevance propagation (LRP).

May import `engine/places`, `engine/serving` and what those may import. Begin with `relevance.py`, which gives
each head and token its part of the top logit. `propagation.py` follows a model and refuses what no rule
covers; the rules are in `gradients.py` (CP-LRP, AttnLRP) and `alpha_beta.py` (Voita's, for
`contributions.py`); `explained.py` says which logit is explained.
"""
