"""What heads and layers know: classifiers on their vectors, with the controls that say what that means."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from attnbench import Study, by_head, hookimpl

DRAWS = 5  # of random heads
OWN, UNTRAINED = "given", "random"  # whose weights
INDEX = {
    "probes": ["task", "weights", "kind", "layer", "head"],
    "compared": ["task", "weights", "vectors"],
    "sweep": ["task", "weights", "heads"],
    "depth": ["task", "weights"],
}
WIDE = 1.96  # standard errors on each side


@dataclass
class Probe(Study):
    """Train a linear probe on every head, every layer and the best heads together: what do they tell?

    A head's vector is its context softmax(Q K^T / sqrt(d)) V at one token, before the output projection; a
    layer's is its output there. `pooling` names the token: cls, first, last, or mean over all; by default
    cls, of a decoder last, else mean. Layer -1 is the mean of the embeddings. A pair of texts u, v has the
    columns |u - v| and u v. A probe is logistic regression: min mean cross entropy + penalty/2 |W|^2 on
    vectors standardised by train, all heads side by side; the penalty, 1e-2 to 1e-5, is chosen on dev and the
    probe then solved again on train, to within 0.1 % of the minimum. Of numbers (stsb) it is ridge
    regression, with `units=100` a perceptron of so many units.

    score: accuracy on test, 0 to 1, of numbers Pearson's correlation, -1 to 1; dev: likewise, and all that is
    chosen is chosen by it. control: accuracy on test for labels hashed from each text's first word, of
    classes as frequent; selectivity = score - control. columns: how wide the vectors are. Tables: `probes`,
    each head, and with head -1 each layer; `heads`, their means over tasks; `compared`, the last layer, the
    layer and the head best on dev, the best n heads of all layers side by side, n = heads a layer, n random
    ones (mean of 5 draws, spread: their standard deviation), the embeddings, and `majority`, the class most
    frequent in train; `sweep`, the best 1, 2, 4, ... heads; `depth`, the mean score of the lower and of the
    upper half of the layers, and gain = lower - upper. In `compared` behind = score of the best n heads -
    score; of both the paired 95 % interval over the texts of test, mean +- 1.96 standard errors. Rows of
    weights `random` are of the same architecture untrained, others of `checkpoint=`, folders with other
    weights of it, as of one training.

    task: one of tasks/probing, a SentEval file or a YAML; source: where its data are, a folder of SentEval
    files or a dataset; limit: samples of each split at most; bare: no untrained weights, no control. Samples
    of train and dev whose text is also in test are left out.

    Shapes: context (batch, heads, tokens, head_dim), hidden states (batch, tokens, hidden), vectors (texts,
    head_dim) or (texts, hidden), W (columns, classes). Source: Jo and Myaeng 2020,
    https://aclanthology.org/2020.acl-main.311/; the control is Hewitt and Liang's, 2019,
    https://aclanthology.org/D19-1275/; the tasks Conneau et al., 2018, https://aclanthology.org/P18-1198/.
    Differs: Jo's code stops an RMSprop early where this solves to the minimum, orders some heads by their
    test scores, and reads decoders at the padding after the last token.
    """

    name, examples = "probe", ("probe:limit=60", "probe:bare:limit=60:pooling=mean:units=4")
    data: ClassVar[tuple[str, ...]] = ()
    shown = ("score", "selectivity")

    task: tuple[str, ...] = field(default=("pocket-agreement",), kw_only=True)
    source: str = field(default="", kw_only=True)
    pooling: Literal["cls", "first", "last", "mean"] | None = field(default=None, kw_only=True)
    units: int = field(default=0, kw_only=True)
    limit: int | None = field(default=None, kw_only=True)
    checkpoint: tuple[str, ...] = field(default=(), kw_only=True)
    bare: bool = field(default=False, kw_only=True)
    seed: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        if self.units < 0 or self.limit == 0 or (self.limit or 1) < 0:
            raise ValueError("units and limit are numbers of units and samples")
        names = [Path(folder).name for folder in self.checkpoint]
        if twice := {name for name in names if names.count(name) > 1 or name in (OWN, UNTRAINED)}:
            raise ValueError(f"checkpoint folders need names of their own: {min(twice)}")

    def begin(self, model: Any, sites: Any) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {name: [] for name in INDEX}
        self.sites = {(site.kind, site.layer) for site in sites}

    def reads(self) -> dict[str, str]:
        from attnbench import probing

        tasks = [probing.find(name, self.source, self.limit) for name in self.task]
        found = {f"probing task {task.name}": task.digest() for task in tasks}
        return found | {
            f"checkpoint {Path(each).name}": probing.fingerprint(each) for each in self.checkpoint
        }

    def run(self, model: Any, data: Any) -> None:
        from attnbench import probing

        for name in self.task:
            task = probing.find(name, self.source, self.limit)
            for weights, other in self._models(model):
                says = "" if weights == OWN else f", {weights} weights"
                trials = probing.Trials(other, data, task, self.pooling, self.units, self.seed, says)
                self._compare(trials, task, weights)

    def _models(self, model: Any) -> Iterator[tuple[str, Any]]:
        """Yield whose weights are looked at: with methods the model's own, without them others too."""
        from attnbench import probing

        yield OWN, model
        if self.dense is None and not self.bare:
            yield UNTRAINED, probing.untrained(model, self.seed)
        for folder in self.checkpoint if self.dense is None else ():
            yield Path(folder).name, probing.loaded(model, folder)

    def _compare(self, trials: Any, task: Any, weights: str) -> None:
        from attnbench import probing

        heads = [place for place in trials.heads if place[:2] in self.sites]
        several = 1 + max(place.head for place in heads)
        labels = task.control(self.seed) if weights == OWN and not (self.bare or task.number) else None

        def add(table: str, index: dict[str, Any], found: Any, k: int, controls: Any = None) -> None:
            row = {name: getattr(found, name)[k] for name in ("dev", "penalty", "columns")}
            control = float("nan") if controls is None else controls.test[k]
            row |= {"score": found.test[k], "control": control, "spread": float("nan")}
            self.rows[table].append({"task": task.name, "weights": weights, **index, **row})

        def tried(sets: Sequence[Any], what: str) -> tuple[Any, Any]:
            return trials.score(sets, what), labels and trials.score(sets, f"{what}, control", labels)

        one = tried([[place] for place in heads], "heads")
        layers = tried([[place] for place in trials.layers], "layers")
        for places, (found, controls) in ((heads, one), (trials.layers, layers)):
            for k, place in enumerate(places):
                add("probes", place._asdict(), found, k, controls)
        order = [heads[k] for k in one[0].order()]
        sizes = [2**k for k in range(len(heads).bit_length()) if 2**k < len(heads)] + [len(heads)]
        swept = trials.score([order[:n] for n in sizes], "best heads")
        for k, n in enumerate(sizes):
            add("sweep", {"heads": n}, swept, k)
        best_heads, per = f"best {several} heads", {}  # vectors -> whether each text of test is told right
        for name, (found, controls), k in (
            ("last layer", layers, len(trials.layers) - 1),
            ("best layer", layers, next(k for k in layers[0].order() if k)),  # 0 are the embeddings
            ("best head", one, one[0].order()[0]),
            (best_heads, tried([order[:several]], best_heads), 0),
            ("embeddings", layers, 0),
        ):
            add("compared", {"vectors": name}, found, k, controls)
            per[name] = found.right[k]
        drawn = trials.score(probing.draws(heads, several, DRAWS, self.seed), "random heads")
        add("compared", {"vectors": f"random {several} heads"}, drawn, 0)
        means = {"score": drawn.test.mean(), "dev": drawn.dev.mean(), "spread": drawn.test.std(ddof=1)}
        self.rows["compared"][-1] |= {**means, "penalty": float("nan")}
        per[f"random {several} heads"] = drawn.right.mean(0)
        for row in self.rows["compared"][-len(per) :]:
            if row["vectors"] != best_heads and not task.number:
                row |= _gain("behind", per[best_heads], per[row["vectors"]])
        if not task.number:
            right, half = layers[0].right[1:], max(1, (len(trials.layers) - 1) // 2)
            lower, upper = right[:half].mean(0), right[-half:].mean(0)
            halves = {"lower": lower.mean(), "upper": upper.mean()}
            index = {"task": task.name, "weights": weights}
            self.rows["depth"].append({**index, **halves, **_gain("gain", lower, upper)})
            guess = {split: probing.majority(task.labels, split) for split in ("test", "dev")}
            row = {"task": task.name, "weights": weights, "vectors": "majority", "columns": 0}
            control = probing.majority(labels, "test") if labels else float("nan")
            self.rows["compared"].append(
                row | {"score": guess["test"], "dev": guess["dev"], "control": control}
            )

    def tables(self) -> Any:
        import pandas as pd

        columns = ["score", "dev", "control", "selectivity", "penalty", "columns", "spread"]
        found = {}
        for name, index in INDEX.items():
            if not self.rows[name]:
                continue
            table = pd.DataFrame(self.rows[name]).set_index(index)
            if name != "depth":
                table["selectivity"] = table["score"] - table["control"]
                table = table[[*columns, *(each for each in table if each not in columns)]]
            found[name] = table.astype(float)
        heads = (
            found["probes"].query("weights == @OWN and head >= 0").groupby(["kind", "layer", "head"]).mean()
        )
        grid = {}
        for name in columns[:4]:
            grid[name] = {key: each.to_numpy() for key, each in heads[name].groupby(["kind", "layer"])}
        return {
            "heads": by_head(grid),
            **{name: each.dropna(axis=1, how="all") for name, each in found.items()},
        }


def _gain(name: str, one: Any, other: Any) -> dict[str, float]:
    """Return the mean of one - other (samples,) and its paired interval, by names."""
    import numpy as np

    gains = np.asarray(one, dtype=float) - other
    reach = WIDE * gains.std(ddof=1) / len(gains) ** 0.5
    return {name: gains.mean(), f"{name}_low": gains.mean() - reach, f"{name}_high": gains.mean() + reach}


@hookimpl
def register_studies(register: Callable[[type[Study]], None]) -> None:
    register(Probe)
