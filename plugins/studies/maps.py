"""Attention itself: what every token of a few texts attends to, in every head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from attnbench import Study, hookimpl

LONGEST = 128  # tokens that an axis can show
COLUMNS = 4
SIDES: tuple[Any, Any] = ("queries", "keys")


@dataclass
class Maps(Study):
    """Keep the attention of the first `texts` texts: every head, tokens on both axes.

    `weights` holds p of each query and key that it may see, `tokens` whether each is special; `arrays` one
    array (heads, queries, keys) for each text, kind and layer. Drawn is p itself on one scale from 0 to 1; as
    `scale=bar` the pairs p > bar, as `scale=auto` each head on its own scale. Texts of over 128 tokens are
    kept and not drawn.
    Shapes: probs (batch, heads, queries, keys). Source: https://aclanthology.org/2021.findings-acl.363/, its
    code's F13, and the maps of https://aclanthology.org/P19-1580/ and https://d2l.ai, section 11.5. Differs:
    theirs draws layer 0 of each sample and calls the samples layers.
    """

    name, examples = "maps", ("maps", "maps2:bar=0.001:scale=bar")
    texts: int = 4
    scale: Literal["one", "bar", "auto"] = field(default="one", kw_only=True)
    bar: float = field(default=0.0005, kw_only=True)

    def __post_init__(self) -> None:
        if self.texts < 1 or not 0 <= self.bar < 1:
            raise ValueError("at least one text, and a bar from 0 up to 1")

    def begin(self, model: Any, sites: Any) -> None:
        self.maps: dict[tuple[int, str, int], Any] = {}
        self.samples_of: dict[tuple[int, str], Any] = {}

    def probs(self, probs: Any, site: Any) -> None:
        import numpy as np

        for k, sample in enumerate(site.samples):
            if sample.number >= self.texts:
                continue
            queries, keys = (len(sample.tokens(side, site.kind).ids) for side in ("queries", "keys"))
            key = sample.number, site.kind, site.layer
            if key not in self.maps:
                self.samples_of[sample.number, site.kind] = sample
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
        tokens = [
            (text, kind, side, place, token, float(special))
            for (text, kind), sample in sorted(self.samples_of.items())
            for side in SIDES
            for place, (token, special) in enumerate(
                zip(sample.tokens(side, kind).names, sample.tokens(side, kind).special, strict=True)
            )
        ]
        named = pd.DataFrame(tokens, columns=["text", "kind", "side", "position", "token", "special"])
        return {
            "weights": pd.concat(parts).set_index(names),
            "tokens": named.set_index([*named.columns[:-1]]),
        }

    def arrays(self) -> Any:
        return {
            f"{text}.{kind}.{layer}": weights for (text, kind, layer), weights in sorted(self.maps.items())
        }

    def draw(self, tables: Any, arrays: Any) -> Any:
        names: dict[tuple[int, str, str], list[str]] = {}
        for text, kind, side, _, token in tables["tokens"].index if tables else ():
            names.setdefault((text, kind, side), []).append(token)
        pictures = {}
        for key, weights in arrays.items():
            text, kind, layer = key.split(".")
            if max(weights.shape[1:]) <= LONGEST:
                axes = [names[int(text), kind, side] for side in SIDES]
                pictures[f"text{key}"] = self._figure(weights, f"{kind} layer {layer}", *axes)
        return pictures

    def _figure(self, weights: Any, title: str, queries: list[str], keys: list[str]) -> Any:
        from matplotlib.figure import Figure

        rows = -(-len(weights) // COLUMNS)
        size = 1.2 + 0.14 * max(weights.shape[1:])
        figure = Figure(figsize=(COLUMNS * size, rows * size), layout="constrained")
        for head, each in enumerate(weights):
            axes = figure.add_subplot(rows, COLUMNS, head + 1)
            shown = (each > self.bar).astype(float) if self.scale == "bar" else each
            top = None if self.scale == "auto" else 1
            axes.imshow(shown, cmap="viridis", vmin=0, vmax=top, interpolation="nearest")
            axes.set_title(f"{title} head {head}", fontsize=8)
            axes.set_xticks(range(len(keys)), keys, fontsize=5, rotation=90)
            axes.set_yticks(range(len(queries)), queries, fontsize=5)
        return figure


@hookimpl
def register_studies(register: Callable[[type[Study]], None]) -> None:
    register(Maps)
