"""Models on tasks with methods: what is asked for, its cells, and how each becomes a record.

May import the wings from `methods` to `backends`. Begin with `request.py`, then `plan.py`, `runner.py`
and `column.py`, in the order of a run; `sharing/` is how several runs and processes do it together.
`verify.py` measures a recorded cell again, `export.py` writes a model without the heads that a method
removes.
"""
