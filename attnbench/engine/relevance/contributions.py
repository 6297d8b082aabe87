"""What a translation rests on: the source, or what was written of the translation so far."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attnbench.errors import NotApplicable
from attnbench.methods.protocol import Method, Site

if TYPE_CHECKING:
    from torch import Tensor, nn

    from attnbench.engine.relevance.propagation import Propagation

NEAR = 1e-3  # how far the step-by-step forward pass may be off, of the largest logit


@dataclass
class Contributions:
    """Of one text, for each target position: parts of its top logit's relevance, which sum to 1.

    source (targets, source tokens); prefix (targets, targets): of the decoder's input, the start token
    first, 0 for tokens still to come. read, tokens (targets,): the ids that the decoder reads, and those of
    the top logits.
    """

    source: Tensor
    prefix: Tensor
    read: Tensor
    tokens: Tensor

    def influence(self) -> Tensor:
        """Return the mean over targets of each source token's part in the source's, times their number."""
        parts = self.source / self.source.sum(1, keepdim=True)
        return parts.mean(0) * parts.shape[1]

    def entropies(self) -> tuple[Tensor, Tensor]:
        """Return the entropy of each target's parts, in nats: over the source, over the prefix."""
        import torch

        source, prefix = (
            torch.special.entr(each / each.sum(1, keepdim=True)).sum(1) for each in (self.source, self.prefix)
        )
        return source, prefix


def require_pair(model: nn.Module) -> None:
    """Raise NotApplicable for a model that is no encoder-decoder."""
    config: Any = getattr(model, "config", None)
    if not getattr(config, "is_encoder_decoder", False):
        raise NotApplicable(
            f"contributions: {type(model).__name__} is no encoder-decoder: it has no source and no prefix"
        )


def contributions(model: nn.Module, batch: dict[str, Tensor]) -> list[Contributions]:
    """Return, text by text, how much of each predicted token comes from the source and from its prefix.

    The relevance of a position's top logit, 1, is passed back by the rules of `alpha_beta.py` to the inputs
    of the first encoder and decoder layer, and summed over hidden units: it is nowhere negative, and none is
    lost. The prefix is `decoder_input_ids`, or `labels` shifted; padding is cut off by the masks, so that a
    text may be of any length and counts for no other. Methods that are applied change attention by factors
    that count as constants. Raises NotApplicable for a model that is no
    encoder-decoder, and with the module's name for one that computes what no rule covers. Source: Voita,
    Sennrich and Titov 2021, https://arxiv.org/abs/2010.10907, with the alpha-beta rule of its code,
    https://github.com/lena-voita/the-story-of-heads, 1/2 and 1/2. Differs: no epsilon in a sum; q, k and v
    are rescaled apart; the start token is one of the prefix (there a zero vector, left out).
    Patent notice: LRP is a patented technology, free of charge for personal and scientific purposes only, as
    the code of AttnLRP's authors says, https://github.com/rachtibat/LRP-eXplains-Transformers. This project's
    licence covers no patent of others.
    """
    from attnbench.engine.relevance.explained import unlabelled

    require_pair(model)
    given = unlabelled(model, batch)
    if "decoder_input_ids" not in given:
        raise NotApplicable("contributions: the texts have no prefix, neither decoder_input_ids nor labels")
    return [
        _of_one(
            model,
            _cut(given["input_ids"][at], given.get("attention_mask"), at),
            _cut(given["decoder_input_ids"][at], _targets(batch), at),
        )
        for at in range(len(given["input_ids"]))
    ]


def _cut(ids: Tensor, mask: Tensor | None, at: int) -> Tensor:
    return ids if mask is None else ids[mask[at].bool()]


def _targets(batch: dict[str, Tensor]) -> Tensor | None:
    """Tell which of the decoder's positions predict something, None where all do."""
    if "decoder_input_ids" in batch:
        return batch.get("decoder_attention_mask")
    return batch["labels"] != -100


def _of_one(model: Any, source: Tensor, prefix: Tensor) -> Contributions:
    import torch

    from attnbench.engine.relevance import alpha_beta
    from attnbench.engine.relevance.propagation import frozen

    count, head = len(prefix), model.get_output_embeddings()
    one = {"input_ids": source[None], "decoder_input_ids": prefix[None], "use_cache": False}
    with frozen(model), torch.no_grad():
        expected = model(**one).logits[0]
    many = {**one, "input_ids": source.expand(count, -1), "decoder_input_ids": prefix.expand(count, -1)}
    following = alpha_beta.propagation(model)
    with _steps(model, following), _starts(model) as starts, _input(head) as states, following.open():
        output = model(**many)
        following.require(states, "its output")
    tops, tokens = expected.max(-1)
    if not torch.allclose(output.logits[0], expected, rtol=0, atol=NEAR * float(expected.abs().max())):
        raise NotApplicable(f"contributions: {type(model).__name__} attends in a way that no rule covers")
    last = states[0]  # (rows, targets, hidden); row r is for target r
    weights, each = head.weight[tokens], last.shape[-1]
    state = last[0].detach()
    across = (tops - (weights * state).sum(-1)) / each  # the biases, in equal parts
    first = alpha_beta.shares((state * weights + across[:, None])[..., None], 1)[..., 0]
    seeds = torch.zeros_like(last)
    rows = torch.arange(count, device=seeds.device)
    seeds[rows, rows] = first / first.sum(-1, keepdim=True)
    found = torch.autograd.grad(last, [starts["encoder"], starts["decoder"]], seeds)
    parts = torch.cat([each.sum(-1) for each in found], 1).double()
    total = parts.sum(1, keepdim=True)
    if not torch.allclose(total, torch.ones_like(total), atol=10 * NEAR):
        raise NotApplicable(f"contributions: {type(model).__name__} has inputs beside its first layers'")
    parts = (parts / total).cpu()
    return Contributions(parts[:, : len(source)], parts[:, len(source) :], prefix.cpu(), tokens.cpu())


@contextlib.contextmanager
def _starts(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Begin to follow at the input of the first layer of the encoder and of the decoder."""
    from attnbench.engine.places.sites import discover
    from attnbench.engine.serving.dispatch import layer_of

    found: dict[str, Tensor] = {}
    layers = {site.kind: layer_of(model, site.path) for site in reversed(discover(model))}

    def at(kind: str) -> Any:
        def start(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            hidden = args[0] if args else kwargs["hidden_states"]
            found[kind] = hidden.detach().requires_grad_()
            if args:
                return (found[kind], *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": found[kind]}

        return start

    handles = [
        model.get_submodule(layers[kind] or "").register_forward_pre_hook(at(kind), with_kwargs=True)
        for kind in ("encoder", "decoder")
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def _input(head: nn.Module) -> Iterator[list[Tensor]]:
    """Keep what a module is given."""
    found: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda _, args: found.append(args[0]))
    try:
        yield found
    finally:
        handle.remove()


@dataclass
class _Kept(Method):
    """Keep the first example's scores and probabilities of the last attention, after all methods."""

    rows = "all"

    seen: dict[str, Tensor] = field(default_factory=dict)

    def scores(self, scores: Tensor, site: Site) -> Tensor:
        if not site.examples.start:
            self.seen["scores"] = scores[0].clone()
        return scores

    def probs(self, probs: Tensor, site: Site) -> Tensor:
        if not site.examples.start:
            self.seen["probs"] = probs[0].clone()
        return probs


@contextlib.contextmanager
def _steps(model: nn.Module, following: Propagation) -> Iterator[None]:
    """Let the model attend as it does with the methods that are applied, by a rule of its own."""
    import torch

    from attnbench.engine.places import routing
    from attnbench.engine.relevance.alpha_beta import Attended
    from attnbench.engine.serving.attention import apply

    kept = _Kept()
    with apply(model, kept):
        engine: Any = routing.serving(model)

        def serve(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
            query, key, value, *rest = args
            with following.pause():
                with torch.no_grad():
                    context, _ = engine(module, *(x.detach() for x in (query, key, value)), *rest, **kwargs)
                scaling = kwargs.get("scaling")
                scale = query.shape[-1] ** -0.5 if scaling is None else scaling
                probs = kept.seen["scores"].softmax(-1).nan_to_num()
                context = Attended.apply(
                    query, key, value, kept.seen["probs"], probs, context.transpose(1, 2), scale
                )
                context = context.transpose(1, 2).contiguous()
                following.trust(context)
            return context, None

        with routing.registered(model, serve):
            yield
