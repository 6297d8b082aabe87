"""Criteria of head importance that need no labels: from attention, or from the head's context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attnbench import hookimpl
from attnbench_plugins.heads import Heads, Scores

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from attnbench import Site


Key = tuple[str, int]  # kind, layer


def watched(
    method: Heads,
    model: Any,
    batches: list[dict[str, Tensor]],
    stage: str,
    see: Callable[[Key, Tensor, Site], None],
) -> None:
    """Run the batches and show every tile of a stage, in float32 at least, at the sites of the method."""
    import torch

    from attnbench import watch

    def show(tensor: Tensor, site: Site) -> None:
        if method.selects(site):
            wide = torch.promote_types(tensor.dtype, torch.float32)
            see((site.kind, site.layer), tensor.to(wide), site)

    with watch(model, **{stage: show}), torch.no_grad():
        for batch in batches:
            model(**batch)


def _sums(
    method: Heads,
    model: Any,
    batches: list[dict[str, Tensor]],
    stage: str,
    measure: Callable[[Tensor, Site], Tensor],
) -> dict[Key, Tensor]:
    """Sum over all tiles of a stage what `measure` returns, in float64."""
    sums: dict[Key, Tensor] = {}

    def add(key: Key, tensor: Tensor, site: Site) -> None:
        sums[key] = sums.get(key, 0.0) + measure(tensor, site).double().cpu()

    watched(method, model, batches, stage, add)
    return sums


def by_example(
    method: Heads,
    model: Any,
    batches: list[dict[str, Tensor]],
    stage: str,
    measure: Callable[[Tensor, Site], Tensor],
) -> dict[Key, Tensor]:
    """Sum over each example's tiles of queries what `measure` returns, (examples of the tile, ...)."""
    import torch

    parts: dict[Key, list[Tensor]] = {}

    def add(key: Key, tensor: Tensor, site: Site) -> None:
        value, found = measure(tensor, site).double().cpu(), parts.setdefault(key, [])
        if site.offset and found:  # the next range of the same examples' queries
            found[-1] = found[-1] + value
        else:
            found.append(value)

    watched(method, model, batches, stage, add)
    return {key: torch.cat(found) for key, found in parts.items()}


def _mean(sums: dict[Key, Tensor]) -> Scores:
    """Divide sums by counts, stacked: (2, heads) -> (heads,)."""
    return {key: (total / count.clamp(min=1)).float() for key, (total, count) in sums.items()}


def _seen(probs: Tensor, site: Site) -> Tensor:
    """Count the keys that each query sees: (batch, 1, queries)."""
    if site.visible is None:
        return probs.new_full((len(probs), 1, probs.shape[2]), probs.shape[-1])
    return site.visible.sum(-1).to(probs.dtype).expand(len(probs), 1, -1)


def _over_queries(row: Tensor, counted: Tensor) -> Tensor:
    """Sum (batch, heads, queries) over the queries that count (batch, 1, queries): sums and counts."""
    import torch

    counted = counted.to(row.dtype)
    return torch.stack([(row * counted).sum((0, 2)), counted.sum().expand(row.shape[1])])


@dataclass
class HeadsEntropy(Heads):
    """Remove the heads that look everywhere: a low entropy of attention counts as importance.

    importance = -mean over examples and queries of (-sum_k p log p) / log n, over queries that see n > 1
    keys, with 0 log 0 = 0. A head that watches only a separator scores high, which in BERT may be how a head
    does nothing (Clark et al. 2019, https://arxiv.org/abs/1906.04341). Shapes: probs (batch, heads, queries,
    keys), scores_ (heads,) per layer. Source: the head-importance exercise of Dive into Deep Learning,
    section 11.5, https://d2l.ai/chapter_attention-mechanisms-and-transformers/multihead-attention.html.
    Differs: divided by log n, so that examples of different lengths weigh alike.
    """

    name = "heads:entropy"
    examples = ("heads50:entropy",)

    def importance(self, model: Any, batches: list[dict[str, Tensor]]) -> Scores:
        def entropy(probs: Tensor, site: Site) -> Tensor:
            import torch

            seen = _seen(probs, site)
            return _over_queries(-torch.special.entr(probs).sum(-1) / seen.log().clamp(min=1e-9), seen > 1)

        return _mean(_sums(self, model, batches, "probs", entropy))


@dataclass
class HeadsVariance(Heads):
    """Remove the heads whose attention weights vary least over the keys.

    importance = mean over examples and queries of Var_k(p) n^2 / (n - 1), over queries that see n > 1 keys,
    with Var_k(p) = sum_k p^2 / n - (sum_k p / n)^2: 0 for a uniform row, 1 for one key only. Shapes: probs
    (batch, heads, queries, keys), scores_ (heads,) per layer. Source: the head-importance exercise of Dive
    into Deep Learning, section 11.5,
    https://d2l.ai/chapter_attention-mechanisms-and-transformers/multihead-attention.html. Differs: divided by
    its largest value (n - 1) / n^2, so that examples of different lengths weigh alike. For a softmax it is a
    row's squared L2 norm on another scale.
    """

    name = "heads:variance"
    examples = ("heads50:variance",)

    def importance(self, model: Any, batches: list[dict[str, Tensor]]) -> Scores:
        def variance(probs: Tensor, site: Site) -> Tensor:
            seen = _seen(probs, site)
            row = probs.square().sum(-1) / seen - (probs.sum(-1) / seen).square()
            return _over_queries(row * seen.square() / (seen - 1).clamp(min=1), seen > 1)

        return _mean(_sums(self, model, batches, "probs", variance))


@dataclass
class HeadsConfidence(Heads):
    """Remove the heads that single out a key least.

    importance = mean over examples and queries of max_k p. Shapes: probs (batch, heads, queries, keys),
    scores_ (heads,) per layer. Source: the confidence of Voita et al. 2019, section 4,
    https://arxiv.org/abs/1905.09418. Differs: the end token is a query and a key like others (there it is
    left out); a head that watches only the separator is confident here.
    """

    name = "heads:confidence"
    examples = ("heads50:confidence",)

    def importance(self, model: Any, batches: list[dict[str, Tensor]]) -> Scores:
        def confidence(probs: Tensor, site: Site) -> Tensor:
            return _over_queries(probs.amax(-1), _seen(probs, site) > 0)

        return _mean(_sums(self, model, batches, "probs", confidence))


@dataclass
class HeadsLOne(Heads):
    """Remove the heads of smallest attention-weight L1 norm, which a softmax makes the same for all.

    importance = mean over examples of sum_{q,k} |p|. Rows of a softmax sum to 1, so every head scores the
    number of queries and the criterion fails, saying so; after a method that does not renormalise, such as
    `prune80`, it can tell heads apart. Shapes: probs (batch, heads, queries, keys), scores_ (heads,) per
    layer. Source: the head-importance exercise of Dive into Deep Learning, section 11.5,
    https://d2l.ai/chapter_attention-mechanisms-and-transformers/multihead-attention.html. Differs: no.
    """

    name = "heads:l1"
    examples = ("prune80+heads50:l1",)

    def importance(self, model: Any, batches: list[dict[str, Tensor]]) -> Scores:
        def total(probs: Tensor, site: Site) -> Tensor:
            return probs.abs().sum((0, 2, 3))

        examples = sum(len(batch["input_ids"]) for batch in batches)
        sums = _sums(self, model, batches, "probs", total)
        return {key: (value / examples).float() for key, value in sums.items()}


@dataclass
class HeadsLTwo(Heads):
    """Remove the heads of smallest attention-weight L2 norm.

    importance = mean over examples of (sum_{q,k} p^2)^(1/2). Grows with the square root of the number of
    queries, so that longer examples weigh more. Shapes: probs (batch, heads, queries, keys), scores_ (heads,)
    per layer. Source: the head-importance exercise of Dive into Deep Learning, section 11.5,
    https://d2l.ai/chapter_attention-mechanisms-and-transformers/multihead-attention.html. Differs: no.
    """

    name = "heads:l2"
    examples = ("heads50:l2",)

    def importance(self, model: Any, batches: list[dict[str, Tensor]]) -> Scores:
        def squares(probs: Tensor, site: Site) -> Tensor:
            return probs.square().sum((2, 3))

        found = by_example(self, model, batches, "probs", squares)
        return {key: value.sqrt().mean(0).float() for key, value in found.items()}


@dataclass
class HeadsOutput(Heads):
    """Remove the heads whose output varies least from token to token.

    importance = mean over head_dim of Var(context), the variance over all tokens of all examples. The scale
    of the values counts: with values c times as large and output weights c times smaller a head does the same
    and scores c^2 times as much. Shapes: context (batch, heads, queries, head_dim), scores_ (heads,) per
    layer. Source: the output variance of the head-importance exercise of Dive into Deep Learning, section
    11.5, https://d2l.ai/chapter_attention-mechanisms-and-transformers/multihead-attention.html. Differs:
    taken before the output projection, which the source leaves open.
    """

    name = "heads:output"
    examples = ("heads50:output",)

    def importance(self, model: Any, batches: list[dict[str, Tensor]]) -> Scores:
        import torch

        def moments(context: Tensor, site: Site) -> Tensor:
            tokens = context.double().transpose(1, 2).flatten(0, 1)  # (tokens, heads, head_dim)
            return torch.stack(
                [tokens.new_full(tokens.shape[1:], len(tokens)), tokens.sum(0), tokens.square().sum(0)]
            )

        found = _sums(self, model, batches, "context", moments)
        return {
            key: (squares / count - (total / count).square()).clamp(min=0).mean(-1).float()
            for key, (count, total, squares) in found.items()
        }


@hookimpl
def register_methods(register):
    for criterion in (
        HeadsConfidence,
        HeadsEntropy,
        HeadsLOne,
        HeadsLTwo,
        HeadsOutput,
        HeadsVariance,
    ):
        register(criterion)
