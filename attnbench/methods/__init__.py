"""What a method is: its protocol, its fields, the grammar of specs, the registry, its code as a hash.

May import no other wing, and every other wing may import this one. No method lies here: those are in
`plugins/`. Begin with `protocol.py`, then `spec.py`, which reads `prune80`, and `plugins.py`, which finds
it.
"""
