"""Results about heads and attention that are no scores: how criteria rank heads, what removing them costs.

May import the wings from `methods` to `doors`. Begin with `importance.py`, which `attnbench heads` calls.
"""
