"""What a method does to attention and what it costs: sparsity, bits, FLOPs, latency, memory.

May import the wings from `methods` to `statistics`. Everything is measured by watching a model, never by
asking the method. Begin with `measure.py`, then `cost.py`.
"""
