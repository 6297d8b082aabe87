"""How sparse attention is: what is zero or small, and how few keys hold half of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from attnbench import Study, by_head, hookimpl
from attnbench_plugins.studies._histograms import ByToken, Sums, bins_of, deviation, visible, wide

FREQUENT = 70  # tokens in the table of a corpus, as theirs
TEXTS = 4  # first texts of which each token is listed
BARS = 10
HALF = 0.5 + 1e-6  # equal weights that make 1/2 do not exceed it, whatever their rounding


@dataclass
class Sparsity(Study):
    """Say how sparse each head is: zeros, small probabilities, how few keys have half the mass.

    Over the visible (query, key) pairs: `zeros` is the share p = 0, `under` the share p <= threshold. `half`
    is the mean over queries of the number of largest probabilities whose sum exceeds 1/2, `half_sd` its
    standard deviation, `half_share` the mean of that number over the number of visible keys; queries whose
    whole mass is no more than 1/2 have none, `short` is their share, `empty` that of queries without mass.
    `diversity` is the standard deviation over queries of the first of 100 log bins (1e-8 to 1) in which the
    query's cdf reaches 1/2. `bars`: shares of a head's queries by their own share p <= threshold, in tenths.
    `layers`: diversity averaged over heads. `tokens`: the mean share p <= threshold of a token's queries over
    heads, of special tokens and of the 70 most frequent; `texts`: of every token of the first 4 texts.
    Shapes: probs (batch, heads, queries, keys). Units: shares of 1, `half` in keys, diversity in bins.
    Source: https://aclanthology.org/2021.findings-acl.363/, its code's F13, F14, F18, F19, F20. Differs:
    their number of largest probabilities is one less (an index from 0), and 0 for a query of less mass than
    1/2; their bars count p <= 1e-8; their titles print 0 or 1 for every sparsity (a whole-number division).
    """

    name, examples = "sparsity", ("sparsity", "sparsity0.0005")
    shown = ("zeros", "under", "half")
    threshold: float = 0.001

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise ValueError("the threshold is from 0 up to 1")

    def begin(self, model: Any, sites: Any) -> None:
        self.sums, self.tokens = Sums(), ByToken(1)
        self.texts: dict[Any, float] = {}

    def probs(self, probs: Any, site: Any) -> None:
        import torch

        values, (seen, count) = wide(probs), visible(probs, site)
        real = count > 0
        shown = values if seen is None else values.masked_fill(~seen, 2.0)  # 2: above every threshold
        zeros, under = ((shown <= bound).sum(-1).to(count.dtype) for bound in (0.0, self.threshold))
        sparse = under / count.clamp(min=1)
        bar = (sparse * BARS).floor_().clamp_(max=BARS - 1).long()
        heads = torch.arange(probs.shape[1], device=probs.device)[:, None] * BARS
        bars = torch.bincount((bar + heads)[real.expand_as(bar)], minlength=probs.shape[1] * BARS)
        half, middle = self._ranked(shown, count)
        enough = (half > 0) & real
        self.sums.add(
            site,
            pairs=float(count.sum(dtype=torch.float64)),
            rows=float(real.sum()),
            zeros=zeros.sum((0, 2), dtype=torch.float64),
            under=under.sum((0, 2), dtype=torch.float64),
            bars=bars.view(-1, BARS),
            enough=enough.sum((0, 2)),
            half=half.sum((0, 2), dtype=torch.float64),
            half_squares=half.square().sum((0, 2), dtype=torch.float64),
            half_share=(half / count.clamp(min=1)).sum((0, 2), dtype=torch.float64),
            short=(~enough & real).sum((0, 2)),
            empty=((zeros == count) & real).sum((0, 2)),
            middle=(middle * real).sum((0, 2), dtype=torch.float64),
            middle_squares=(middle.square() * real).sum((0, 2), dtype=torch.float64),
        )
        self.tokens.add(site, sparse.mean(1)[..., None], real[:, 0])
        self._note(site, sparse)

    def _ranked(self, shown: Any, count: Any) -> tuple[Any, Any]:
        """Return each query's number of keys to half the mass, 0 for none, and the bin of its median."""
        import numpy as np
        import torch

        # numpy sorts short rows many times faster than torch does on a processor
        hidden = shown.masked_fill(shown > 1.5, -1.0)
        ordered = torch.from_numpy(np.sort(hidden.cpu().numpy(), -1))  # hidden keys first
        keys, held = ordered.shape[-1], count.cpu()
        mass = ordered.flip(-1).clamp_(min=0).cumsum(-1, dtype=torch.float64)
        over = mass > HALF
        half = torch.where(over.any(-1), over.to(torch.uint8).argmax(-1) + 1, 0).to(ordered.dtype)
        place = keys - held + torch.ceil(held / 2).clamp(min=1) - 1
        place = place.clamp(max=keys - 1).long().expand(ordered.shape[:3])
        middle = bins_of(ordered.gather(-1, place[..., None])[..., 0]).to(ordered.dtype)
        return half.to(shown.device), middle.to(shown.device)

    def _note(self, site: Any, sparse: Any) -> None:
        for k, sample in enumerate(site.samples):
            if sample.number < TEXTS:
                names = sample.tokens("queries", site.kind).names
                for row, value in enumerate(sparse[k].mean(0).tolist(), start=site.offset):
                    self.texts[sample.number, row, names[row], site.kind, site.layer] = value

    def tables(self) -> Any:
        import pandas as pd

        sums = self.sums
        columns = {name: sums.column(name, "pairs") for name in ("zeros", "under")}
        columns |= {name: sums.column(name, "enough") for name in ("half", "half_share")}
        columns["half_sd"] = deviation(sums, "half", "half_squares", "enough")
        columns |= {name: sums.column(name, "rows") for name in ("short", "empty")}
        columns["diversity"] = deviation(sums, "middle", "middle_squares", "rows")
        heads = by_head(columns)
        rows = sums.column("rows")
        bars = [
            (*place, head, (k + 1) / BARS, share)
            for place, counts in sorted(sums.column("bars").items())
            for head, row in enumerate(counts / rows[place])
            for k, share in enumerate(row)
        ]
        tokens = [
            (*place, *self.tokens.label(slot), count, float(self.tokens.sums[place][slot]) / count)
            for place in sorted(self.tokens.sums)
            for slot in self.tokens.frequent(FREQUENT)
            if (count := float(self.tokens.counts[place][slot]))
        ]
        texts = [(*key, value) for key, value in sorted(self.texts.items())]
        return {
            "heads": heads,
            "layers": heads[["diversity", "zeros", "under"]].groupby(["kind", "layer"]).mean(),
            "bars": _frame(pd, bars, ["kind", "layer", "head", "up_to"], ["share"]),
            "tokens": _frame(pd, tokens, ["kind", "layer", "token", "special"], ["count", "under"]),
            "texts": _frame(pd, texts, ["text", "position", "token", "kind", "layer"], ["under"]),
        }

    def draw(self, tables: Any, arrays: Any) -> Any:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 3), layout="constrained")
        bars, diversity = figure.subplots(1, 2)
        for (kind, layer), part in tables["bars"].groupby(["kind", "layer"]):
            mean = part.groupby("up_to").mean()
            bars.plot(mean.index, mean["share"], linewidth=1, label=f"{kind} {layer}")
        bars.set(xlabel=f"share of keys with p <= {self.threshold:g}, up to", ylabel="share of queries")
        for kind, part in tables["layers"].groupby("kind"):
            diversity.plot(part.index.get_level_values("layer"), part["diversity"], marker="o", label=kind)
        diversity.set(xlabel="layer", ylabel="diversity (bins)")
        diversity.legend(fontsize=7)
        return {"bars": figure}


def _frame(pd: Any, rows: Any, index: list[str], columns: list[str]) -> Any:
    return pd.DataFrame(rows, columns=[*index, *columns]).set_index(index)


@hookimpl
def register_studies(register: Callable[[type[Study]], None]) -> None:
    register(Sparsity)
