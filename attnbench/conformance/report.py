"""What the kit found about a spec: one outcome a check and architecture, one line a check."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

Status = Literal["ok", "FAILED", "n/a"]


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
        lines = [f"{self.spec}: {'ok' if self.ok else 'FAILED ' + ', '.join(self.failed)}"]
        for check in self._checks():
            status = self._status(check)
            told = _grouped(self._of(check, status))
            if status == "ok":
                told += [f"n/a: {text}" for text in _grouped(self._of(check, "n/a"))]
            lines.append(f"  {status:6}  {check:13}  {'; '.join(told)}")
        return "\n".join(lines)


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
