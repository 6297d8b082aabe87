"""What the kit found about a spec: one outcome a check and architecture, one line a check."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

Status = Literal["ok", "FAILED", "n/a"]


NOWHERE = "not applicable to"
SEEN_ONCE = ("effect", "seeds")  # at one architecture is enough: one head in ten of eight is none


@dataclass(frozen=True)
class Outcome:
    """What one check found at one place: an architecture, or the method's class ("")."""

    check: str
    where: str
    status: Status
    detail: str = ""


@dataclass
class Report:
    """What the kit found about one spec. `str` is one line a check."""

    spec: str
    outcomes: list[Outcome] = field(default_factory=list)
    kinds: dict[str, str] = field(default_factory=dict)  # architecture -> encoders, decoders, ...

    @property
    def verdict(self) -> str:
        """Whether it is ok, on which kinds of model, and to which it is not applicable."""
        if not self.ok:
            return f"FAILED {', '.join(self.failed)}"
        runs = {each.where: each.status != "n/a" for each in self.outcomes if each.check == "runs"}
        good = [kind for place, kind in self.kinds.items() if runs.get(place)]
        other = [kind for place, kind in self.kinds.items() if place in runs and kind not in good]
        said = [f"{words} {_listed(kinds)}" for words, kinds in (("ok on", good), (NOWHERE, other)) if kinds]
        return ", ".join(said) or "ok"

    @property
    def failed(self) -> tuple[str, ...]:
        """The checks that failed, in order."""
        return tuple(check for check in self._checks() if self._status(check) == "FAILED")

    @property
    def ok(self) -> bool:
        return not self.failed

    def _checks(self) -> list[str]:
        return list(dict.fromkeys(outcome.check for outcome in self.outcomes))

    def _of(self, check: str, status: Status) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if (outcome.check, outcome.status) == (check, status)]

    def _status(self, check: str) -> Status:
        good, bad = self._of(check, "ok"), self._of(check, "FAILED")
        if bad and not (check in SEEN_ONCE and good):
            return "FAILED"
        return "ok" if good else "n/a"

    def __str__(self) -> str:
        lines = [f"{self.spec}: {self.verdict}"]
        for check in self._checks():
            status = self._status(check)
            told = _grouped(self._of(check, status))
            if status == "ok":
                told += [f"n/a: {text}" for text in _grouped(self._of(check, "n/a"))]
            lines.append(f"  {status:6}  {check:13}  {'; '.join(told)}")
        return "\n".join(lines)


def _listed(kinds: Iterable[str]) -> str:
    *first, last = dict.fromkeys(kinds)
    return f"{', '.join(first)} and {last}" if first else last


def _grouped(outcomes: Iterable[Outcome]) -> list[str]:
    places: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        # the same error in another module of another architecture is one error: the first says where
        places.setdefault(re.sub(r" at \S+ \(\w+ layer \d+\)", "", outcome.detail), []).append(outcome)
    lines = []
    for alike in places.values():
        where, detail = ", ".join(each.where for each in alike), alike[0].detail
        lines.append(f"{where}{': ' if detail else ''}{detail}" if where else detail)
    return lines
