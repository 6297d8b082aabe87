"""Look at attention while a task is evaluated, in the passes that read the first samples anyway."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from attnbench.measures.measure import Attention, looked_at, measure
from attnbench.methods.protocol import Method, overridden

if TYPE_CHECKING:
    from torch import Tensor, nn

    from attnbench.engine.serving.applied import Applied

Batch = dict[str, "Tensor"]


class Along:
    """Measures `methods` on samples, each in the first pass that reads it whole, or after all passes.

    A pass is watched where one of its rows is a sample, and only these rows count. What it answers is the
    same but for rounding, where it would otherwise attend by the fused kernel. Where caches are cut, passes
    see more than their text: nothing is watched.
    """

    def __init__(self, model: nn.Module, batches: Sequence[Batch], methods: Sequence[Method]) -> None:
        self._model, self._batches, self._methods = model, batches, methods
        self._seen = Attention(model, methods)
        self._left: dict[bytes, list[tuple[int, int]]] = defaultdict(list)  # a text -> its batch and row
        for k, batch in enumerate(batches):
            for row, text in enumerate(_texts(batch["input_ids"], batch.get("attention_mask"))):
                self._left[text].append((k, row))

    @contextlib.contextmanager
    def applied(self) -> Iterator[Applied]:
        """Apply the methods, and watch, until the block ends."""
        from attnbench.engine.serving.attention import apply, pause

        cuts = any("cache" in overridden(method) for method in self._methods)
        if cuts or not looked_at(self._methods):
            with apply(self._model, *self._methods) as applied:
                yield applied
            return
        with contextlib.ExitStack() as stack:
            before = stack.enter_context(self._seen.before())
            applied = stack.enter_context(apply(self._model, *self._methods))
            looking = before, stack.enter_context(self._seen.after())
            pause(self._model, looking, True)

            def begin(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                self._seen.rows = self._samples(args, kwargs)
                if self._seen.rows:
                    pause(self._model, looking, False)

            def end(*_: Any) -> None:
                if self._seen.rows:
                    pause(self._model, looking, True)

            handles = [
                self._model.register_forward_pre_hook(begin, with_kwargs=True),
                self._model.register_forward_hook(end, always_call=True),
            ]
            try:
                yield applied
            finally:
                for handle in handles:
                    handle.remove()
                for block in looking:
                    block.guards.clear()  # what is kept of what both saw is kept by the methods

    def found(self) -> dict[str, Any]:
        """Return what `measure` does, of all samples."""
        rest: list[Batch] = []
        for k, batch in enumerate(self._batches):
            rows = sorted(row for places in self._left.values() for place, row in places if place == k)
            if rows:
                rest.append({name: tensor[rows] for name, tensor in batch.items()})
        return measure(self._model, rest, self._methods, self._seen)

    def _samples(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> set[int]:
        """Return which rows of a call are samples, each counted once."""
        ids, mask = kwargs.get("input_ids", args[0] if args else None), kwargs.get("attention_mask")
        past = kwargs.get("past_key_values")
        shortest = min(map(len, self._left), default=0)
        if not shortest or ids is None or (past is not None and past.get_seq_length()):
            return set()
        if ids.dim() != 2 or ids[0].nbytes < shortest or (mask is not None and mask.shape != ids.shape):
            return set()
        return {row for row, text in enumerate(_texts(ids, mask)) if self._takes(text)}

    def _takes(self, text: bytes) -> bool:
        """Tell whether a text is a sample that was not read yet, and note that it is."""
        places = self._left.get(text)
        if not places:
            return False
        places.pop()
        if not places:
            del self._left[text]
        self._seen.samples += 1
        return True


def _texts(ids: Tensor, mask: Tensor | None) -> list[bytes]:
    """Return what stands for the text of each row (rows, tokens), padding left out."""
    rows = ids.cpu().numpy()
    there = rows == rows if mask is None else mask.cpu().numpy() != 0
    return [row[own].tobytes() for row, own in zip(rows, there, strict=True)]
