"""What studies found, as others read it: differences to dense, scores of heads, what a page shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attnbench.engine.places.sites import discover
from attnbench.studies.keeping import kept
from attnbench.studies.passes import DENSE
from attnbench.studies.token_texts import text_of

if TYPE_CHECKING:
    from pandas import DataFrame

    from attnbench.methods.views import Sample
    from attnbench.studies.looking import Found, Look

HEADS = "heads"  # the table of one row a head
LEFT_OUT = "left_out"  # the table of one row a part and reason
DIFFERENCE = "_difference"
TEXTS, LONGEST = 4, 512  # texts of a page, and tokens of each at most
MEMORY = 1 << 27  # weights that are held for a page, of all its texts and methods


def compared(tables: Mapping[str, Mapping[str, DataFrame]]) -> dict[str, DataFrame]:
    """Return each table with all methods, `method` first in its index.

    Of a method every column comes with its difference to dense in the same row, where dense has it.
    """
    import pandas as pd

    found: dict[str, DataFrame] = {}
    for name in dict.fromkeys(name for each in tables.values() for name in each):
        dense = tables.get(DENSE, {}).get(name)
        parts = {}
        for method, given in tables.items():
            if name not in given or not len(given[name]):
                continue
            table = given[name].astype(float)
            if method != DENSE and dense is not None:
                change = table - dense.astype(float).reindex(table.index)
                table = table.join(change.add_suffix(DIFFERENCE))
            parts[method] = table
        if parts:
            found[name] = pd.concat(parts, names=["method"])
    return found


def left_out(found: Found) -> list[tuple[str, str, int]]:
    """List what a study says in its table `left_out` that it did not measure: part, reason, how much."""
    table = found.tables.get(DENSE, {}).get(LEFT_OUT)
    if table is None:
        return []
    rows = zip(table.index, table.iloc[:, 0], strict=True)
    return [(str(part), str(why), int(number)) for (part, why), number in rows]


def means(look: Look) -> dict[str, DataFrame]:
    """Return each study's means over the heads of a layer: model, data, method, kind, layer, then numbers."""
    import pandas as pd

    found = {}
    for text, each in look.found.items():
        parts = {
            (look.model, look.data, method): tables[HEADS].astype(float).groupby(["kind", "layer"]).mean()
            for method, tables in each.tables.items()
            if HEADS in tables
        }
        if parts:
            found[text] = pd.concat(parts, names=["model", "data", "method"])
    return found


def across(models: Sequence[Mapping[str, DataFrame]]) -> dict[str, DataFrame]:
    """Return the means of several looks, study by study, of studies that more than one model has."""
    import pandas as pd

    found = {}
    for text in dict.fromkeys(text for each in models for text in each):
        parts = [each[text] for each in models if text in each]
        table = pd.concat(parts)
        if table.index.get_level_values("model").nunique() > 1:
            found[text] = table
    return found


def scores(look: Look) -> list[dict[str, Any]]:
    """Return the scores of heads: criterion, method, kind, layer, head, score, null where there is none."""
    return [
        {
            "criterion": f"{text}.{column}", "method": method, "kind": kind, "layer": int(layer),
            "head": int(head), "score": float(score) if math.isfinite(score) else None,
        }
        for text, found in look.found.items()
        for method, tables in found.tables.items()
        if HEADS in tables
        for column in tables[HEADS].columns
        for (kind, layer, head), score in tables[HEADS][column].items()
    ]  # fmt: skip


def heads_file(look: Look) -> dict[str, Any]:
    """Return what heads.json holds: whose heads, and their scores."""
    return {
        "format": "attnbench heads",
        "version": 1,
        "model": look.model,
        "fingerprint": look.fingerprint,
        "data": look.data,
        "scores": scores(look),
    }


def by_place(found: Found, column: str, method: str) -> dict[tuple[str, int], list[float]]:
    """Return one column of a study's heads: (kind, layer) -> one number a head."""
    table = found.tables[method][HEADS][column]
    return {
        (str(kind), int(layer)): [float(value) for value in part]
        for (kind, layer), part in table.groupby(["kind", "layer"])
    }


def page_of(look: Look, texts: int = TEXTS, longest: int = LONGEST) -> dict[str, Any]:
    """Return all that a page of a look shows. It runs the model on the texts whose maps are shown.

    `texts`: number, text, and for each kind the texts of query and key tokens and which are special, of the
    first `texts` that have at most `longest` tokens and that MEMORY holds; `maps`: method -> number ->
    (kind, layer) -> array (heads, queries, keys), not a number where a query may not see; `scores`: as in
    heads.json; `shown`: study -> the columns that colour the grid; `places`: (kind, layer) -> heads.
    """
    opened = look.opened
    places: dict[tuple[str, int], int] = {}
    sites = discover(opened.model)
    kinds = list(dict.fromkeys(site.kind for site in sites))
    for site in sorted(sites, key=lambda site: (kinds.index(site.kind), site.layer)):
        places[site.kind, site.layer] = site.heads
    given: list[Sample] = []
    room = MEMORY // len(look.methods)
    for sample in opened.reading.given:
        weights = sum(heads * _area(sample, kind) for (kind, _), heads in places.items())
        if len(given) < texts and _length(sample) <= longest and weights <= room:
            given.append(sample)
            room -= weights
    learned = opened.learned({name: opened.asked[name] for name in look.methods if name != DENSE})
    held = kept(opened.model, opened.reading, given, learned, stages=("probs",))
    maps = {
        method: {number: stages["probs"] for number, stages in numbers.items()}
        for method, numbers in held.items()
    }
    written = text_of(opened.reading.tokenizer)
    return {
        "model": look.model, "data": look.data, "methods": list(look.methods), "places": places,
        "texts": [_text(each, sorted({kind for kind, _ in places}), written) for each in given],
        "maps": maps, "scores": scores(look),
        "shown": {text: found.shown for text, found in look.found.items() if found.tables},
    }  # fmt: skip


def _length(sample: Sample) -> int:
    return max(len(sample.source.ids), 0 if sample.target is None else len(sample.target.ids))


def _area(sample: Sample, kind: str) -> int:
    return len(sample.tokens("queries", kind).ids) * len(sample.tokens("keys", kind).ids)


def _text(sample: Sample, kinds: list[str], written: Callable[[str], str]) -> dict[str, Any]:
    return {
        "number": sample.number,
        "text": sample.text,
        "tokens": {
            kind: {
                side: {
                    "names": [*map(written, sample.tokens(side, kind).names)],
                    "special": sample.tokens(side, kind).special.tolist(),
                }
                for side in ("queries", "keys")
            }
            for kind in kinds
        },
    }
