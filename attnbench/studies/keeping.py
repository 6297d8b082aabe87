"""What attention computes for a few texts, as arrays, from queries and keys to contexts."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from attnbench.engine.places import routing
from attnbench.engine.serving.attention import apply, watch
from attnbench.engine.serving.dispatch import Engine
from attnbench.methods.protocol import Method
from attnbench.methods.study import OBSERVERS, Study
from attnbench.methods.views import Sample, View
from attnbench.studies.passes import DENSE, Pass, Seen, shows

if TYPE_CHECKING:
    from attnbench.studies.reading import Reading

ENTER = ("queries", "keys", "values")  # what enters attention, positions in it, a key-value head once
Place = tuple[str, int]
Arrays = dict[str, dict[Place, np.ndarray]]  # stage -> (kind, layer) -> an array without a batch axis


@dataclass
class Keeper(Study):
    """Keep every tensor of one example whole, whatever tiles it came in."""

    name = "keeper"
    found: Arrays = field(default_factory=lambda: defaultdict(dict), init=False)

    def hidden(self, hidden: Tensor, site: View) -> None:
        """Keep the input of a layer (tokens, hidden)."""
        self.found["hidden"][site.kind, site.layer] = _array(hidden[0])

    def scores(self, scores: Tensor, site: View) -> None:
        """Keep scores (heads, queries, keys), -inf where a query may not see."""
        self._put("scores", scores, site, -np.inf)

    def probs(self, probs: Tensor, site: View) -> None:
        """Keep probabilities (heads, queries, keys), not a number where a query may not see."""
        self._put("probs", probs, site, np.nan)

    def context(self, context: Tensor, site: View) -> None:
        """Keep contexts (heads, queries, head_dim)."""
        whole = self._whole("context", site, context.shape[3], np.nan)
        whole[:, site.offset : site.offset + site.rows] = _array(context[0])

    def _put(self, stage: str, tensor: Tensor, site: View, hidden: float) -> None:
        keys = len(site.samples[0].tokens("keys", site.kind).ids)
        whole, tile = self._whole(stage, site, keys, hidden), _array(tensor[0])
        if site.visible is not None:
            tile = np.where(site.visible[0].cpu().numpy(), tile, hidden)
        whole[:, site.offset : site.offset + site.rows, : site.columns] = tile

    def _whole(self, stage: str, site: View, width: int, fill: float) -> np.ndarray:
        queries = len(site.samples[0].tokens("queries", site.kind).ids)
        place = site.kind, site.layer
        if place not in self.found[stage]:
            self.found[stage][place] = np.full((site.heads, queries, width), fill, dtype=np.float32)
        return self.found[stage][place]


def kept(
    model: Any,
    data: Reading,
    samples: Sequence[Sample],
    methods: Mapping[str, Sequence[Method]],
    stages: Sequence[str] = (*ENTER, *OBSERVERS),
) -> dict[str, dict[int, Arrays]]:
    """Run samples one at a time, densely and with each method: method -> number -> stage -> arrays.

    `stages` are queries, keys, values as they enter attention, and those of a study. A model that is served
    by a tap on its softmax has `probs` alone.
    """
    found: dict[str, dict[int, Arrays]] = {}
    wanted = [stage for stage in shows(model) if stage in stages]
    for name, applied in {DENSE: (), **methods}.items():
        found[name] = {}
        for sample in samples:
            keeper = Keeper()
            (batch,) = data.batches([sample], 1)
            one = Pass("text", name, batch, 1, [Seen("keeper", {name: keeper})])
            with contextlib.ExitStack() as stack:
                stack.enter_context(torch.no_grad())
                stack.enter_context(apply(model, *applied))
                stack.enter_context(watch(model, **one.observers(wanted)))
                stack.enter_context(_entering(model, keeper.found, stages))
                model(**batch.inputs)
            found[name][sample.number] = dict(keeper.found)
    return found


def _entering(model: Any, found: Arrays, stages: Sequence[str]) -> Any:
    """Note what enters the model's attention while the block runs, where it is on transformers' interface."""
    engine: Any = routing.serving(model)
    calls: dict[str, int] = defaultdict(int)

    def answer(module: nn.Module, *given: Any, **options: Any) -> tuple[Tensor, Tensor | None]:
        path = engine.paths[module]
        place = engine.at[path][calls[path] % len(engine.at[path])].site
        calls[path] += 1
        for stage, tensor in zip(ENTER, given, strict=False):
            if stage in stages:
                found[stage][place.kind, place.layer] = _array(tensor[0])
        served: tuple[Tensor, Tensor | None] = engine(module, *given, **options)
        return served

    return routing.registered(model, answer if isinstance(engine, Engine) else engine)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.float().cpu().numpy().copy()
