"""Eviction by attention and by what a value does to the layer's output: CriticalKV."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from attnbench import Kept, NotApplicable, hookimpl
from attnbench_plugins.caches.evict import Evict, best, first_and_last
from attnbench_plugins.caches.evict_scored import EvictSnapKV

if TYPE_CHECKING:
    from torch import Tensor

    from attnbench import Prompt, Site

OUTPUTS = ("o_proj", "out_proj", "c_proj", "dense")  # names of output projections in attention modules
LEAST = 1e-4  # added to scores, so that a value counts where no query looked


@dataclass
class EvictCritical(Evict):
    """Keep half of a budget by SnapKV's score, half by that score times the value's norm in the output.

    The last w = min(window, max(1, floor(k / 2))) stay, and the floor(k / 2) - w others of largest SnapKV
    score s; of the rest the k - floor(k / 2) largest by (s + 1e-4) times the L1 norm of W_h v, mean over the
    query heads h of a key-value head. W_h is head h's part of the output projection without its bias. Shapes:
    values v (key-value heads, tokens, head_dim), W_h v (tokens, hidden). Source: CriticalKV, Feng et al.
    2025, https://arxiv.org/abs/2502.03805; 1e-4, and the window as a part of the first half, are kvpress's
    (CriticalKVPress). Differs: SnapKV's scores with an even budget alone, for which theirs takes others too.
    """

    name = "evict:snapkv:critical"
    examples: ClassVar[tuple[str, ...]] = ("evict50:snapkv:critical", "evict75:snapkv:critical:window=2")

    window: int = field(default=64, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._first = EvictSnapKV(self.percent, keep=self.keep, window=self.window)
        self._outputs: dict[str, Any] = {}

    @contextlib.contextmanager
    def installed(self, model: Any) -> Iterator[None]:
        """Know the model's output projections until the block ends."""
        before = self._outputs
        self._outputs = {
            path: output
            for path, module in model.named_modules()
            for output in [next((getattr(module, name) for name in OUTPUTS if hasattr(module, name)), None)]
            if output is not None
        }
        try:
            yield
        finally:
            self._outputs = before

    def cache(self, prompt: Prompt, site: Site) -> Kept:
        n, k = prompt.tokens, self.budget_of(prompt.tokens)
        last = self._first.protects(n, k)[1]
        scores = self._first.worth(prompt, k)
        kept = best(scores, first_and_last(n, 0, last, prompt.keys), max(k // 2 - last, 0))
        scores = (scores + LEAST) * self._norms(prompt, site)
        note = f"fewer tokens are kept than the {self.window} to protect" if k < self.window else ""
        return Kept(tokens=best(scores, kept, k - kept.sum(1, keepdim=True)), note=note)

    def _norms(self, prompt: Prompt, site: Site) -> Tensor:
        """Return the L1 norm of what each value adds to the output (key-value heads, tokens)."""
        import torch

        if site.path not in self._outputs:
            raise NotApplicable(f"{self.name}: {site.path} has no output projection that is known")
        project, values = self._outputs[site.path], prompt.values
        bias = project(values.new_zeros(1, site.heads * values.shape[-1]))
        norms = []
        for head in range(site.heads):
            alone = values.new_zeros(prompt.tokens, site.heads, values.shape[-1])
            alone[:, head] = values[head * len(values) // site.heads]
            norms.append((project(alone.flatten(1)) - bias).float().abs().sum(-1))
        return torch.stack(norms).unflatten(0, (len(values), -1)).mean(1)


@hookimpl
def register_methods(register):
    register(EvictCritical)
