"""What heads and layers know: classifiers on their vectors, with the controls that say what that means."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from attnbench import Study, UserError, by_head, hookimpl, probing

DRAWS = 5  # of random heads
GIVEN, UNTRAINED = "given", "random"  # whose weights
COMPARED, SWEEP, PROBES = "compared", "sweep", "probes"


@dataclass
class Probe(Study):
    """Train a linear probe on every head, every layer and the best heads together: what do they tell?

    A head's vector is softmax(Q K^T / sqrt(d)) V of one token, before the output projection; a layer's is
    its output at that token, layer -1 the embeddings (`pooling`: cls, first, last, mean; by default cls, of a
    decoder last, else mean). A pair of texts has the columns |u - v| and u v. Each probe is logistic
    regression, min mean cross entropy + penalty/2 |W|^2 on vectors standardised by train; the penalty, 1e-2
    to 1e-5, is chosen on dev, and the probe is then solved again on train, to within 0.1 % of its minimum.
    Numbers (stsb): ridge regression. `hidden=100`: a perceptron. All heads are solved side by side.

    score: test accuracy from 0 to 1, of numbers Pearson's correlation; dev: likewise, what choices are made
    by. Best heads: those with the best dev scores over all layers, n of them, n = heads a layer, so that they
    are as wide as a layer. Beside them in `compared`: the last layer, the layer and the head best on dev, n
    random heads (mean of 5 draws, `spread` their standard deviation), the embeddings at the same token and
    as a mean, and majority, the class that is the most frequent in train. `sweep` has the best 1, 2, 4, ...
    heads. control: accuracy for labels hashed from each text's first word; selectivity = score - control.
    Rows of weights `random` are the same architecture untrained; other names are those of `checkpoint=`,
    folders with other weights of this architecture, as of one training. `heads` has means over the tasks.

    task: a bundled one (tasks/probing), a SentEval file or a YAML; source: where its data are, a folder of
    SentEval files or a dataset; limit: samples of each split at most; bare: no controls. Training and dev
    samples whose text is also in test are left out.

    Sources: Jo and Myaeng 2020, https://aclanthology.org/2020.acl-main.311/; Hewitt and Liang 2019,
    https://aclanthology.org/D19-1275/; Conneau et al. 2018, https://aclanthology.org/P18-1198/. Differs: their
    code stops RMSprop early where this solves to the minimum, orders some heads by test scores where this
    never does, and reads decoders at the padding after the last token, where this reads the last token.
    """

    name, examples = "probe", ("probe:limit=60", "probe:pooling=mean:hidden=4:limit=60:bare")
    data: ClassVar[tuple[str, ...]] = ()
    shown = ("score", "selectivity")

    task: tuple[str, ...] = field(default=("pocket-opinions",), kw_only=True)
    source: str = field(default="", kw_only=True)
    pooling: Literal["cls", "first", "last", "mean"] | None = field(default=None, kw_only=True)
    hidden: int = field(default=0, kw_only=True)
    limit: int | None = field(default=None, kw_only=True)
    checkpoint: tuple[str, ...] = field(default=(), kw_only=True)
    bare: bool = field(default=False, kw_only=True)
    seed: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        if self.hidden < 0 or (self.limit is not None and self.limit < 1):
            raise ValueError("hidden is a number of units, limit a number of samples")

    def begin(self, model: Any, sites: Any) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {PROBES: [], COMPARED: [], SWEEP: []}

    def run(self, model: Any, data: Any) -> None:
        for name in self.task:
            task = probing.find(name, self.source, self.limit)
            for weights, other in self._models(model):
                self._measure(task, weights, other, data)

    def _models(self, model: Any) -> Iterator[tuple[str, Any]]:
        """Yield the weights that are looked at: the model's own, with methods; without them others too."""
        yield GIVEN, model
        if self.dense is None and not self.bare:
            yield UNTRAINED, probing.untrained(model, self.seed)
        for folder in self.checkpoint if self.dense is None else ():
            yield folder, probing.with_weights_of(model, folder)

    def _measure(self, task: Any, weights: str, model: Any, data: Any) -> None:
        says = f"{task.name}, {weights} weights" if weights != GIVEN else task.name
        pooled = probing.read(model, data, probing.texts_of(task), self.pooling, f"{says}: reading")
        trials = probing.Trials(pooled, task, data.device, self.hidden, self.seed)
        heads = [place for place in pooled.heads if self._selected(model, place)]
        control = task.control(self.seed) if weights == GIVEN and not (self.bare or task.number) else None

        def score(sets: Sequence[Any], what: str) -> Any:
            return trials.score(sets, None, f"{says}: {what}"), (
                None if control is None else trials.score(sets, control, f"{says}: {what}, control")
            )

        def add(table: str, found: Any, k: int, **index: Any) -> None:
            scores, controls = found
            row = {"score": scores.test[k], "dev": scores.dev[k], "penalty": scores.penalty[k]}
            row |= {"columns": scores.columns[k]}
            if table != SWEEP:
                row |= {"control": float("nan") if controls is None else controls.test[k]}
            self.rows[table].append({"task": task.name, "weights": weights, **index, **row})

        by_layer = score([[place] for place in pooled.layers], "layers")
        by_one = score([[place] for place in heads], "heads")
        for places, found in ((heads, by_one), (pooled.layers, by_layer)):
            for k, place in enumerate(places):
                add(PROBES, found, k, **place._asdict())
        order, several = by_one[0].order(), max(site.head for site in heads) + 1
        best = [[heads[k] for k in order[:n]] for n in _sweep(several, len(heads))]
        swept = trials.score(best, None, f"{says}: best heads")
        for k, places in enumerate(best):
            add(SWEEP, (swept, None), k, heads=len(places))

        top = score([[heads[k] for k in order[:several]]], f"best {several} heads")
        add(COMPARED, by_layer, len(pooled.layers) - 1, vectors="last layer")
        add(COMPARED, by_layer, _best(by_layer[0], 1), vectors="best layer")
        add(COMPARED, by_one, order[0], vectors="best head")
        add(COMPARED, top, 0, vectors=f"best {several} heads")
        drawn = trials.score(probing.draws(heads, several, DRAWS, self.seed), None, f"{says}: random heads")
        add(COMPARED, (drawn, None), 0, vectors=f"random {several} heads")
        self.rows[COMPARED][-1] |= {
            "score": drawn.test.mean(), "spread": drawn.test.std(ddof=1), "dev": drawn.dev.mean(),
            "penalty": float("nan"),
        }  # fmt: skip
        add(COMPARED, by_layer, 0, vectors="embeddings")
        if not task.number:
            row = {"score": task.majority("test"), "dev": task.majority("dev"), "columns": 0}
            self.rows[COMPARED].append({"task": task.name, "weights": weights, "vectors": "majority", **row})

    def tables(self) -> Any:
        import pandas as pd

        found = {}
        for name, index in (
            (PROBES, ["task", "weights", "kind", "layer", "head"]),
            (COMPARED, ["task", "weights", "vectors"]),
            (SWEEP, ["task", "weights", "heads"]),
        ):
            table = pd.DataFrame(self.rows[name]).set_index(index).astype(float)
            if "control" in table:
                table["selectivity"] = table["score"] - table["control"]
            found[name] = table
        own = found[PROBES].xs(GIVEN, level="weights")
        mean = own[own.index.get_level_values("head") >= 0].groupby(["kind", "layer", "head"]).mean()
        columns = {}
        for column in ("score", "dev", "control", "selectivity"):
            grouped = mean[column].groupby(["kind", "layer"])
            columns[column] = {key: values.to_numpy() for key, values in grouped}
        return {"heads": by_head(columns), **found}
