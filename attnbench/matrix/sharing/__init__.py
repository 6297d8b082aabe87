"""One matrix measured by several: shares of it, leases on its cells, processes of this machine.

May import what `matrix` may. Begin with `leases.py`, which keeps runs on one folder apart, then
`schedule.py`, which says what comes next, and `workers.py`. `shards.py` parts a matrix between commands
that know nothing of each other.
"""
