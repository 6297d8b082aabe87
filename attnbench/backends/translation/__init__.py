"""Encoder-decoders, on translation tasks.

May import `backends/encoders`, of which it takes most, and what `backends` may import. Begin with
`prepared.py`, a task made ready for one checkpoint; `model.py` answers the verb `translate`.
"""
