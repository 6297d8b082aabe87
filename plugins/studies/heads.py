"""How heads rank: by criteria that methods remove heads by, and by what a task loses without each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from attnbench import Study, by_head, hookimpl

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass
class Importance(Study):
    """Score every head by a criterion that methods remove heads by, as `heads:entropy` does.

    score: higher is more important, in the criterion's own unit; `attnbench methods heads:NAME` has its
    formula. The samples are those that methods learn from. `by=` is the variant's name, entropy of
    `heads:entropy`.

    Shapes: scores (heads,) of each layer. Source: Michel et al. 2019, https://arxiv.org/abs/1905.10650, who
    rank heads by a criterion to remove the least of them.
    """

    name, examples, shown = "importance", ("importance:by=entropy",), ("score",)
    data: ClassVar[tuple[str, ...]] = ()

    by: str = field(kw_only=True)

    def __post_init__(self) -> None:
        from attnbench import importance

        importance.require(self.by)

    def reads(self) -> dict[str, str]:
        from attnbench import importance

        return {f"criterion {self.by}": importance.code(self.by)}

    def run(self, model: Any, data: Any) -> None:
        from attnbench import UserError, importance

        try:
            self.found = importance.scores(model, self.by, data)
        except (UserError, ValueError) as mistake:  # of one criterion: the others go on
            raise RuntimeError(str(mistake)) from UserError(mistake)

    def tables(self) -> dict[str, DataFrame]:
        return {"heads": by_head({"score": self.found})}


@dataclass
class Ablation(Study):
    """Measure the task without each head alone: how much worse is its first metric?

    effect = metric(every head) - metric(without h), its negative where lower is better, in the metric's unit;
    low, high: a 95 % interval over the same samples, paired, of a perplexity from that of its logarithm; p:
    two-sided, of no difference, by Holm's correction for that many heads; certain: the effect where p < 0.05,
    no number elsewhere. `whole`: the metric with every head (value), of how many samples, and what one sample
    is worth (one): 1/n of right and wrong answers, otherwise the most that leaving one out changes.

    Shapes: context (batch, heads, queries, head_dim), of which a head's is 0. Source: Michel et al. 2019,
    section 3.2, https://arxiv.org/abs/1905.10650. Differs: they test each head at p < 0.01 by itself.
    """

    name, examples, shown = "ablation", ("ablation",), ("certain",)
    data: ClassVar[tuple[str, ...]] = ()

    def begin(self, model: Any, sites: Any) -> None:
        self.sites = list(sites)

    def run(self, model: Any, data: Any) -> None:
        from attnbench import importance

        self.found = importance.effects(model, self.sites, data)

    def tables(self) -> dict[str, DataFrame]:
        import pandas as pd

        found = self.found
        columns = {"effect": found.effect, "low": found.low, "high": found.high, "p": found.p}
        whole = {
            "value": found.whole.value, "samples": len(found.whole.scores), "one": found.one,
            "higher_is_better": found.whole.higher_is_better,
        }  # fmt: skip
        index = pd.Index([found.whole.metric], name="metric")
        return {
            "heads": by_head({**columns, "certain": found.certain()}),
            "whole": pd.DataFrame([whole], index=index).astype(float),
        }


@hookimpl
def register_studies(register: Callable[[type[Study]], None]) -> None:
    register(Importance)
    register(Ablation)
