"""What `attnbench new-method` writes: a plugin's file of each kind with its test, and a package around it.

May import what `methods` may. Begin with `files.py`, then `kinds.py`; each kind's template is a file of its
name, `package.py` lays out a package.
"""
