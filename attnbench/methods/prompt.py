"""What a method sees of a prompt when it is complete, and what it says is kept of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from attnbench.errors import NotApplicable

if TYPE_CHECKING:
    from torch import Tensor

TILE = 1 << 20  # probabilities at a time: 4 MB, which stay near a core
ROWS = 32  # of long prompts, so that their sums by tile stay few


@dataclass
class Kept:
    """What is left of a prompt at one site, for every query after it.

    `keys` and `values` (key-value heads, tokens, head_dim) replace the prompt's, None where they stay;
    `tokens` (key-value heads, tokens) is True where a token stays, None where all do. `bits` is how many bits
    a value takes on average, scales and minima counted, one number or (key-value heads, tokens), 16 unless
    given. A `note` is counted by sample and shown beside the numbers.
    """

    keys: Tensor | None = None
    values: Tensor | None = None
    tokens: Tensor | None = None
    bits: Tensor | float | None = None
    note: str = ""


@dataclass
class Prompt:
    """One example's prompt at one site, to read, not to write, and not to keep.

    `keys` and `values` are (key-value heads, tokens, head_dim), `queries` (heads, tokens, head_dim), as they
    enter attention, padding cut off; of a sliding layer what its window still holds for the next query. The
    query heads of key-value head g are g n to (g + 1) n - 1, n = heads / key-value heads. `kept` is what the
    terms before this one have left; `keys` and `values` are theirs then. `start` is the position of the first
    token in the example: 0, but for a window. `later` (heads, tokens, head_dim) are the queries after the
    prompt, for a method that declares `ahead`; None while generating.

    Where `cache` is asked again while generating (`Method.interval`), keys and values are of the tokens that
    are left and of those that came since, at `places` (key-value heads, tokens) in the text; `queries` are
    of all tokens read, `probs` what they gave to those left, and `began` tokens were the prompt. `began` is 0
    and `places` None the first time.
    """

    keys: Tensor
    values: Tensor
    queries: Tensor
    attend: Callable[[slice], Tensor] = field(repr=False)
    attend_later: Callable[[], Tensor] | None = field(default=None, repr=False)
    turning: Rotation | None = field(default=None, repr=False)
    kept: Kept = field(default_factory=Kept)
    start: int = 0
    later: Tensor | None = None
    began: int = 0
    places: Tensor | None = None

    @property
    def tokens(self) -> int:
        return self.keys.shape[1]

    def probs(self, rows: slice = slice(None)) -> Tensor:
        """Return the prompt's own dense attention (heads, rows, tokens) for the queries asked for.

        In single precision at least, without what methods make of it.
        """
        return self.attend(rows)

    def tiles(self) -> list[slice]:
        """Return ranges of queries whose attention is a few megabytes, of long prompts 32 queries."""
        size, rows = max(ROWS, TILE // (len(self.queries) * self.tokens)), self.queries.shape[1]
        return [slice(row, min(row + size, rows)) for row in range(0, rows, size)]

    def later_probs(self) -> Tensor:
        """Return the dense attention (heads, later tokens, tokens) of the queries after the prompt.

        It is their share that falls on the prompt. Raises NotApplicable where they are not known yet.
        """
        if self.attend_later is None:
            raise NotApplicable("the queries after the prompt are not known while generating")
        return self.attend_later()

    @property
    def unrotated(self) -> tuple[Tensor, Tensor] | None:
        """Return queries and keys before the rotation to their positions, None where nothing rotates."""
        return None if self.turning is None else self.turning.back(self.queries, self.keys)

    def rotation(self, positions: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return cosines and sines (positions, head_dim) of the rotation to positions, None without one.

        `positions` (positions,) count from the first token of the example.
        """
        return None if self.turning is None else self.turning.at(positions)

    def rotate(self, vectors: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        """Rotate vectors (heads, tokens, head_dim) as the model does; both tables are (tokens, head_dim)."""
        if self.turning is None:
            return vectors
        return self.turning.rotate(vectors, cosines, sines)


class Rotation(Protocol):
    """How a model rotates queries and keys to their positions."""

    def back(self, queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Undo it."""

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return its cosines and sines."""

    def rotate(self, vectors: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        """Do it."""
