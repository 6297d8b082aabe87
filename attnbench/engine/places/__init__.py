"""Where a model attends: found by one forward pass with a probe, for whatever architecture it is.

May import `methods`, `inputs` and `records`, and no other room of the engine: who finds a place does not
serve it. Begin with `sites.py`. `routing.py` puts our function into a model's place, `softmax.py` follows
a model that has no such place, `blocks.py` and `origins.py` read padding and caches from masks.
"""
