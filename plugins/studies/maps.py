"""Attention itself: what every token of a few texts attends to, in every head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from attnbench import Study, hookimpl

LONGEST = 128  # tokens that an axis can show
COLUMNS = 4


@dataclass
class Maps(Study):
    """Keep the attention of the first `texts` texts: every head, tokens on both axes.

    `weights` holds p of each query and key that it may see; `arrays` the same as one array (heads, queries,
    keys) for each text, kind and layer. Drawn is p itself on one scale from 0 to 1; as `scale=bar` the pairs
    p > bar, as `scale=auto` each head on its own scale. Texts of over 128 tokens are kept and not drawn.
    Shapes: probs (batch, heads, queries, keys). Source: https://aclanthology.org/2021.findings-acl.363/, its
    code's F13, and the maps of https://aclanthology.org/P19-1580/ and https://d2l.ai, section 11.5. Differs:
    theirs draws layer 0 of each sample and calls the samples layers.
    """

    name, examples = "maps", ("maps2", "maps:scale=bar:bar=0.001")
    texts: int = 4
    scale: Literal["one", "bar", "auto"] = field(default="one", kw_only=True)
    bar: float = field(default=0.0005, kw_only=True)

    def __post_init__(self) -> None:
        if self.texts < 1 or not 0 <= self.bar < 1:
            raise ValueError("at least one text, and a bar from 0 up to 1")

    def begin(self, model: Any, sites: Any) -> None:
        self.maps: dict[tuple[int, str, int], Any] = {}
        self.samples_of: dict[int, Any] = {}

    def probs(self, probs: Any, site: Any) -> None:
        import numpy as np

        for k, sample in enumerate(site.samples):
            if sample.number >= self.texts:
                continue
            queries, keys = (len(sample.tokens(side, site.kind).ids) for side in ("queries", "keys"))
            key = sample.number, site.kind, site.layer
            if key not in self.maps:
                self.samples_of[sample.number] = sample
                self.maps[key] = np.full((site.heads, queries, keys), np.nan, dtype=np.float32)
            tile = probs[k].float()
            if site.visible is not None:
                seen = site.visible[k if len(site.visible) > 1 else 0]
                tile = tile.masked_fill(~seen, float("nan"))
            self.maps[key][:, site.offset : site.offset + site.rows, : site.columns] = tile.cpu().numpy()

    def tables(self) -> Any:
        import numpy as np
        import pandas as pd

        names = ["text", "kind", "layer", "head", "query", "key"]
        parts = []
        for (text, kind, layer), weights in sorted(self.maps.items()):
            head, query, key = np.nonzero(~np.isnan(weights))
            rows = pd.DataFrame(
                {"head": head, "query": query, "key": key, "weight": weights[head, query, key]}
            )
            parts.append(rows.assign(text=text, kind=kind, layer=layer))
        if not parts:
            return {}
        return {"weights": pd.concat(parts).set_index(names)}

    def arrays(self) -> Any:
        return {
            f"{text}.{kind}.{layer}": weights for (text, kind, layer), weights in sorted(self.maps.items())
        }

    def draw(self) -> Any:
        return {
            f"text{text}.{kind}.{layer}": self._figure(text, kind, layer)
            for text, kind, layer in sorted(self.maps)
            if max(self.maps[text, kind, layer].shape[1:]) <= LONGEST
        }

    def _figure(self, text: int, kind: str, layer: int) -> Any:
        from matplotlib.figure import Figure

        weights, sample = self.maps[text, kind, layer], self.samples_of[text]
        rows = -(-len(weights) // COLUMNS)
        size = 1.2 + 0.14 * max(weights.shape[1:])
        figure = Figure(figsize=(COLUMNS * size, rows * size), layout="constrained")
        for head, each in enumerate(weights):
            axes = figure.add_subplot(rows, COLUMNS, head + 1)
            shown = (each > self.bar).astype(float) if self.scale == "bar" else each
            top = None if self.scale == "auto" else 1
            axes.imshow(shown, cmap="viridis", vmin=0, vmax=top, interpolation="nearest")
            axes.set_title(f"{kind} layer {layer} head {head}", fontsize=8)
            for side, ticks in (("keys", axes.set_xticks), ("queries", axes.set_yticks)):
                tokens = sample.tokens(side, kind).names
                ticks(range(len(tokens)), tokens, fontsize=5, rotation=90 if side == "keys" else 0)
        return figure


@hookimpl
def register_studies(register: Callable[[type[Study]], None]) -> None:
    register(Maps)
