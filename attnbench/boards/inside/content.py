"""What a page of a look shows, as JSON and as packed maps: scores and roles of heads, tokens of texts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from attnbench.boards.inside import packing
from attnbench.boards.pictures.heatmap import SCALE, SIGNED
from attnbench.inputs.settings import EAGER_TOLERANCE
from attnbench.records.inert import clean

if TYPE_CHECKING:
    from attnbench.studies.looking import Look

ROLES, ROLE, HAS = "roles", "role", "has"  # a table of a study's: its index level and its column of 0 and 1
NUMBERS = 200_000  # scores in a page; above that those alone that a study shows
TOKEN, TEXT = 40, 300  # characters
Head = packing.Head


def content(look: Look, page: Mapping[str, Any], most: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a page's JSON and its maps by element id, from a look and what `page_of` returns of it."""
    places = [{"kind": kind, "layer": layer, "heads": n} for (kind, layer), n in page["places"].items()]
    heads = [(each["kind"], each["layer"], head) for each in places for head in range(each["heads"])]
    methods = list(page["methods"])
    columns = list(_columns(page, heads))
    held: dict[tuple[int, str], Any] = {}
    absent: dict[str, str] = {}
    for method in methods:
        maps = {(k, method): page["maps"][method][text["number"]] for k, text in enumerate(page["texts"])}
        if any((array < 0).any() for each in maps.values() for array in each.values()):
            absent[method] = "has negative weights, which a log scale does not show"
        else:
            held |= {key: {place: each[place] for place in page["places"]} for key, each in maps.items()}
    packed = packing.pack(held, most, _order(columns, heads))
    roles = {method: _roles(look, method, heads) for method in methods}
    names = sorted({role for each in roles.values() for found in each for role in found})
    kept = None if packed.heads is None else sorted(map(heads.index, packed.heads))
    body = {
        "model": clean(page["model"], 200), "data": clean(page["data"], 200),
        "methods": [clean(each, 200) for each in methods],
        "absent": {str(methods.index(method)): why for method, why in absent.items()},
        "places": places, "columns": columns, "first": _first(look, page, columns),
        "badges": codes(names), "roles": [roles[method] for method in methods],
        "texts": [_text(text) for text in page["texts"]], "given": len(look.opened.reading.given),
        "scale": {
            "low": packing.LOW, "high": packed.high, "steps": packing.STEPS, "left": packing.LEFT,
            "hidden": packing.HIDDEN,
        },
        "entries": packed.entries, "kept": kept, "rounding": EAGER_TOLERANCE[look.opened.settings.dtype],
        "colours": _colours(),
    }  # fmt: skip
    blobs = {f"maps-{text}-{methods.index(method)}": blob for (text, method), blob in packed.blobs.items()}
    return body, blobs


def _columns(page: Mapping[str, Any], heads: list[Head]) -> Iterable[dict[str, Any]]:
    """Yield each score: study, name, one list a method with a number a head, None where there is none."""
    found: dict[str, dict[str, dict[Head, float | None]]] = {}
    for each in page["scores"]:
        at = each["kind"], each["layer"], each["head"]
        found.setdefault(each["criterion"], {}).setdefault(each["method"], {})[at] = each["score"]
    main = [f"{study}.{column}" for study, shown in page["shown"].items() for column in shown]
    few = len(page["scores"]) > NUMBERS
    ranks = {name: k for k, name in enumerate(main)}
    for criterion in sorted(found, key=lambda name: ranks.get(name, len(main))):
        if few and criterion not in main:
            continue
        study = max((each for each in page["shown"] if criterion.startswith(f"{each}.")), key=len)
        yield {
            "study": clean(study, 100), "name": clean(criterion[len(study) + 1 :], 100),
            "main": criterion in main,
            "values": [
                [_short(found[criterion].get(method, {}).get(head)) for head in heads]
                for method in page["methods"]
            ],
        }  # fmt: skip


def _first(look: Look, page: Mapping[str, Any], columns: list[dict[str, Any]]) -> int:
    """Return the score that is chosen first: of a study that tells roles, else one that differs by head."""
    telling = {
        clean(text, 100)
        for text in page["shown"]
        if ROLES in next(iter(look.found[text].tables.values()), {})
    }
    ranks = [(each["study"] not in telling, len(set(each["values"][0]) - {None}) < 2) for each in columns]
    return min(range(len(columns)), key=lambda k: ranks[k], default=0)


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def _order(columns: list[dict[str, Any]], heads: list[Head]) -> list[Head]:
    """Return the heads, the highest of the first score first."""
    values: list[float | None] = columns[0]["values"][0] if columns else [None] * len(heads)
    known = [-math.inf if value is None else value for value in values]
    ranked = sorted(range(len(heads)), key=lambda k: -known[k])
    return [heads[k] for k in ranked]


def _roles(look: Look, method: str, heads: list[Head]) -> list[list[str]]:
    """Return the roles of each head, by every study that has a table of roles."""
    found: dict[Head, list[str]] = {head: [] for head in heads}
    for each in look.found.values():
        table = each.tables.get(method, {}).get(ROLES)
        if table is None or HAS not in table or ROLE not in table.index.names:
            continue
        for row, has in table[HAS].items():
            at = dict(zip(table.index.names, row, strict=True))
            head = str(at["kind"]), int(at["layer"]), int(at["head"])
            if has == 1 and head in found:
                found[head].append(clean(str(at[ROLE]), 100))
    return list(found.values())


def codes(names: Iterable[str]) -> dict[str, str]:
    """Return two letters for each name, no two the same: its first, and the first later one that is free."""
    found: dict[str, str] = {}
    for name in names:
        first, rest = (name[:1] or "?").upper(), [each for each in name[1:] if each.isalnum()]
        tries = [*(first + each for each in rest), *(f"{first}{k}" for k in range(1, 100))]
        found[name] = next(code for code in tries if code not in found.values())
    return found


def _text(text: Mapping[str, Any]) -> dict[str, Any]:
    kinds = {
        kind: {
            side: {"names": [clean(name, TOKEN) for name in each["names"]], "special": each["special"]}
            for side, each in sides.items()
        }
        for kind, sides in text["tokens"].items()
    }
    return {"text": clean(text["text"], TEXT), "tokens": kinds}


def _colours() -> dict[str, list[list[int]]]:
    """Return eleven colours of each scale that the pictures have."""
    from matplotlib import colormaps

    return {
        name: [[round(255 * part) for part in colormaps[scale](k / 10)[:3]] for k in range(11)]
        for name, scale in (("one", SCALE), ("both", SIGNED))
    }


def told(body: Mapping[str, Any]) -> list[str]:
    """Return what a reader has to know of the numbers: the scale's step, and what was left out."""
    scale = body["scale"]
    step = 10 ** ((scale["high"] - scale["low"]) / scale["steps"])
    largest = 10 ** scale["high"]
    lines = [
        f"Weights are kept on a log scale from 1e-8 to {largest:.3g} in steps of {100 * (step - 1):.2g} %: "
        f"each is right to {100 * (step**0.5 - 1):.2g} %, 0 is 0, and what is between 0 and 1e-8 reads 1e-8. "
        "A difference of up to one step is shown as none.",
        "Differences of scores have no colour where they are within the rounding of this precision, "
        f"{body['rounding']:g} of the largest score. Colours and differences are of the texts that were "
        "looked at: how they vary from text to text is not shown.",
    ]
    shown, given = len(body["texts"]), body["given"]
    if shown < given:
        lines.append(
            f"Maps are of {shown} of {given} texts, the first that are short enough; scores are of all."
        )
    if body["entries"] is not None:
        lines.append(
            f"To keep the file small, a row of a map has its {body['entries']} largest weights alone (and "
            "equals of the least of them); others are paler."
        )
    if body["kept"] is not None:
        lines.append(
            f"To keep the file small, {len(body['kept'])} heads have maps: the highest of the first score."
        )
    lines += [f"{body['methods'][int(k)]} {why}." for k, why in body["absent"].items()]
    return lines
