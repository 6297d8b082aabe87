"""One layer of a cache that holds of a prompt only what methods left, and all that came after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from attnbench.errors import UserError
from attnbench.methods.prompt import Kept

SPARE = 32  # a layer that is full is copied to a place for one in so many tokens more


class Held(DynamicLayer):
    """Keys and values (batch, key-value heads, places, head_dim) of one layer.

    The first `room` places are the prompt's, as many as the head that keeps most has, over all examples: the
    others are filled up, and `shown` (batch, key-value heads, room) is True where a place counts, None where
    all do. What comes after the prompt follows. Tokens are at their true positions: `get_seq_length` counts
    those that were read, `get_mask_sizes` the places.
    """

    def __init__(self, owner: Any) -> None:
        super().__init__()
        self.owner = owner
        self._clear()

    def _clear(self) -> None:
        self.seen = self.room = 0
        self.shown: Tensor | None = None
        self._memory: dict[str, Tensor] = {}  # of which keys and values are the beginning

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append what was just read."""
        self.owner.reads(self)
        self.seen += key_states.shape[2]
        if not self.places() or key_states.requires_grad:
            keys, values = super().update(key_states, value_states, *args, **kwargs)
            return keys, values
        self.keys = self._longer("keys", self.keys, key_states)
        self.values = self._longer("values", self.values, value_states)
        return self.keys, self.values

    def _longer(self, name: str, held: Any, new: Tensor) -> Tensor:
        """Append (batch, key-value heads, tokens, head_dim) where there is room, else in a copy with some."""
        batch, heads, places, width = held.shape
        end, memory = places + new.shape[2], self._memory.get(name)
        if memory is None or memory.shape[2] < end or not _begins(memory, held):
            memory = self._memory[name] = held.new_empty(batch, heads, end + end // SPARE, width)
            memory[:, :, :places] = held
        memory[:, :, places:end] = new
        return memory[:, :, :end]

    def nbytes(self) -> int:
        """Count the bytes that it takes, room to grow included."""
        tensors = (self.keys, self.values, self.shown)
        return sum(tensor.untyped_storage().nbytes() for tensor in tensors if tensor is not None)

    def get_seq_length(self) -> int:
        """Count the tokens that were read, those that are gone too: the next one's position."""
        return self.seen

    def places(self) -> int:
        """Count the tokens that are held."""
        return 0 if self.keys is None or self.keys.dim() < 4 else int(self.keys.shape[2])

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many keys a mask has to cover; they end where the new queries do."""
        held = self.places()
        return held + query_length, self.seen - held

    def keep(self, rows: Sequence[tuple[int, Kept]]) -> None:
        """Leave of each example what is kept of its prompt, which begins at a place; padding goes."""
        assert self.keys is not None and self.values is not None
        heads = self.keys.shape[1]
        tables = torch.zeros(len(rows), heads, self.seen, dtype=torch.bool, device=self.keys.device)
        for row, (first, kept) in enumerate(rows):
            tokens = kept.tokens
            size = self.seen - first if tokens is None else tokens.shape[1]
            tables[row, :, first : first + size] = True if tokens is None else tokens.to(tables.device)
        counts = tables.sum(-1)
        self.room = int(counts.max())
        # the kept ones in their order, then some of those that go
        order = tables.logical_not().to(torch.uint8).argsort(dim=-1, stable=True)[..., : self.room, None]
        self.keys, self.values = (
            self._changed(tensor, rows, name).gather(2, order.expand(-1, -1, -1, tensor.shape[3]))
            for name, tensor in (("keys", self.keys), ("values", self.values))
        )
        place = torch.arange(self.room, device=counts.device)
        shown = place < counts[..., None]
        self.shown = None if bool(shown.all()) else shown

    @staticmethod
    def _changed(tensor: Tensor, rows: Sequence[tuple[int, Kept]], name: str) -> Tensor:
        """Put what methods made of keys or of values in their place."""
        if all(getattr(kept, name) is None for _, kept in rows):
            return tensor
        tensor = tensor.clone()
        for row, (first, kept) in enumerate(rows):
            new = getattr(kept, name)
            if new is not None:
                tensor[row, :, first : first + new.shape[1]] = new.to(tensor)
        return tensor

    def mask(self, given: Tensor | None, heads: int, queries: int) -> Tensor | None:
        """Return what queries see (batch, heads or 1, queries, places), None where that is everything.

        `given` is the mask as a model makes it: its last columns tell of what came after the prompt.
        """
        assert self.keys is not None
        if self.shown is None and (given is None or self.room == 0):
            return given
        batch, groups, places, _ = self.keys.shape
        later = places - self.room
        shown = torch.ones(batch, 1, self.room, dtype=torch.bool, device=self.keys.device)
        if self.shown is not None:
            shown = self.shown.repeat_interleave(heads // groups, 1)
        shown = shown[:, :, None].expand(-1, -1, queries, -1)
        if given is None:
            return torch.nn.functional.pad(shown, (0, later), value=True)
        tail = given[..., given.shape[-1] - later :].expand(batch, shown.shape[1], -1, -1)
        if tail.dtype != torch.bool:
            hidden = torch.zeros_like(shown, dtype=tail.dtype)
            shown = hidden.masked_fill_(~shown, torch.finfo(tail.dtype).min)
        return torch.cat([shown, tail], -1)

    def crop(self, tokens_to_remove: int) -> None:
        """Take the last tokens back. Raises UserError where they are the prompt's."""
        if (removed := abs(tokens_to_remove)) > self.places() - self.room:
            raise UserError(
                f"{removed} tokens of a realised cache were to go: its prompt was cut, read it again"
            )
        super().crop(-removed)
        self.seen -= removed

    def reset(self) -> None:
        """Begin anew."""
        super().reset()
        self._clear()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Let beams go on from others."""
        super().reorder_cache(beam_idx.long())  # type: ignore[arg-type]
        self.batch_shown(lambda shown: shown.index_select(0, beam_idx.to(shown.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each example."""
        super().batch_repeat_interleave(repeats)
        self.batch_shown(lambda shown: shown.repeat_interleave(repeats, 0))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Go on with some examples."""
        super().batch_select_indices(indices)
        self.batch_shown(lambda shown: shown[indices])

    def batch_shown(self, change: Any) -> None:
        self.shown = None if self.shown is None else change(self.shown)


def _begins(memory: Tensor, held: Tensor) -> bool:
    return memory.data_ptr() == held.data_ptr() and memory.shape[:2] == held.shape[:2]
