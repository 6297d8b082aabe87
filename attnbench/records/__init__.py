"""One JSON file for each cell: what it may hold, where its numbers came from, how it is written and read.

May import `methods` and `inputs`. Begin with `record.py`; `schema.py` says what each field may be, and
`provenance.py` decides whether an old record still holds.
"""
