"""Pruning: small attention probabilities become zero, the rest stay as they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from attnbench import Method, hookimpl, kernels

if TYPE_CHECKING:
    from torch import Tensor

    from attnbench import Site


@dataclass
class Prune(Method):
    """Zero the smallest share of each query's attention.

    Of the n probabilities that a query may see, the min(floor(n p / 100), n - 1) smallest become 0, ties to
    the lower key first; no renormalisation. Shapes: probs (batch, heads, queries, keys). Source: Ji et al.
    2021, Findings of ACL, https://aclanthology.org/2021.findings-acl.363/, whose finding is that 80 % can
    go. Differs: a fixed share of each query instead of one threshold for the model (that is prune:global),
    so that models compare at equal sparsity.
    """

    name = "prune"
    examples: ClassVar[tuple[str, ...]] = ("prune50", "prune80")
    zero, grows = 0.0, "sparsity"

    percent: float

    def __post_init__(self) -> None:
        if not 0 <= self.percent <= 100:
            raise ValueError("the share to prune is between 0 and 100 percent")

    def probs(self, probs: Tensor, site: Site) -> Tensor:
        return kernels.drop_smallest(probs, self.percent, site.visible)


@dataclass
class PruneRandom(Prune):
    """Zero a random share of each query's attention: the control for prune at the same sparsity.

    As many of the n visible probabilities as in prune, drawn by a hash of (seed, site, head, query, key):
    the same in any batch. Shapes: probs (batch, heads, queries, keys). Source: none of Ji et al. 2021
    (https://aclanthology.org/2021.findings-acl.363/); the control its claim needs.
    """

    name = "prune:random"
    examples = ("prune80:random",)

    seed: int = field(default=0, kw_only=True)

    def probs(self, probs: Tensor, site: Site) -> Tensor:
        kind = ("encoder", "decoder", "cross").index(site.kind)
        return kernels.drop_random(
            probs, self.percent, site.visible, site.offset, (self.seed, kind, site.layer)
        )


@dataclass
class PruneGlobal(Prune):
    """Zero every attention probability up to one threshold, the same for the whole model.

    x survives where x > threshold_, which is calibrated so that at least p % of the visible probabilities of
    all selected layers and heads do not, to 1 part in 8,192 of its value; equal values go together, as do the
    exact 1.0 of queries that see one key, and a query may lose all of its keys. Shapes: probs (batch, heads,
    queries, keys). Source: Ji et al. 2021, Findings of ACL, https://aclanthology.org/2021.findings-acl.363/.
    Differs: the threshold comes from calibration data; the paper tries a list of thresholds and reports the
    sparsity of each.
    """

    name = "prune:global"
    examples = ("prune80:global",)

    def fit(self, model: Any, batches: list[dict[str, Tensor]]) -> None:
        import torch

        from attnbench import watch

        shift = 10  # positive floats order like their bit patterns: 13 bits of mantissa are left
        counts = torch.zeros(1 << (31 - shift), dtype=torch.int64)
        one = torch.ones(1, dtype=torch.int64)

        def count(probs: Tensor, site: Site) -> None:
            if self.selects(site):
                seen = probs if site.visible is None else probs[site.visible.expand_as(probs)]
                bins = (seen.detach().float().flatten().view(torch.int32) >> shift).cpu()
                counts.index_add_(0, bins, one.expand(len(bins)))

        with watch(model, probs=count), torch.no_grad():
            for batch in batches:
                model(**batch)
        wanted = float(counts.sum()) * self.percent / 100
        under = int((counts.cumsum(0).double() < wanted).sum()) + 1 if wanted else 0
        last = max((under << shift) - 1, 0)
        self.threshold_ = torch.tensor(last, dtype=torch.int32).view(torch.float32).item()

    def probs(self, probs: Tensor, site: Site) -> Tensor:
        return kernels.threshold(probs, self.threshold_)


@dataclass
class Threshold(Method):
    """Zero every attention probability up to a fixed value.

    x survives where x > tau; no renormalisation. Shapes: probs (batch, heads, queries, keys).
    Source: Ji et al. 2021, Findings of ACL, https://aclanthology.org/2021.findings-acl.363/.
    """

    name = "threshold"
    examples: ClassVar[tuple[str, ...]] = ("threshold0.001", "threshold0.01")
    zero, grows = 0.0, "sparsity"

    tau: float

    def __post_init__(self) -> None:
        if not 0 <= self.tau <= 1:
            raise ValueError("the threshold is between 0 and 1")

    def probs(self, probs: Tensor, site: Site) -> Tensor:
        return kernels.threshold(probs, self.tau)


@dataclass
class ThresholdRow(Threshold):
    """Zero every attention probability up to a share of the largest of its query.

    x survives where x > tau max_k x[q, k]; no renormalisation. Shapes: probs (batch, heads, queries, keys).
    Source: Ji et al. 2021, Findings of ACL, https://aclanthology.org/2021.findings-acl.363/, where the
    authors' code has it commented out.
    """

    name = "threshold:row"
    examples = ("threshold0.5:row",)

    def probs(self, probs: Tensor, site: Site) -> Tensor:
        return kernels.threshold_rows(probs, self.tau)


@hookimpl
def register_methods(register):
    register(Prune)
    register(PruneRandom)
    register(PruneGlobal)
    register(Threshold)
    register(ThresholdRow)
