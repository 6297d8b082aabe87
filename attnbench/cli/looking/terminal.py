"""A look as text, of each head or each layer its main numbers, and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from attnbench.cli.screen import laid_out
from attnbench.errors import PARAGRAPH, wrap
from attnbench.methods.plugins import registry
from attnbench.methods.spec import parse_study
from attnbench.studies.compared import DIFFERENCE, HEADS, compared
from attnbench.studies.looks import packed_table
from attnbench.studies.passes import DENSE

if TYPE_CHECKING:
    from pandas import DataFrame

    from attnbench.studies.looking import Found, Look

MISSING = "–"
MOST_ROWS = 48  # heads of a study that a screen shows one by one


def described(look: Look, width: int = PARAGRAPH) -> str:
    """Return every study's first line and, of each head or layer, its main numbers and what methods change.

    Dense's columns stand first, then those of each method in order; what is too wide for the screen is named.
    """
    lines = [wrap(f"{look.model} · {look.data}: {', '.join(look.methods)}", width)]
    for text, found in look.found.items():
        lines += ["", wrap(f"{text}: {_first_line(text)}", width)]
        if found.error:
            lines.append(wrap(f"  {found.status}: {found.error}", width))
        tables = {method: each for method, each in found.tables.items() if HEADS in each}
        if tables and len(next(iter(tables.values()))[HEADS]) > MOST_ROWS:
            heads = len(next(iter(tables.values()))[HEADS])
            lines += _fitting([*_layers(found)], 2, width)
            lines.append(
                wrap(f"  Means over each layer's heads; --output and --json have all {heads}.", width)
            )
        elif tables:
            lines += _fitting([*_rows(found)], 3, width)
        else:
            lines.append(wrap(f"  tables: {', '.join(_names(found)) or 'none'}", width))
    return "\n".join(lines)


def side_by_side(models: Mapping[str, DataFrame], width: int = PARAGRAPH) -> str:
    """Return of each study a line a model, data set, method and kind: means over heads, then over layers."""
    lines = []
    for text, table in models.items():
        whole = table.groupby(["model", "data", "method", "kind"], sort=False).mean()
        lines += ["", wrap(f"{text}, all models: means over heads and layers", width)]
        rows = (
            [*map(str, key), *map(_short, row)]
            for key, row in zip(whole.index, whole.to_numpy(), strict=True)
        )
        lines += _fitting([[*whole.index.names, *map(str, whole.columns)], *rows], 4, width)
    return "\n".join(lines)


def _first_line(text: str) -> str:
    doc = registry().studies[parse_study(text).name].__doc__ or ""
    return doc.strip().partition("\n")[0]


def _names(found: Found) -> list[str]:
    return list(dict.fromkeys(name for tables in found.tables.values() for name in tables))


def _rows(found: Found) -> Iterator[list[str]]:
    """Yield a row a head: each main column dense, then of each method with its difference in brackets."""
    table = compared(found.tables)[HEADS]
    shown = [column for column in found.shown if column in table.columns]
    methods = list(table.index.get_level_values("method").unique())
    yield ["kind", "layer", "head", *(f"{m} {c}" if m != DENSE else c for m in methods for c in shown)]
    by_method = {method: table.loc[method] for method in methods}
    for kind, layer, head in by_method[methods[0]].index:
        cells = [str(kind), str(layer), str(head)]
        for method in methods:
            row = by_method[method].loc[(kind, layer, head)]
            for column in shown:
                change = row.get(f"{column}{DIFFERENCE}", math.nan)
                told = f" ({_short(change, '+')})" if math.isfinite(change) else ""
                cells.append(_short(row[column]) + told)
        yield cells


def _layers(found: Found) -> Iterator[list[str]]:
    """Yield a row a layer: means over its heads, with the lowest and highest or with what methods change."""
    table = compared(found.tables)[HEADS]
    shown = [column for column in found.shown if column in table.columns]
    heads = table[shown].groupby(level=["method", "kind", "layer"], sort=False)
    low, mean, high = heads.min(), heads.mean(), heads.max()
    first, *others = dict.fromkeys(str(method) for method in mean.index.get_level_values("method"))
    yield ["kind", "layer", *(f"{m} {c}" if m != DENSE else c for m in (first, *others) for c in shown)]
    for kind, layer in mean.loc[first].index:
        at = (first, kind, layer)
        cells = [_short(mean.at[at, column]) for column in shown]
        if not others:
            ends = [f"{_short(low.at[at, column])} to {_short(high.at[at, column])}" for column in shown]
            cells = [f"{cell} ({end})" for cell, end in zip(cells, ends, strict=True)]
        for method in others:
            values = [(mean.at[(method, kind, layer), column], mean.at[at, column]) for column in shown]
            cells += [f"{_short(value)} ({_short(value - base, '+')})" for value, base in values]
        yield [str(kind), str(layer), *cells]


def _short(value: float, sign: str = "") -> str:
    if not math.isfinite(value):
        return MISSING
    small = value != 0 and not 0.0005 <= abs(value) < 1e4
    return f"{value:{sign}.1e}" if small else f"{value:{sign}.3f}"


def _fitting(rows: list[list[str]], fixed: int, width: int) -> list[str]:
    lines, missing = laid_out.table(rows, fixed, width, indent="  ")
    if not missing:
        return lines
    told = f"  No room at {width} columns for {', '.join(missing)}: a wider terminal and --output have them."
    return [*lines, wrap(told, width)]


def bodies(look: Look) -> Iterator[dict[str, Any]]:
    """Yield what each study found with each method, as JSON holds it."""
    for text, found in look.found.items():
        for method in found.tables or (DENSE,):
            yield {
                "model": look.model, "data": look.data, "study": text, "method": method,
                "status": found.status, "error": found.error or None, "shown": list(found.shown),
                "tables": {
                    name: packed_table(table) for name, table in found.tables.get(method, {}).items()
                },
            }  # fmt: skip
