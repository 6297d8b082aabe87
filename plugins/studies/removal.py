"""What a language model loses without its induction heads, against as many drawn from the same layers."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from attnbench import NotApplicable, Removal, Study, UserError, by_head, hookimpl
from attnbench_plugins.studies.patterns.brought import LENGTH, repeating
from attnbench_plugins.studies.patterns.copies import Copies

LEVEL = 0.95
Chosen = dict[tuple[str, int], list[int]]  # (kind, layer) -> the heads that go


@dataclass
class Without(Removal):
    """Take these heads away: their context is zero."""

    name = "without"
    gone: Chosen = field(default_factory=dict)

    def alive(self, site: Any) -> Any:
        return _staying(site, self.gone)


def _staying(site: Any, gone: Chosen) -> Any:
    import torch

    alive = torch.ones(site.heads)
    alive[gone.get((site.kind, site.layer), [])] = 0
    return alive


@dataclass
class RemovedHeads(Study):
    """Remove the best induction heads, and as many others of the same layers: what hurts repeated text more?

    The text: random sequences of 50 different tokens that come twice. The `heads` with the largest
    `induction` (as `roles` has it: mean weight in the second half on the token after the earlier occurrence)
    are chosen on sequences of one seed and removed on those of the next; a draw has as many heads of each
    layer, of all its heads. With a method applied they are the heads that the dense model chose.

    `heads`: induction, and removed 1 for the chosen. `removed`, a row for none, the chosen and each draw:
    `loss` and `first`, mean cross entropy in nats over the tokens of the second and of the first half, but
    for the half's own first; `increase` of the loss over none. `compared`: the increase by the chosen;
    `random` and `spread`, mean and standard deviation of that by `draws`, `most` the largest; `above`, how
    many draws lie below; lead = increase - most; p = (1 + draws not below) / (1 + draws). Intervals are 95 %,
    of means over sequences, paired, by Student's t.

    Shapes: probs (batch, heads, queries, keys), context (batch, heads, queries, head_dim). Source: Olsson et
    al. 2022, https://arxiv.org/abs/2209.11895, who remove heads one at a time; draws of the same layers as
    the control of Voita et al. 2019, https://arxiv.org/abs/1905.09418, wants one. For language models.
    """

    name, examples, shown = "removal", ("removal2",), ("induction", "removed")
    data = ()

    heads: int = 10
    draws: int = field(default=20, kw_only=True)
    sequences: int = field(default=16, kw_only=True)

    def __post_init__(self) -> None:
        if self.heads < 1 or self.draws < 1 or self.sequences < 2:
            raise ValueError("heads and draws are at least 1, sequences at least 2")

    def begin(self, model: Any, sites: Any) -> None:
        if getattr(model.config, "is_encoder_decoder", False) or any(s.kind != "decoder" for s in sites):
            raise NotApplicable(f"{self.name} is for language models")
        self.room = {(site.kind, site.layer): site.heads for site in sites}
        if self.heads >= sum(self.room.values()):
            raise NotApplicable(f"{self.name}: {self.heads} heads of {sum(self.room.values())} leave none")

    def run(self, model: Any, data: Any) -> None:
        from attnbench import apply

        vocabulary = int(model.config.get_text_config().vocab_size)
        try:
            told, asked = (repeating(data, vocabulary, self.sequences, data.seed + k) for k in (0, 1))
        except UserError as reason:
            raise NotApplicable(str(reason)) from None
        self.induction = _induction(model, data, told)
        if self.dense is None:
            chosen = self._best()
            self.sets = {"none": {}, "chosen": chosen, **self._drawn(chosen, data.seed)}
        else:
            self.sets = self.dense.sets
        self.losses = {}
        for name, gone in self.sets.items():
            with apply(model, *([Without(gone=gone)] if gone else [])):
                self.losses[name] = _losses(model, data, asked)

    def _best(self) -> Chosen:
        every = [(key, head) for key, values in sorted(self.induction.items()) for head in range(len(values))]
        every = [(key, head) for key, head in every if key in self.room]
        best = sorted(every, key=lambda one: -self.induction[one[0]][one[1]])[: self.heads]
        return {key: [head for other, head in best if other == key] for key, _ in best}

    def _drawn(self, chosen: Chosen, seed: int) -> dict[str, Chosen]:
        """Draw heads, from each layer as many as were chosen of it."""
        found = {}
        for number in range(self.draws):
            rng = random.Random(f"{seed} removal {number}")
            found[f"random {number}"] = {
                key: sorted(rng.sample(range(self.room[key]), len(heads)))
                for key, heads in sorted(chosen.items())
            }
        return found

    def tables(self) -> Any:
        import numpy as np
        import pandas as pd

        chosen = self.sets["chosen"]
        removed = {
            key: np.isin(np.arange(len(values)), chosen.get(key, []))
            for key, values in self.induction.items()
        }
        whole, rows = self.losses["none"], []
        for name, (first, loss) in self.losses.items():
            row = {"heads": name, "loss": loss.mean(), "first": first.mean()}
            rows.append(row | ({} if name == "none" else _interval("increase", loss - whole[1])))
        table = pd.DataFrame(rows).set_index("heads")
        own, drawn = table.loc["chosen", "increase"], table["increase"].iloc[2:]
        below, worst = int((drawn < own).sum()), self.losses[str(drawn.idxmax())]
        compared = {
            "increase": own, "random": drawn.mean(), "spread": drawn.std(ddof=1), "most": drawn.max(),
            "above": below, "draws": len(drawn), **_interval("lead", self.losses["chosen"][1] - worst[1]),
            "p": (1 + len(drawn) - below) / (1 + len(drawn)),
        }  # fmt: skip
        return {
            "heads": by_head({"induction": self.induction, "removed": removed}),
            "removed": table,
            "compared": pd.DataFrame([compared], index=pd.Index(["chosen"], name="heads")),
        }

    def draw(self, tables: Any, arrays: Any) -> Any:
        from matplotlib.figure import Figure

        table = tables["removed"].iloc[1:].sort_values("increase")
        figure = Figure(figsize=(6, 3.5), layout="constrained")
        axes = figure.subplots()
        for place, (name, row) in enumerate(table.iterrows()):
            reach = row["increase_high"] - row["increase"]
            own = {"color": "C3", "label": "chosen"} if name == "chosen" else {"color": "C0"}
            axes.errorbar(place, row["increase"], reach, fmt="o", markersize=4, capsize=2, **own)
        axes.axhline(0, color="0.4", linestyle=":", linewidth=1)
        axes.set(
            xlabel="draws of heads of the same layers, by what they do", ylabel="increase of loss (nats)"
        )
        axes.set_xticks([])
        axes.legend(fontsize=8)
        return {"increase": figure}


def _induction(model: Any, data: Any, samples: Sequence[Any]) -> Any:
    """Return each head's mean weight on what came after the earlier occurrence, by (kind, layer)."""
    import torch

    from attnbench import watch

    copies = Copies()
    begin = samples[0].about["begin"]

    def see(probs: Any, site: Any) -> None:
        copies.add((site.kind, site.layer), probs, LENGTH, begin, site.offset)

    for batch in data.batches(samples):
        with torch.no_grad(), watch(model, probs=see):
            model(**batch.inputs)
    return copies.columns()["induction"]


def _losses(model: Any, data: Any, samples: Sequence[Any]) -> Any:
    """Return the mean cross entropy of the first and the second half of each sequence: (2, sequences)."""
    import numpy as np
    import torch

    begin = samples[0].about["begin"]
    found = {}
    for batch in data.batches(samples):
        ids = batch.inputs["input_ids"]
        with torch.no_grad():
            logits = model(**batch.inputs).logits
        halves = []
        for start in (begin, begin + LENGTH):
            told, meant = logits[:, start : start + LENGTH - 1], ids[:, start + 1 : start + LENGTH]
            loss = torch.nn.functional.cross_entropy(told.float().mT, meant, reduction="none")
            halves.append(loss.double().mean(1).cpu().numpy())
        for sample, *both in zip(batch.samples, *halves, strict=True):
            found[sample.number] = both
    return np.array([found[sample.number] for sample in samples]).T


def _interval(name: str, values: Any) -> dict[str, float]:
    """Return the mean of values (sequences,) and its 95 % interval, by names."""
    from scipy.stats import t

    reach = t.ppf((1 + LEVEL) / 2, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return {name: values.mean(), f"{name}_low": values.mean() - reach, f"{name}_high": values.mean() + reach}


@hookimpl
def register_studies(register: Callable[[type[Study]], None]) -> None:
    register(RemovedHeads)
