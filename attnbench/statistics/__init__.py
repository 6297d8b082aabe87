"""From scores by sample to intervals: metrics, pairing, resampling, and the rows of a table.

May import the wings from `methods` to `engine`, and needs neither `engine` nor torch. Begin with
`against_dense.py`, which makes rows of records; `inference.py` has the intervals and p values, `pairs.py`
holds two methods against each other.
"""
