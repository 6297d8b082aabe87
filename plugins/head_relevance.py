"""The criterion of head importance that passes relevance back: what the answer itself rests on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from attnbench import hookimpl
from attnbench_plugins.heads import Heads, Scores

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class HeadsLrp(Heads):
    """Remove the heads on which the model's own answer rests least, by layer-wise relevance propagation.

    importance_h = mean over examples of |R_h| / sum over the layer's heads of |R_h|; R_h = sum over queries
    and head_dim of context * gradient of the top logit (of a language model the mean over positions), where
    gradients pass by the rules of CP-LRP, which stops queries and keys: R_h is what the head carries of the
    logit. `rule=attn`: AttnLRP, which passes through the softmax. Needs no labels, and a rule for all that
    the model computes: others are not applicable, with the module's name. Shapes: context (batch, heads,
    queries, head_dim), scores_ (heads,) per layer. Source: Voita et al. 2019, section 4,
    https://arxiv.org/abs/1905.09418 (relevance of heads, shares of their layer); the rules: Ali et al. 2022,
    https://arxiv.org/abs/2202.07304, and Achtibat et al. 2024, https://arxiv.org/abs/2402.05602. Differs:
    CP-LRP for their alpha-beta rule; heads that speak against the answer count by their size.
    Patent notice: LRP is a patented technology, free of charge for personal and scientific purposes only, as
    the code of AttnLRP's authors says, https://github.com/rachtibat/LRP-eXplains-Transformers. This project's
    licence covers no patent of others.
    """

    name = "heads:lrp"
    examples = ("heads50:lrp", "heads50:lrp:rule=attn")

    rule: Literal["cp", "attn"] = field(default="cp", kw_only=True)

    def importance(self, model: Any, batches: list[dict[str, Tensor]]) -> Scores:
        from attnbench import discover, relevance

        chosen = {(site.kind, site.layer) for site in discover(model) if self.selects(site)}
        sums: Scores = {}
        count = 0
        for batch in batches:
            found = relevance(model, batch, self.rule)
            count += len(found.explained)
            for key in chosen & {*found.heads}:
                parts = found.heads[key].abs()
                parts = parts / parts.sum(1, keepdim=True).clamp(min=1e-300)
                sums[key] = sums.get(key, 0) + parts.sum(0)
        return {key: (total / count).float() for key, total in sums.items()}


@hookimpl
def register_methods(register):
    register(HeadsLrp)
