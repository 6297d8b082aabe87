"""Looking inside a model from the command line: what studies there are, and what they find.

May import the wings from `methods` to `conformance`. Begin with `look.py`.
"""
