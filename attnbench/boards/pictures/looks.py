"""Pictures of what studies found: maps of heads for their main columns, and the studies' own figures."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attnbench.boards.pictures import heatmap
from attnbench.boards.pictures.draw import STYLE
from attnbench.methods import spec
from attnbench.studies.compared import HEADS, by_place
from attnbench.studies.passes import DENSE
from attnbench.studies.ranking import CERTAIN
from attnbench.studies.token_texts import text_of

if TYPE_CHECKING:
    from pandas import DataFrame

    from attnbench.studies.looking import Found, Look

FORMS = ("svg", "png")
TOKEN = "token"  # the level of an index that holds tokens
FEW = 40  # figures of one study and method


def pictures(look: Look) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield the name of each picture and its bytes as svg and png: the same bytes for the same numbers."""
    written = text_of(look.opened.reading.tokenizer)
    for text, found in look.found.items():
        study = spec.parse_study(text)
        for method, tables in found.tables.items():
            for column in found.shown if HEADS in tables else ():
                yield from _maps(look, found, column, method)
            figures = list(study.draw(_texts(tables, written), found.arrays.get(method, {})).items())
            for name, figure in figures[:FEW]:
                figure.suptitle(f"{look.model}, {look.data}, {method}", fontsize=9)
                yield f"{text}.{name}.{method}", saved(figure, f"{text} {name}")


def _texts(tables: Mapping[str, DataFrame], written: Callable[[str], str]) -> dict[str, DataFrame]:
    """Return tables whose tokens are written as the texts that they stand for."""
    return {
        name: table.rename(index=written, level=TOKEN) if TOKEN in table.index.names else table
        for name, table in tables.items()
    }


def _maps(look: Look, found: Found, column: str, method: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield the map of a column: of the dense model, and how a method changes it."""
    name = f"{found.study}.{column}.{method}"
    title = f"{look.model}, {look.data}\n{found.study}: {column}, {method}"
    if method == DENSE or HEADS not in found.tables[DENSE]:
        yield name, map_of(found, column, method, title)
    else:
        yield f"{name}.difference", map_of(found, column, method, f"{title} − dense")


def map_of(
    found: Found, column: str, method: str, title: str, forms: Sequence[str] = FORMS, digest: str = ""
) -> dict[str, bytes]:
    """Return the map of a column of heads by form: with a method of its change, where dense has it too."""
    table = by_place(found, column, method)
    if method == DENSE or HEADS not in found.tables[DENSE]:
        told = heatmap.NOISE if column == CERTAIN else heatmap.NO_INTERVAL
        return heatmap.drawn(table, title, forms, digest=digest, foot=told)
    dense = by_place(found, column, DENSE)
    change = {
        place: [one - two for one, two in zip(values, dense[place], strict=True)]
        for place, values in table.items()
    }
    told = heatmap.NO_INTERVAL
    return heatmap.drawn(change, title, forms, diverging=True, digest=digest, foot=told)


def _plain_powers(figure: Any) -> None:
    """Write the numbers of log axes out: names in labels may hold a $, so that no formula is read there."""
    from matplotlib.ticker import LogLocator, NullFormatter

    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        if axis.get_scale() == "log":
            axis.set_major_locator(LogLocator(numticks=5))
            axis.set_major_formatter(lambda value, _: f"{value:g}")
            axis.set_minor_formatter(NullFormatter())


def saved(figure: Any, name: str, digest: str = "") -> dict[str, bytes]:
    """Return a figure's bytes by form, without a date or a random name in them, with a digest if given."""
    import matplotlib

    found = {}
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        _plain_powers(figure)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # where things lie is known by now
        for form in FORMS:
            buffer = io.BytesIO()
            metadata: dict[str, str | None]
            metadata = {"Date": None, "Creator": None} if form == "svg" else {"Software": None}
            metadata |= {"Description": digest} if digest else {}
            figure.savefig(buffer, format=form, metadata=metadata, dpi=120)
            found[form] = buffer.getvalue()
    return found
