"""What a study is shown: the tokens of a text, and the site of a tensor with whose it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from attnbench.methods.protocol import Site

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

TEXT = "text"  # the texts or the task's documents that the user names; every other data set is a study's own
Side = Literal["queries", "keys"]
T = TypeVar("T")


@dataclass(frozen=True)
class Tokens:
    """The tokens of one text, without padding.

    `ids` (tokens,), `special` (tokens,) True for [CLS] and its like, `names` as the tokenizer writes them,
    `offsets` (tokens, 2) where they stand in the text and `words` (tokens,) the number of the word that each
    is part of, -1 for none: both None where nothing tells.
    """

    ids: np.ndarray
    special: np.ndarray
    names: tuple[str, ...]
    offsets: np.ndarray | None = None
    words: np.ndarray | None = None


@dataclass(frozen=True)
class Sample:
    """One example of a data set: its `number` there, its tokens, and what the data say `about` it.

    `target` is what the decoder of an encoder-decoder reads, None for other models.
    """

    number: int
    source: Tokens
    target: Tokens | None = None
    text: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)

    def tokens(self, side: Side, kind: str) -> Tokens:
        """Return the tokens that are the queries, or the keys, of an attention of this kind."""
        at_source = kind == "encoder" or (kind == "cross" and side == "keys")
        return self.source if at_source or self.target is None else self.target


@dataclass(frozen=True)
class View(Site):
    """The site of a tensor that an observer is shown, and whose it is: `samples`, one for each example in it.

    `data` names the data set of the pass, `batch` counts the batches. The tensor's query rows are the tokens
    `offset` to `offset + rows` of each sample, its keys the tokens 0 to `columns`; a long text comes in
    several tiles, of which each has all heads.
    """

    samples: tuple[Sample, ...] = ()
    data: str = TEXT
    batch: int = 0
    rows: int = 0
    columns: int = 0
    memo: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)
    shared: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def once(self, key: str, make: Callable[[], T]) -> T:
        """Return what `make` makes of this very tensor: made by the first study that asks, for all."""
        if key not in self.shared:
            self.shared[key] = make()
        found: T = self.shared[key]
        return found

    def ids(self, side: Side) -> Tensor:
        """Return the tokens' ids (batch, queries) or (batch, keys)."""
        return self._stacked("ids", side)

    def special(self, side: Side) -> Tensor:
        """Tell which tokens are special: (batch, queries) or (batch, keys)."""
        return self._stacked("special", side)

    def _stacked(self, what: str, side: Side) -> Tensor:
        start, stop = (self.offset, self.offset + self.rows) if side == "queries" else (0, self.columns)
        source = self.samples[0].tokens(side, self.kind) is self.samples[0].source
        key = (what, source, start, stop, self.samples[0].number, len(self.samples))
        if key not in self.memo:
            import numpy as np
            import torch

            rows = [getattr(sample.tokens(side, self.kind), what)[start:stop] for sample in self.samples]
            self.memo[key] = torch.from_numpy(np.stack(rows))
        found: Tensor = self.memo[key]
        return found


@dataclass(frozen=True)
class Batch:
    """Samples padded to one forward pass: `model(**batch.inputs)`."""

    inputs: dict[str, Tensor]
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class Measured:
    """A task's first metric: `value`, and by sample `scores`, as the records' `aggregate` takes them."""

    metric: str
    value: float
    higher_is_better: bool
    aggregate: str
    scores: np.ndarray


class Data(Protocol):
    """What a study reads texts with, for one model: tokenizer, device, seed and the texts that were given."""

    tokenizer: Any
    device: str
    seed: int
    given: Sequence[Sample]

    def sample(self, text: str, pair: str | None = None, *, target: bool = True, **about: Any) -> Sample:
        """Tokenise a text, or a pair, as the model reads it. Raises UserError where it is too long.

        Without `target` an encoder-decoder writes nothing: enough for what looks at the encoder alone.
        """

    def words(self, words: Sequence[str], **about: Any) -> Sample:
        """Tokenise a sentence that is split into words: `source.words` tells whose part each token is."""

    def tokens(self, ids: Sequence[int], **about: Any) -> Sample:
        """Take tokens as they are: nothing is added."""

    def batches(self, samples: Sequence[Sample], size: int | None = None) -> Iterator[Batch]:
        """Pad samples to batches of like length on the model's device; the longest come first."""

    def calibration(self) -> list[dict[str, Tensor]]:
        """Return the batches that methods learn from. Raises NotApplicable where there are none."""

    def measured(self) -> Measured:
        """Evaluate the task that was given, with the model as it is. Raises NotApplicable where none was."""
