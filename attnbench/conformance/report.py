"""What the kit found about a spec: one outcome a check and architecture, one line a check."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

Status = Literal["ok", "FAILED", "n/a"]


NOWHERE = "not applicable to"
FIXES = {
    "deterministic": "give it a field `seed: int = 0`; a stage draws by "
    "`kernels.draw(self.seed, site, probs[0], site.offset)`, fit from a generator of its own, "
    "`torch.Generator().manual_seed(self.seed)`; sort a set",
    "seeds": "let `seed: int = 0` reach the generator that draws",
    "causal": 'a stage that needs the rows of other queries sets `rows = "all"`, and is then not applicable '
    "where attention is causal; else use site.visible to keep to the keys that a query sees. `cache` decides "
    "by the prompt alone; one that needs the queries after it sets `ahead = True`",
    "tiles": 'treat each query by itself, or set `rows = "all"`: else a stage gets some of the query rows '
    "at a time",
    "generation": "a stage treats a token the same whether it comes alone, on a cache, or within its text: "
    "use site.offset for positions; `cache` keeps nothing from one prompt to the next",
    "caches": "decide by `prompt` alone, by positions from `prompt.start`, the same however it was read: "
    "what `cache` returns may hang neither on the batch nor on earlier calls",
    "batch": "padding never reaches a stage, but other samples do: reduce over the last axis alone",
    "stateless": "keep nothing of a stage's tensors: fit learns, into names that end with _",
    "restored": "undo in `installed` what it did, or leave weights and hooks alone",
    "rebatched": "sum over samples, and divide by their number at the end: a mean of batches is another one",
    "gradients": "use operations that torch differentiates, and edit in place only what needs no gradient",
    "finite": "guard divisions and logarithms by zero: a row may have one visible key",
    "recorded": "keep numbers, texts, tensors, lists and tables in what ends with _",
    "docstring": "one imperative line, the formula, shapes and the source, as `attnbench new-method` has it",
}
DRAWN = (
    "let it hang on the place alone, not on a tensor's shape or on earlier calls: by "
    "`attnbench.kernels.draw(self.seed, site, probs[0], site.offset)`, of a cache "
    "`kernels.draw(self.seed, site, prompt.keys[..., 0], prompt.start)`"
)
PLACED = ("causal", "batch", "tiles", "stateless", "generation", "caches")  # where a draw shows
RANDOM = "deterministic"
COMPARING = ("causal", "batch", "tiles", "rebatched", "stateless", "generation", "caches", "gradients")
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
        return "\n".join([f"{self.spec}: {self.verdict}", *map(self._line, self._checks())])

    def _line(self, check: str) -> str:
        status = self._status(check)
        told = _grouped(self._of(check, status))
        if status == "ok":
            told += [f"n/a: {text}" for text in _grouped(self._of(check, "n/a"))]
        return f"  {status:6}  {check:13}  {'; '.join(told)}"


def summary(reports: Sequence[Report]) -> str:
    """Write what failed of several specs by check, each cause once with an example, and how to mend it.

    A spec that does not give the same twice fails most checks that compare: that is said of the first alone.
    """
    found: dict[str, dict[str, list[tuple[str, Outcome]]]] = {}
    draws = {report.spec for report in reports if report._status("seeds") != "n/a"}
    random: dict[str, list[str]] = {report.spec: [] for report in reports if RANDOM in report.failed}
    for report in reports:
        for check in report.failed:
            if report.spec in random and check in COMPARING:
                random[report.spec].append(check)
                continue
            for outcome in report._of(check, "FAILED"):
                cause = re.sub(r"\d[\d.e-]*", "#", _placeless(outcome.detail))
                found.setdefault(check, {}).setdefault(cause, []).append((report.spec, outcome))
    lines: list[str] = []
    for check, causes in found.items():
        lines.append(f"{check}: FAILED")
        for cases in causes.values():
            specs = ", ".join(dict.fromkeys(spec for spec, _ in cases))
            places = ", ".join(dict.fromkeys(case.where for _, case in cases if case.where))
            lines.append(f"  {specs}{f' on {places}' if places else ''}: {cases[0][1].detail}")
        others = dict.fromkeys(each for checks in random.values() for each in checks)
        if check == RANDOM and others:
            lines.append(f"  so these fail too; look again once it is mended: {', '.join(others)}")
        drawing = check in PLACED and {spec for cases in causes.values() for spec, _ in cases} <= draws
        lines += [f"  to mend it: {FIXES[check]}"] if check in FIXES else []
        lines += [f"  to mend what draws: {DRAWN}"] if drawing else []
    return "\n".join(lines)


def _listed(kinds: Iterable[str]) -> str:
    *first, last = dict.fromkeys(kinds)
    return f"{', '.join(first)} and {last}" if first else last


def _placeless(detail: str) -> str:
    return re.sub(r" at \S+ \(\w+ layer \d+\)", "", detail)


def _grouped(outcomes: Iterable[Outcome]) -> list[str]:
    places: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        # the same error in another module of another architecture is one error: the first says where
        places.setdefault(_placeless(outcome.detail), []).append(outcome)
    lines = []
    for alike in places.values():
        where, detail = ", ".join(each.where for each in alike), alike[0].detail
        lines.append(f"{where}{': ' if detail else ''}{detail}" if where else detail)
    return lines
