"""Give each head and each token its part of what a model answers."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from attnbench.errors import NotApplicable
from attnbench.methods.protocol import Method, Site

if TYPE_CHECKING:
    from torch import Tensor, nn

PART_OF_METHODS = True
Key = tuple[str, int]  # kind, layer


@dataclass
class Relevance:
    """Parts of the explained logit, in its units; what biases and norms' shifts take is in none.

    explained (examples,); heads: (kind, layer) -> (examples, heads), summed over queries and head_dim;
    sizes: the same with the sum over queries of absolute values; tokens: "encoder" or "decoder" ->
    (examples, tokens), of the first layer's input, 0 for padding.
    """

    explained: Tensor
    heads: dict[Key, Tensor]
    sizes: dict[Key, Tensor]
    tokens: dict[str, Tensor]


@dataclass
class Places(Method):
    """Begin to follow at the first layer's input; keep each tile of each head's context.

    That it has `probs` makes the engine attend step by step, as the rules need it.
    """

    starts: dict[str, Tensor] = field(default_factory=dict)
    contexts: list[tuple[Key, range, Tensor]] = field(default_factory=list)  # of a tile: its examples

    def hidden(self, hidden: Tensor, site: Site) -> Tensor:
        if site.layer or site.kind in self.starts:
            return hidden
        self.starts[site.kind] = hidden.detach().requires_grad_()
        return self.starts[site.kind]

    def probs(self, probs: Tensor, site: Site) -> Tensor:
        return probs

    def context(self, context: Tensor, site: Site) -> Tensor:
        self.contexts.append(((site.kind, site.layer), site.examples, context))
        return context


def relevance(
    model: nn.Module, batch: dict[str, Tensor], rule: Literal["cp", "attn", "gradient"] = "cp"
) -> Relevance:
    """Return what each head and each token adds to the model's top logit.

    R = x * g: a value times the gradient of the explained logit there, summed over hidden units, where the
    rule says how gradients pass (`gradients.py`): CP-LRP ("cp"), in which queries and keys are constants and
    a model without biases keeps the sum; AttnLRP ("attn"); or as they are ("gradient"), which for a head is
    the sum over queries and keys of attention times its gradient. What is explained is
    `top_logit`: a classifier's top class, the mean over positions of a language model's top token. No
    example counts for another, nor does padding. Raises NotApplicable, with the module's name, where a model
    computes something that no rule covers, and where it keeps its attention to itself.
    Patent notice: LRP is a patented technology, free of charge for personal and scientific purposes only, as
    its authors' code says (LXT, https://github.com/rachtibat/LRP-eXplains-Transformers, whose licence grants
    no patent rights). This project's licence covers no patent of others.
    """
    import torch

    from attnbench.engine.places.sites import discover
    from attnbench.engine.relevance import explained, gradients
    from attnbench.engine.relevance.propagation import followed, frozen
    from attnbench.engine.serving.attention import apply

    places, kinds = Places(), {site.kind for site in discover(model)}
    given, causal = explained.unlabelled(model, batch), kinds == {"decoder"}
    with contextlib.ExitStack() as stack:
        stack.enter_context(apply(model, places))
        if rule == "gradient":
            stack.enter_context(frozen(model))
            stack.enter_context(torch.enable_grad())
            output = model(**given)
        else:
            following = gradients.propagation(model, rule)
            with following.open():
                output = model(**given)
                following.require(followed(tuple(output.values())), "its output")
        logits = explained.top_logit(output, batch, causal)
        if not places.starts or not places.contexts:
            raise NotApplicable(f"{type(model).__name__}: no layer's input and heads to follow")
        inputs = [*places.starts.values(), *(context for _, _, context in places.contexts)]
        found = torch.autograd.grad(logits.sum(), inputs, allow_unused=True)
    parts = [
        (x.detach() * (torch.zeros_like(x) if g is None else g)).double().cpu()
        for x, g in zip(inputs, found, strict=True)
    ]
    tokens = {kind: part.sum(-1) for kind, part in zip(places.starts, parts, strict=False)}
    heads: dict[Key, Tensor] = {}
    sizes: dict[Key, Tensor] = {}
    for (key, examples, context), part in zip(places.contexts, parts[len(tokens) :], strict=True):
        by_query, where = part.sum(3), slice(examples.start, examples.stop)
        for sums, value in ((heads, by_query), (sizes, by_query.abs())):
            sums.setdefault(key, part.new_zeros(len(logits), context.shape[1]))[where] += value.sum(2)
    return Relevance(logits.detach().double().cpu(), heads, sizes, tokens)
