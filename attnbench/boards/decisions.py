"""A suite's claims decided, each by its interval.

A claim holds or fails where the paired 95 % interval lies wholly on one side, and is undecided otherwise;
"within of dense" holds as ≈ does in the table, Holm over all its methods, so that the two cannot disagree.
Pocket models, which are no evidence, have the claimed shape by the same rules, yes or no; where these do not
tell, the estimate alone is told with a question mark.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attnbench.boards.claims import Claim, is_about, parse
from attnbench.statistics.row import LEVEL

if TYPE_CHECKING:
    from attnbench.boards.board import Board, Section
    from attnbench.records.record import Record
    from attnbench.statistics.pairs import Difference

TOLD = (
    "where its 95 % interval, paired where two methods are compared, lies on one side; this is not corrected "
    "for the number of claims"
)


@dataclass(frozen=True)
class Outcome:
    """A claim on one model and task: verdict is holds, fails, undecided, not measured or not applicable."""

    claim: Claim
    model: str
    task: str
    verdict: str
    intervals: tuple[str, ...] = ()
    pocket: bool = False
    same_shape: bool | None = None  # of the estimates alone

    @property
    def shape(self) -> str:
        """One of yes, no, yes? and no?; empty where nothing was measured."""
        if self.same_shape is None:
            return ""
        return {"holds": "yes", "fails": "no"}.get(self.verdict, "yes?" if self.same_shape else "no?")


def evaluate(board: Board) -> list[Outcome]:
    """Decide every claim of the board's suite on every model and task that it is about."""
    from attnbench.statistics import pairs

    out = []
    for claim in map(parse, board.suite.claims if board.suite else ()):
        for section in board.sections:
            for (model, task), methods in pairs.groups(section.records).items():
                part = board.suite.part_of(model, task) if board.suite else None
                if board.suite and part and is_about(claim, task, board.suite.names(part)):
                    out.append(_decide(claim, model, task, methods, section))
    return out


def _decide(
    claim: Claim, model: str, task: str, methods: dict[str, list[Record]], section: Section
) -> Outcome:
    from attnbench.statistics import against_dense, pairs, receipts, same_samples

    found: list[Difference] = []
    for names in claim.pairs:
        sides = [methods.get(name, []) for name in names]
        records = [item for side in sides for item in side]
        for status in ("not applicable", "failed", "missing"):
            if not all(sides) or any(item.status == status for item in records):
                word = "not applicable" if status == "not applicable" and all(sides) else "not measured"
                return Outcome(claim, model, task, word, pocket=section.pocket)
        # the table has such a cell as a failed one
        if any(
            against_dense.problem(item) or same_samples.other_samples(item, records[0]) for item in records
        ):
            return Outcome(claim, model, task, "not measured", pocket=section.pocket)
        if any(map(receipts.mostly_dense, sides)):
            return Outcome(claim, model, task, "undecided", pocket=section.pocket)
        if claim.bound is not None:
            return _bounded(claim, model, task, sides[0], section.pocket)
        try:
            found.append(pairs.difference(sides[0], sides[1]))
        except pairs.Undefined:
            return Outcome(claim, model, task, "undecided", pocket=section.pocket)
    limits = [-_margin(claim.within, each.scale) for each in found]
    holds = [each.gain[0] > limit for each, limit in zip(found, limits, strict=True)]
    fails = [each.gain[2] < limit for each, limit in zip(found, limits, strict=True)]
    shape = all(each.gain[1] > limit for each, limit in zip(found, limits, strict=True))
    if claim.within and claim.pairs[0][1] == "dense":
        method = claim.pairs[0][0]
        sure = pairs.difference(methods[method], methods["dense"], margin=-limits[0]).p_margin
        holds = [_corrected(sure, method, model, task, section) <= LEVEL]
    verdict = "fails" if any(fails) else "holds" if all(holds) else "undecided"
    intervals = tuple(each.interval for each in found)
    return Outcome(claim, model, task, verdict, intervals, section.pocket, shape)


def _bounded(claim: Claim, model: str, task: str, members: list[Record], pocket: bool) -> Outcome:
    """Decide what is claimed of a method's own measure, by its interval."""
    from attnbench.statistics import fidelity

    measure, side, limit = claim.bound or ("", "", 0.0)
    found = fidelity.of(members, measure)
    if found is None:
        return Outcome(claim, model, task, "not applicable", pocket=pocket)
    limit = limit / 100 if measure in fidelity.SHARES else limit
    below, above = found.high < limit, found.low > limit
    holds, fails = (below, above) if side == "<" else (above, below)
    verdict = "holds" if holds else "fails" if fails else "undecided"
    shape = found.value < limit if side == "<" else found.value > limit
    return Outcome(claim, model, task, verdict, (fidelity.shown(measure, found),), pocket, shape)


def _corrected(p: float, method: str, model: str, task: str, section: Section) -> float:
    """Correct a method's p value by Holm with those that all the others of its table have."""
    from attnbench.methods.families import name_without_seed
    from attnbench.statistics import inference

    mine = {method, name_without_seed(method)}
    rows = [row for row in section.rows if row.p_margin is not None]
    own = [(row.model, row.task) == (model, task) and row.primary and row.method in mine for row in rows]
    others = [row.p_margin or 0.0 for row, is_own in zip(rows, own, strict=True) if not is_own]
    return inference.holm([p, *others])[0]


def _margin(within: float | None, scale: str) -> float:
    if within is None:
        return 0.0
    if scale == "fraction":
        return within / 100
    return math.log1p(within / 100) if scale == "log" else within


def table(outcomes: Sequence[Outcome]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows: a verdict for real models, a shape for pocket models."""
    pockets, real = (any(each.pocket == kind for each in outcomes) for kind in (True, False))
    shown = "difference or share" if any(each.claim.bound for each in outcomes) else "difference"
    header = ["claim", "model", "task", *(["verdict"] if real else []), f"{shown} [95 %]"]
    header += ["same shape"] if pockets else []
    rows = []
    for each in outcomes:
        row = [each.claim.text, each.model, each.task]
        decided = each.same_shape is not None
        if real:
            row.append("" if each.pocket and decided else each.verdict)
        row.append("; ".join(each.intervals) or each.verdict)
        if pockets:
            row.append(each.shape if each.pocket else "")
        rows.append(row)
    return header, rows


def notes(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Yield one line on real models, one on pocket models, and what the words stand for."""
    real = [each for each in outcomes if not each.pocket and each.same_shape is not None]
    if real:
        counts = {
            word: sum(each.verdict == word for each in real) for word in ("holds", "fails", "undecided")
        }
        told = f"{counts['holds']} held, {counts['fails']} failed, {counts['undecided']} undecided"
        yield f"{len(real)} check{'' if len(real) == 1 else 's'}: {told}."
    pocket = [each for each in outcomes if each.pocket and each.same_shape is not None]
    if pocket:
        words = [each.shape for each in pocket]
        yes, no, rather, hardly = (words.count(word) for word in ("yes", "no", "yes?", "no?"))
        yield (
            f"On pocket models {yes} of {len(pocket)} have the same shape and {no} have not; "
            f"{rather + hardly} stay open, {rather} of which lean to it. None of it is evidence."
        )
    if real:
        yield f"A claim holds or fails {TOLD}."
    if pocket:
        yield f"Same shape is yes or no {TOLD}; elsewhere it is yes? or no?, by the estimate alone."
    if any(each.claim.within and each.claim.pairs[0][1] == "dense" for each in (*real, *pocket)):
        yield "A claim of being within a margin of dense holds as ≈ does in the table, at its own margin."
