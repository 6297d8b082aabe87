"""Heads that keep all of a prompt beside heads that keep its first and last tokens: DuoAttention."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar

from attnbench import Kept, Method, NotApplicable, hookimpl
from attnbench_plugins.caches.evict import first_and_last

if TYPE_CHECKING:
    from torch import Tensor

    from attnbench import Prompt, Site

RUNS, RUN = 4, 8  # passkeys of a text, and tokens of one
PENALTY = 0.05  # weight of mean alpha

Place = tuple[str, int]


@dataclass
class Duo(Method):
    """Let the heads that recall least keep only the first and the last tokens of a prompt.

    Learned is a share a in [0, 1] for each key-value head, from 1: after the prompt its output is a full +
    (1 - a) streaming, where streaming attends to the prompt's first `sink` and last `window` tokens and to
    all after it. Minimised by Adam is the mean squared error of the last hidden states + 0.05 mean a, at the
    end of texts of `shortest` to `longest` tokens, where the passkeys in them come once more. Of all heads
    the floor(heads p / 100) of lowest a stream, ties to the lower layer and head; the others keep all.
    Shapes: alpha_, streams_ (key-value heads,) per layer. Source: DuoAttention, Xiao et al. 2024,
    https://arxiv.org/abs/2410.10819. Differs: the prompt's own queries see all of it, there they stream too;
    passkeys are 4 runs of up to 8 tokens drawn from the calibration texts, there 10 are asked for in words;
    fewer steps, at one rate.
    """

    name = "duo"
    examples: ClassVar[tuple[str, ...]] = (
        "duo50:longest=40:lr=0.1:shortest=20:sink=2:steps=6:window=3",
        "duo25:longest=24:shortest=16:sink=1:steps=2:window=2",
    )
    zero: ClassVar[float | None] = 0.0

    percent: float
    sink: int = field(default=64, kw_only=True)
    window: int = field(default=256, kw_only=True)
    steps: int = field(default=100, kw_only=True)
    lr: float = field(default=0.02, kw_only=True)
    shortest: int = field(default=512, kw_only=True)
    longest: int = field(default=2048, kw_only=True)
    seed: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        if not 0 <= self.percent <= 100:
            raise ValueError("the share of heads that stream is between 0 and 100 percent")
        if self.sink < 0 or self.window < 1 or self.steps < 1 or self.lr <= 0:
            raise ValueError("sink is at least 0, window and steps at least 1, lr above 0")
        if not 2 * RUNS <= self.shortest <= self.longest:
            raise ValueError(f"shortest is at least {2 * RUNS} tokens, and longest no fewer")

    def fit(self, model: Any, batches: list[dict[str, Tensor]]) -> None:
        import torch
        from transformers import DynamicCache

        from attnbench import apply

        draw = torch.Generator().manual_seed(self.seed)
        pool = torch.cat([batch["input_ids"][_real(batch)] for batch in batches]).cpu()
        known = [getattr(model.config, name, None) for name in ("max_position_embeddings", "sliding_window")]
        longest = min([self.longest, *(number for number in known if number)])
        if longest < self.shortest:
            raise NotApplicable(
                f"{self.name} learns from texts of {self.shortest} tokens, and this model takes {longest}: "
                "shortest= says other ones"
            )
        shares, optimizer = _Shares(self.selects, self.sink, self.window), None
        with _still(model), apply(model, shares), torch.enable_grad():
            for _ in range(self.steps):
                text, end = passkeys(pool, self.shortest, longest, draw)
                text = text[None].to(next(model.parameters()).device)
                cache = DynamicCache(config=model.config)
                shares.end = None
                with torch.no_grad():
                    model.base_model(text[:, :end], past_key_values=cache)
                    again = copy.deepcopy(cache)
                    wanted = model.base_model(text[:, end:], past_key_values=cache).last_hidden_state
                shares.end = end
                found = model.base_model(text[:, end:], past_key_values=again).last_hidden_state
                optimizer = optimizer or torch.optim.Adam([*shares.alpha.values()], lr=self.lr)
                alphas = [*shares.alpha.values()]
                loss = (found.float() - wanted.float()).square().mean() + PENALTY * torch.cat(alphas).mean()
                for alpha, gradient in zip(alphas, torch.autograd.grad(loss, alphas), strict=True):
                    alpha.grad = gradient
                optimizer.step()
                for alpha in alphas:
                    alpha.data.clamp_(0, 1)
        self.alpha_ = {key: alpha.detach().cpu() for key, alpha in sorted(shares.alpha.items())}
        every = torch.cat([*self.alpha_.values()])
        chosen = torch.zeros(len(every), dtype=torch.bool)
        count = int(len(every) * Fraction(str(self.percent)) / 100)
        chosen[every.argsort(stable=True)[:count]] = True
        sizes = [len(alpha) for alpha in self.alpha_.values()]
        self.streams_ = dict(zip(self.alpha_, chosen.split(sizes), strict=True))

    def cache(self, prompt: Prompt, site: Site) -> Kept:
        n, streams = prompt.tokens, self.streams_[site.kind, site.layer].to(prompt.keys.device)
        sinks = max(0, self.sink - prompt.start)
        ends = first_and_last(n, sinks, self.window, prompt.keys)
        short = n <= sinks + self.window
        return Kept(
            tokens=~streams[:, None] | ends,
            note=f"a prompt of at most {self.sink + self.window} tokens stays whole" if short else "",
        )


class _Shares(Method):
    """Mix full attention with attention to the ends of a prompt, by a share for each key-value head."""

    name = "duo:shares"

    def __init__(self, selected: Callable[[Site], bool], sink: int, window: int) -> None:
        super().__init__()
        self.selected, self.sink, self.window = selected, sink, window
        self.alpha: dict[Place, Tensor] = {}
        self.end: int | None = None

    def keys(self, keys: Tensor, site: Site) -> Tensor:
        import torch

        key = site.kind, site.layer
        if self.selected(site) and key not in self.alpha:
            self.alpha[key] = torch.ones(keys.shape[1], device=keys.device, requires_grad=True)
        return keys

    def probs(self, probs: Tensor, site: Site) -> Tensor:
        import torch

        if self.end is None or not self.selected(site):
            return probs
        alpha = self.alpha[site.kind, site.layer].to(probs)
        alpha = alpha.repeat_interleave(probs.shape[1] // len(alpha))[:, None, None]
        place = torch.arange(probs.shape[-1], device=probs.device)
        streaming = probs * ((place < self.sink) | (place >= self.end - self.window))
        least = torch.finfo(probs.dtype).tiny
        return alpha * probs + (1 - alpha) * streaming / streaming.sum(-1, keepdim=True).clamp_min(least)


def passkeys(pool: Tensor, shortest: int, longest: int, draw: Any) -> tuple[Tensor, int]:
    """Draw a text with passkeys in it that come once more after it: (tokens,), and where they do.

    `pool` (tokens,) are the tokens of real texts: a text is a stretch of them, from any place on, round and
    round. Its length, passkeys and all, is drawn between both bounds.
    """
    import torch

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=draw))

    tokens = number(shortest, longest)
    size = min(RUN, tokens // (2 * RUNS))
    end = tokens - RUNS * size
    text = pool[(number(0, len(pool) - 1) + torch.arange(tokens)) % len(pool)].clone()
    keys = pool[torch.randint(len(pool), (RUNS, size), generator=draw)]
    stretch = end // RUNS
    for run, key in enumerate(keys):
        at = run * stretch + number(0, stretch - size)
        text[at : at + size] = key
    text[end:] = keys.flatten()
    return text, end


def _real(batch: dict[str, Tensor]) -> Tensor:
    import torch

    return batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool()


@contextlib.contextmanager
def _still(model: Any) -> Iterator[None]:
    """Let no weight have a gradient, until the block ends."""
    flags = [(weight, weight.requires_grad) for weight in model.parameters()]
    try:
        for weight, _ in flags:
            weight.requires_grad_(False)
        yield
    finally:
        for weight, flag in flags:
            weight.requires_grad_(flag)


@hookimpl
def register_methods(register):
    register(Duo)
