"""How attention and hidden states are distributed: Ji et al.'s histograms and statistics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from attnbench import Study, by_head, hookimpl
from attnbench_plugins.studies._histograms import (
    BINS,
    ByToken,
    Sums,
    binned,
    bins_of,
    deviation,
    edges,
    rows_with_keys,
    visible,
    wide,
)

NAMED = 20  # tokens that are not special, in the table of CDFs
STATES = (1e-4, 1e4)  # bins of |hidden|


@dataclass
class Distribution(Study):
    """Make log histograms of attention by head and by token, and of hidden states by layer.

    A query's histogram is the share of its visible probabilities in each of 100 bins, of equal steps of log10
    from 1e-8 to 1, the first of which has all that is less; a head's is the mean over queries, its cdf the
    running sum, `median` the upper edge of the bin in which the cdf reaches 1/2. `min`, `max`, `mean`, `sd`
    and `up_to_T` (the share p <= T, one for each `at=T`) are over all visible (query, key) pairs. A token's
    cdf is the mean over its occurrences as a query and over heads; listed are special tokens and the 20 most
    frequent others. Hidden states, the input of each layer: the same of |h|, 1e-4 to 1e4, a token a row.
    Shapes: probs (batch, heads, queries, keys), hidden (batch, tokens, hidden). Units: shares of 1.
    Source: https://aclanthology.org/2021.findings-acl.363/, its code's F11, F12, F16 and F21. Differs:
    their 1e-8 is not added to values; their mean, sd, maximum and minimum are of padding too, or of the last
    sample alone, ours of every pair of every sample.
    """

    name, examples = "distribution", ("distribution", "distribution:at=0.0005:at=0.1")
    shown = ("median", "max", "sd")
    at: tuple[float, ...] = field(default=(0.001,), kw_only=True)

    def __post_init__(self) -> None:
        if not all(0 < each < 1 for each in self.at):
            raise ValueError("at takes thresholds between 0 and 1")

    def begin(self, model: Any, sites: Any) -> None:
        self.sums, self.states, self.tokens = Sums(), Sums(), ByToken(BINS)

    def probs(self, probs: Any, site: Any) -> None:
        import torch

        (_, counts), (seen, count) = binned(probs, site), visible(probs, site)
        keys, real = rows_with_keys(probs, site)
        values, exact = wide(probs), probs.to(torch.float64, copy=True)
        self.sums.add(
            site,
            shares=torch.einsum("bhqk,bq->hk", counts, 1 / keys[:, 0]),
            rows=float(real.sum()),
            pairs=float(count.sum(dtype=torch.float64)),
            total=exact.sum((0, 2, 3)),
            squares=exact.square_().sum((0, 2, 3)),
        )
        self.sums.most(site, "max", values.amax((0, 2, 3)))
        shown = values if seen is None else values.masked_fill(~seen, torch.inf)
        self.sums.most(site, "min", shown.amin((0, 2, 3)), sign=-1)
        for bound in self.at:
            self.sums.add(site, **{_up_to(bound): (shown <= bound).sum((0, 2, 3))})
        self.tokens.add(site, counts.sum(1) / (keys[:, 0, :, None] * probs.shape[1]), real[:, 0])

    def hidden(self, hidden: Any, site: Any) -> None:
        import torch

        values = wide(hidden)
        where = bins_of(values.abs(), *STATES)
        self.states.add(
            site,
            shares=torch.bincount(where.flatten(), minlength=BINS)[None] / hidden.shape[-1],
            rows=float(hidden.shape[0] * hidden.shape[1]),
            values=float(hidden.numel()),
            total=values.sum(dtype=torch.float64)[None],
            squares=values.double().square_().sum()[None],
        )
        self.states.most(site, "max", values.max()[None])
        self.states.most(site, "min", values.min()[None], sign=-1)

    def tables(self) -> Any:
        import pandas as pd

        upper = edges()[1:]
        shares = self.sums.column("shares")
        rows = self.sums.column("rows")
        shares = {place: values / rows[place] for place, values in shares.items()}
        columns = {name: self.sums.column(name) for name in ("min", "max")}
        columns["mean"] = self.sums.column("total", "pairs")
        columns["sd"] = deviation(self.sums, "total", "squares", "pairs")
        # a running sum of shares that make 1/2 is seldom 1/2 to the last bit
        reached = {place: (values.cumsum(1) >= 0.5 - 1e-9).argmax(1) for place, values in shares.items()}
        columns["median"] = {place: upper[index] for place, index in reached.items()}
        columns |= {_up_to(bound): self.sums.column(_up_to(bound), "pairs") for bound in self.at}
        histogram = {
            (*place, head, edge): (share, total)
            for place, values in sorted(shares.items())
            for head, row in enumerate(values)
            for edge, share, total in zip(upper, row, row.cumsum(), strict=True)
        }
        found = {
            "heads": by_head(columns),
            "histogram": _frame(histogram, ["kind", "layer", "head", "up_to"], ["share", "cdf"]),
            "tokens": _frame(
                dict(self._by_token(upper)), ["kind", "layer", "token", "special", "up_to"], ["cdf"]
            ),
        }
        if self.states.of:
            summary = {
                "min": self.states.column("min"), "max": self.states.column("max"),
                "mean": self.states.column("total", "values"),
                "sd": deviation(self.states, "total", "squares", "values"),
            }  # fmt: skip
            found["hidden"] = by_head(summary).droplevel("head")
            upper, rows = edges(*STATES)[1:], self.states.column("rows")
            found["hidden_histogram"] = pd.DataFrame(
                [
                    (*place, edge, share)
                    for place, values in sorted(self.states.column("shares").items())
                    for edge, share in zip(upper, values[0] / rows[place], strict=True)
                ],
                columns=["kind", "layer", "up_to", "share"],
            ).set_index(["kind", "layer", "up_to"])
        return found

    def _by_token(self, upper: Any) -> Any:
        labels = {slot: self.tokens.label(slot) for slot in self.tokens.frequent(NAMED)}
        for place in sorted(self.tokens.sums):
            for slot, label in labels.items():
                if count := float(self.tokens.counts[place][slot]):
                    cdf = (self.tokens.sums[place][slot] / count).cumsum(0).tolist()
                    for edge, value in zip(upper, cdf, strict=True):
                        yield (*place, *label, edge), (value,)

    def draw(self, tables: Any, arrays: Any) -> Any:
        from matplotlib.figure import Figure

        pictures = {}
        for name, column, by in (("histogram", "share", "head"), ("tokens", "cdf", "token")):
            table = tables[name].reset_index()
            places = [*table.groupby(["kind", "layer"])]
            figure = Figure(figsize=(9, 2.4 * -(-len(places) // 3)), layout="constrained")
            for number, ((kind, layer), part) in enumerate(places):
                axes = figure.add_subplot(-(-len(places) // 3), 3, number + 1)
                for label, line in part.groupby(by):
                    special = by == "token" and bool(line["special"].iloc[0])
                    style = {"color": "C3", "label": label} if special else {"color": "C0", "alpha": 0.4}
                    axes.plot(line["up_to"], line[column], linewidth=1, **style)
                for bound in self.at:
                    axes.axvline(bound, color="0.4", linestyle=":", linewidth=1)
                axes.set(xscale="log", title=f"{kind} layer {layer}", xlabel="probability", ylabel=column)
                if by == "token" and any(part["special"]):
                    axes.legend(fontsize=6)
            pictures[name] = figure
        return pictures


def _up_to(bound: float) -> str:
    return f"up_to_{bound:g}"


def _frame(rows: Any, index: list[str], columns: list[str]) -> Any:
    import pandas as pd

    table = pd.DataFrame([(*key, *value) for key, value in rows.items()], columns=[*index, *columns])
    return table.set_index(index)


@hookimpl
def register_studies(register: Callable[[type[Study]], None]) -> None:
    register(Distribution)
