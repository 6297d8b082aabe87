"""What happens where a model attends while methods are applied: in tiles, fast, counted and guarded.

May import `engine/places` and what that may import. Begin with `attention.py`, where a block of `apply`
begins and ends; then `dispatch.py` for one attention call, `tiles.py` and `scored.py` for one tile of it.
Where prompts end and caches are cut: `prompts.py`, `turns.py` for a pass, `cutting.py` for one call.
The kernels that methods use are in `kernels.py`.
"""
