"""How many tokens of a request are the prompt that caches are cut after, where its context is marked."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from attnbench.backends.causal.inputs import Inputs, Row
from attnbench.errors import NotApplicable


class Ends:
    """Tells where prompts end in tokens; `border` is where a request's context does, in characters.

    A token that crosses the border comes after it. Without a border, and at the latest, a prompt ends one
    token before the first that is scored or generated.
    """

    def __init__(self, inputs: Inputs) -> None:
        self.border: Callable[[Any], int] | None = None
        self._inputs = inputs
        self._known: dict[tuple[str, int], int] = {}
        self._borders: dict[str, int] = {}  # of the texts that are written on from

    def of_rows(self, requests: Sequence[Any], rows: Sequence[Row]) -> list[Row]:
        """Return the inputs of likelihoods with their prompts. Raises NotApplicable."""
        if self.border is None:
            return [*rows]
        found = []
        for request, row in zip(requests, rows, strict=True):
            text, read = str(request.args[0]).rstrip(), len(row.ids) + 1 - len(row.targets)
            found.append(row._replace(prompt=self._end(text, self.border(request), read)))
        return found

    @contextlib.contextmanager
    def of_texts(self, requests: Sequence[Any]) -> Iterator[None]:
        """Know until the block ends where contexts do in texts to be written on. Raises NotApplicable."""
        known: dict[str, int] = {}
        if self.border is not None:
            for request, border in zip(requests, map(self.border, requests), strict=True):
                text = request.args[0]
                if known.setdefault(text, border) != border:
                    raise NotApplicable(f"two contexts end at different places in one text: {text[:60]!r}")
        self._borders = known
        try:
            yield
        finally:
            self._borders = {}

    def lengths(self, texts: Sequence[str], read: Sequence[int]) -> list[int]:
        """Return the lengths of the prompts of texts, of which so many tokens are read."""
        if not self._borders:
            return [tokens - 1 for tokens in read]
        return [
            self._end(text, self._borders[text], tokens) for text, tokens in zip(texts, read, strict=True)
        ]

    def _end(self, text: str, border: int, read: int) -> int:
        """Return where a prompt ends in a text of which the last tokens are read, so many."""
        lost = len(self._inputs.read(text)["input_ids"]) - read
        return max(0, min(self._before(text, border) - lost, read - 1))

    def _before(self, text: str, border: int) -> int:
        """Return how many tokens of a text end by a border in it."""
        tokenizer = self._inputs.tokenizer
        if not tokenizer.is_fast:
            raise NotApplicable(
                f"{type(tokenizer).__name__} does not tell which characters its tokens stand for, so that no "
                "context is found among them: a fast tokenizer does"
            )
        if (text, border) not in self._known:
            spans = self._inputs.read(text, return_offsets_mapping=True)["offset_mapping"]
            crossing = (place for place, (_, end) in enumerate(spans) if end > border)
            self._known[text, border] = next(crossing, len(spans))
        return self._known[text, border]
