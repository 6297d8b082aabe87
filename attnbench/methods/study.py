"""The study protocol: what a study is, which texts it sees, and what of attention it is shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from attnbench.methods.protocol import Site, Term

if TYPE_CHECKING:
    import numpy as np
    from pandas import DataFrame
    from torch import Tensor, nn

OBSERVERS = ("hidden", "scores", "probs", "context")
TEXT = "text"  # the texts or the task's documents that the user names; every other data set is a study's own
Side = Literal["queries", "keys"]


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

    `data` names the data set of the pass. The tensor's query rows are the tokens `offset` to
    `offset + rows` of each sample, its keys the tokens 0 to `columns`; a long text comes in several tiles,
    of which each has all heads.
    """

    samples: tuple[Sample, ...] = ()
    data: str = TEXT
    rows: int = 0
    columns: int = 0
    memo: dict[Any, Tensor] = field(default_factory=dict, repr=False, compare=False)

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
        return self.memo[key]


@dataclass(frozen=True)
class Batch:
    """Samples padded to one forward pass: `model(**batch.inputs)`."""

    inputs: dict[str, Tensor]
    samples: tuple[Sample, ...]


class Data(Protocol):
    """What a study reads texts with, for one model: tokenizer, device, seed and the texts that were given."""

    tokenizer: Any
    device: str
    seed: int
    given: Sequence[Sample]

    def sample(self, text: str, pair: str | None = None, **about: Any) -> Sample:
        """Tokenise a text, or a pair, as the model reads it. Raises UserError where it is too long."""

    def words(self, words: Sequence[str], **about: Any) -> Sample:
        """Tokenise a sentence that is split into words: `source.words` tells whose part each token is."""

    def tokens(self, ids: Sequence[int], **about: Any) -> Sample:
        """Take tokens as they are: nothing is added."""

    def batches(self, samples: Sequence[Sample], size: int | None = None) -> Iterator[Batch]:
        """Pad samples to batches of like length on the model's device; the longest come first."""


@dataclass
class Study(Term):
    """One look at a model: a dataclass with a spec, as a method has one. It watches and changes nothing.

    Override the observers it needs. Each gets a tensor, after the methods applied, and a `View` of its site:

        hidden     (batch, tokens, hidden)                 input of a layer
        scores     (batch, heads, queries, keys)           before the softmax, -inf or hugely negative: hidden
        probs      (batch, heads, queries, keys)           after it, in the model's dtype
        context    (batch, heads, queries, head_dim)       probs @ values, before the output projection

    They are called in the order of a forward pass, in no_grad, for every tile: all heads of a few examples
    that have the same number of tokens, and of a long text a range of its queries. Padding is cut off, of
    `hidden` too. `site.samples` says which example is which, `site.ids` and `site.special` give its tokens,
    `site.visible` which keys a query may see. An observer must not change its tensor, nor keep it: clone.
    Reckon per example, or results depend on batches; keep sums and counts, no samples, in float64.

    Passes are shared: all studies see the same pass of a text, and with methods every batch runs densely and
    then with each method. A study object sees one method. `begin(model, sites)` is called on each before the
    first batch and raises NotApplicable for a model that it is not for; `dense` is then its twin of the
    dense passes, which has seen each batch before (None in the dense one itself).

    `data` names what it runs on: TEXT, the texts or the task's documents that are given, and any data sets of
    its own, which `samples(name, data)` brings (none: that part is left out, the rest is measured). Each data
    set is passed through in this order, `site.data` says which it is.

    Override `run(model, data)` instead of observers where passes are not enough (gradients, fits): it is
    called once for each method, while it is applied, with gradients enabled, and does all.

    `tables()` returns DataFrames by name. The index says what a row is of (kind, layer, head, token, ...),
    every other column is a number in the unit that the docstring says: so differences between a method and
    dense can be taken of any table. The table `heads` has one row a head; `shown` names the up to three of
    its columns that the terminal prints and that colour the grid of heads. `arrays()` returns what is too
    much for a table. Raise ValueError in `__post_init__` for a field out of range. An example:

        @dataclass
        class Peak(Study):
            '''Report the mean over queries of the largest probability. Source: ...'''

            name, examples, shown = "peak", ("peak",), ("peak",)

            def begin(self, model, sites):
                self.sums = {(site.kind, site.layer): 0.0 for site in sites}
                self.rows = dict(self.sums)

            def probs(self, probs, site):
                self.sums[site.kind, site.layer] += probs.amax(-1).double().sum((0, 2)).cpu().numpy()
                self.rows[site.kind, site.layer] += site.rows * len(site.samples)

            def tables(self):
                return {"heads": by_head({"peak": {k: self.sums[k] / self.rows[k] for k in self.sums}})}

        @hookimpl
        def register_studies(register):
            register(Peak)
    """

    name: ClassVar[str] = ""  # "sparsity", or "roles:syntactic" for a variant
    examples: ClassVar[tuple[str, ...]] = ()  # specs that tests run: seconds each, no files
    data: ClassVar[tuple[str, ...]] = (TEXT,)
    shown: ClassVar[tuple[str, ...]] = ()  # columns of the table "heads", at most three

    dense: Any = field(default=None, init=False, repr=False, compare=False)

    def begin(self, model: nn.Module, sites: Sequence[Site]) -> None:
        """Start anew for one model and one method: `sites` are the places where it attends.

        Raises NotApplicable for a model that the study is not for.
        """
        return None

    def hidden(self, hidden: Tensor, site: View) -> None:
        """See the input of a layer: (batch, tokens, hidden)."""
        return None

    def scores(self, scores: Tensor, site: View) -> None:
        """See the scores before the softmax: (batch, heads, queries, keys)."""
        return None

    def probs(self, probs: Tensor, site: View) -> None:
        """See the probabilities after the softmax and the methods: (batch, heads, queries, keys)."""
        return None

    def context(self, context: Tensor, site: View) -> None:
        """See what each head read, before the output projection: (batch, heads, queries, head_dim)."""
        return None

    def samples(self, name: str, data: Data) -> Sequence[Sample]:
        """Return the samples of a data set of the study's own; none where its part is to be left out."""
        return ()

    def run(self, model: nn.Module, data: Data) -> None:
        """Do all by itself, where passes that are watched are not enough."""
        return None

    def tables(self) -> dict[str, DataFrame]:
        """Return what was found."""
        return {}

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what is too much for a table."""
        return {}


def observed(cls: type[Study]) -> tuple[str, ...]:
    """List the observers that a study overrides."""
    return tuple(stage for stage in OBSERVERS if getattr(cls, stage) is not getattr(Study, stage))


def alone(cls: type[Study]) -> bool:
    """Tell whether a study does all by itself."""
    return cls.run is not Study.run


def by_head(columns: Mapping[str, Mapping[tuple[str, int], Any]]) -> DataFrame:
    """Make the table of one row a head: each column is (kind, layer) -> one number a head."""
    import numpy as np
    import pandas as pd

    places = sorted({place for values in columns.values() for place in values})
    rows = {
        place: len(np.atleast_1d(next(values[place] for values in columns.values() if place in values)))
        for place in places
    }
    index = pd.MultiIndex.from_tuples(
        [(*place, head) for place in places for head in range(rows[place])], names=["kind", "layer", "head"]
    )
    found = {
        name: np.concatenate(
            [np.asarray(values.get(place, np.full(rows[place], np.nan)), dtype=float) for place in places]
        )
        for name, values in columns.items()
    }
    return pd.DataFrame(found, index=index)
