"""A look made by hand, for tests of its page: four heads of two layers, two texts, one method."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd

from attnbench.boards.inside.content import content
from attnbench.boards.inside.document import written
from attnbench.inputs.settings import Settings

PLACES = {("encoder", 0): 2, ("encoder", 1): 2}
TEXTS = (
    ("the soup was good", ("[CLS]", "the", "soup", "was", "good", "[SEP]")),
    ("no", ("[CLS]", "no", "[SEP]")),
)


def attention(tokens, seed):
    """Return rows that sum to one, sharp ones and flat ones, and of `pruned` only what is over a fifth."""
    scores = np.random.default_rng(seed).normal(size=(2, tokens, tokens)) * 3
    dense = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    return dense.astype(np.float32), np.where(dense > 0.2, dense, 0).astype(np.float32)


def page(texts=TEXTS, method="pruned", study="s", column="sharp"):
    """Return what `page_of` returns."""
    maps = {"dense": {}, method: {}}
    for number, (_, tokens) in enumerate(texts):
        for name, which in (("dense", 0), (method, 1)):
            maps[name][number] = {
                place: attention(len(tokens), 10 * number + k)[which] for k, place in enumerate(PLACES)
            }
    scores = [
        {"criterion": f"{study}.{name}", "method": each, "kind": kind, "layer": layer, "head": head,
         "score": value(layer, head) + (0.25 * head if each != "dense" else 0)}
        for name, value in ((column, lambda layer, head: layer + head / 2), ("other", lambda *_: 1.0))
        for each in ("dense", method) for (kind, layer), heads in PLACES.items() for head in range(heads)
    ]  # fmt: skip
    told = [
        {"number": number, "text": text, "tokens": {"encoder": {
            side: {"names": list(tokens), "special": [name[0] == "[" for name in tokens]}
            for side in ("queries", "keys")}}}
        for number, (text, tokens) in enumerate(texts)
    ]  # fmt: skip
    return {
        "model": "a model", "data": "some texts", "methods": ["dense", method], "places": dict(PLACES),
        "texts": told, "maps": maps, "scores": scores, "shown": {study: (column,)},
    }  # fmt: skip


def look(of, role="positional"):
    """Return as much of a look as its page reads: a table of roles, the number of texts, a precision."""
    (study,) = of["shown"]
    rows = [("encoder", 0, 1, role, 0.95, 0.9, 1), ("encoder", 1, 0, role, 0.1, 0.9, 0),
            ("encoder", 1, 1, "first", 0.8, 0.5, 1)]  # fmt: skip
    names = ["kind", "layer", "head", "role", "score", "bar", "has"]
    roles = pd.DataFrame(rows, columns=names).set_index(names[:4])
    tables = {method: {"roles": roles} for method in of["methods"]}
    opened = SimpleNamespace(reading=SimpleNamespace(given=[None] * 3), settings=Settings())
    return SimpleNamespace(found={study: SimpleNamespace(tables=tables)}, opened=opened)


def html(of=None, role="positional", most=1_000_000):
    """Return the page, its JSON and its maps."""
    of = page() if of is None else of
    body, blobs = content(look(of, role), of, most)
    return written(body, blobs), body, blobs
