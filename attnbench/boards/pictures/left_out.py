"""What a picture leaves out, in words: how many methods, and why. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from attnbench.methods.controls import CONTROLS, DRAWN
from attnbench.methods.families import family, name_without_seed

if TYPE_CHECKING:
    from attnbench.boards.pictures.depths import DepthMap
    from attnbench.boards.pictures.grids import Grid
    from attnbench.records.record import Record
    from attnbench.statistics.row import Row

REASONS = {
    "sparsity": "set fewer than 0.5 % of the values of attention to zero",
    "bits": "do not round attention to levels",
    "heads": "remove no heads",
    "kv": "leave the cache whole",
    "latency": "have no measured latency",
    "amount": "are not there both alone and followed by another method",
}
KEPT = "have no share kept, because dense and uniform attention score alike"
NAMED = 3  # models and tasks without a panel that are named


def of_panel(rows: Sequence[Row], drawn: Collection[str], x: str, placed: Collection[str]) -> str:
    """Say how many methods of a model and task are drawn, and what keeps each of the others off.

    `placed` are those that have a place across.
    """
    methods = [row for row in rows if row.method not in CONTROLS]
    measured = [row for row in methods if row.status == "measured"]
    off = [row for row in measured if row.method not in drawn]
    without = sum(row.method not in placed for row in off)
    counts = (
        (without, REASONS[x]), (len(off) - without, KEPT), (len(methods) - len(measured), "not measured"),
    )  # fmt: skip
    told = ", ".join(f"{count} {reason}" for count, reason in counts if count)
    return f"{len(measured) - len(off)} of {len(methods)} methods" + (f"; {told}" if told else "")


def of_board(all_places: Collection[tuple[str, str]], drawn: Collection[tuple[str, str]]) -> str:
    """Name the models and tasks that have no panel, since none of their methods has a point."""
    missing = [place for place in all_places if place not in drawn]
    if not missing:
        return ""
    named = "; ".join(", ".join(place) for place in missing[:NAMED])
    more = f"; and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
    return f"No method has a point here on {named}{more}."


def of_grids(records: Sequence[Record], shown: Sequence[Grid], scored: Callable[[object], object]) -> str:
    """Say which scores of heads are not shown; `scored` tells whether a fitted state holds such scores."""
    drawn: set[tuple[str, str, str]] = set()
    ways: set[tuple[str, str, str]] = set()
    amounts: set[tuple[str, str, str]] = set()
    for item in records:
        where = item.cell["model"], item.cell["task"]
        for name, state in item.fitted.items():
            if scored(state):
                whole = where[0], where[1], name_without_seed(name)
                chosen = drawn if DRAWN in name.split(":") else amounts
                chosen.add(whole)
                if chosen is amounts:
                    ways.add((where[0], where[1], family(name)))
    counts = (
        (len(amounts) - len(ways), "of smaller amounts"),
        (len(ways) - len(shown), "with the scores of another"),
        (len(drawn), "drawn at random"),
    )
    told = ", ".join(f"{count} {what}" for count, what in counts if count)
    return (
        "Each map has a scale of its own, from its lowest score to its highest, and shows one fit, without "
        "an interval." + (f" Not shown: {told}." if told else "")
    )


def of_depths(maps: Sequence[DepthMap]) -> str:
    """Say of how many samples a field is the mean, how uncertain it is, and which methods have no map."""
    counts = [count for each in maps for row in each.samples for count in row if count]
    few, many = min(counts), max(counts)
    scores = [score for each in maps for row in each.scores for score in row if score is not None]
    fraction = min(scores) >= 0 and max(scores) <= 1
    number = f"{few}" if few == many else f"{few} to {many}"
    error = f", with a standard error of up to {50 / few**0.5:.0f} points" if fraction else ""
    return (
        f"A field is the mean of {number} samples{error}. Of several seeds the first is shown; uniform "
        "attention and random baselines have no map."
    )
