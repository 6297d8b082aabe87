"""The study protocol: what looks at a model, and what it may look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from attnbench.methods.protocol import Site, Term
from attnbench.methods.views import TEXT, Data, Sample, View

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from pandas import DataFrame
    from torch import Tensor, nn

OBSERVERS = ("hidden", "scores", "probs", "context")


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
    called once for each method, while it is applied, with gradients enabled, and does all. There
    `data.calibration()` has the batches that methods learn from, and `data.measured()` the task's metric.

    `tables()` returns DataFrames by name. The index says what a row is of (kind, layer, head, token, ...),
    every other column is a number in the unit that the docstring says: so differences between a method and
    dense can be taken of any table. The table `heads` has one row a head; `shown` names the up to three of
    its columns that the terminal prints and that colour the grid of heads. Each row of a table `left_out`
    (part, why), with one number, is told in a line. `arrays()` returns what is too much for a table,
    `draw(tables, arrays)` figures of both, beside the maps of `shown` that all studies get. Raise ValueError
    in `__post_init__` for a field out of range. An example:

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

    def reads(self) -> dict[str, str]:
        """Hash what is read beside the model and the texts that are given: a part of a record's identity.

        Raises UserError where it is not to be had: nothing has been loaded yet.
        """
        return {}

    def run(self, model: nn.Module, data: Data) -> None:
        """Do all by itself, where passes that are watched are not enough."""
        return None

    def tables(self) -> dict[str, DataFrame]:
        """Return what was found."""
        return {}

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what is too much for a table."""
        return {}

    def draw(self, tables: dict[str, DataFrame], arrays: dict[str, np.ndarray]) -> dict[str, Figure]:
        """Return pictures of what `tables` and `arrays` returned, each a `matplotlib.figure.Figure`."""
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
