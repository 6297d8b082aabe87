"""Results about heads and attention that are no scores: what studies see, how criteria rank heads.

May import the wings from `methods` to `doors`. Begin with `looking.py`, which `attnbench look` calls: a model
is opened by `opening.py`, shown to studies by `passes.py`, and what they found is kept by `looks.py`. What a
study is stands in `attnbench/methods`. `ranking.py` is what `attnbench heads` calls.
"""
