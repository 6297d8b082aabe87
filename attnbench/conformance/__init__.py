"""What `attnbench check` promises of a method, tried on tiny models of five architectures.

May import the wings from `methods` to `boards`, and needs none above `measures`. Begin with `kit.py`,
which runs every check; `tiny.py` builds the models and `subject.py` runs a spec on one, the checks are in
`source.py`, `promises.py`, `learned.py`, `integrity.py` and `strength.py`. `attnbench.testing` is its
face for the tests of others.
"""
