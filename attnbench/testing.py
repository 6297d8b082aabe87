"""Prove that a method keeps its promises, on tiny models of five architectures.

>>> from attnbench.testing import check_method
>>> print(check_method("prune80"))  # doctest: +SKIP
"""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from attnbench.errors import NotApplicable, UserError
from attnbench.methods import spec
from attnbench.methods.plugins import registry
from attnbench.methods.protocol import Method, needs_fit

Status = Literal["ok", "FAILED", "n/a"]
NEEDED = ("sites", "finite")  # where one of these fails on an architecture, the others would only repeat it

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


def check_method(
    method: str | Method | Sequence[Method], *, device: str = "cpu", families: Sequence[str] = ()
) -> Report:
    """Check a spec or methods on tiny random models of five architectures, or on those named.

    Every failure is in the report, nothing is raised for it. Raises UserError for a spec that does not parse.
    """
    if isinstance(method, str):
        terms = spec.parse(method)
    else:
        terms = (method,) if isinstance(method, Method) else tuple(method)
    if not terms:
        raise UserError("dense is the unmodified model: there is nothing to check.")
    report = Report(method if isinstance(method, str) else _format(terms))
    for name, check in _source_checks().items():
        report.outcomes.append(_outcome(name, "", functools.partial(check, terms)))
    _check_families(report, terms, device, families)
    return report


def _format(terms: Sequence[Method]) -> str:
    try:
        return spec.format(terms)
    except Exception:
        return "+".join(type(term).__name__ for term in terms)


def _check_families(report: Report, terms: tuple[Method, ...], device: str, families: Sequence[str]) -> None:
    import torch

    from attnbench.conformance import tiny
    from attnbench.conformance.subject import Subject, spied
    from attnbench.engine.applicable import require_sites
    from attnbench.engine.whole import Process

    places = []
    with torch.random.fork_rng():
        for family in families or tiny.FAMILIES:
            subject = Subject(family, terms, device)

            def prepare(subject: Subject = subject) -> str:
                require_sites(subject.shared, terms)
                methods = copy.deepcopy(terms)
                subject.fit(subject.model(), methods)
                subject.fitted = methods
                subject.run(subject.sample(0), spied(subject.methods(), lambda *_: None))
                return "fits and runs" if any(map(needs_fit, terms)) else "runs"

            torch_before = Process(subject.shared)
            first = _outcome("runs", family, prepare)
            torch_before.restore()
            report.outcomes.append(first)
            blocked = (
                first.detail if first.status == "n/a" else "does not run" if first.status == "FAILED" else ""
            )
            places.append(first.status != "n/a")
            for name, check in _family_checks().items():
                if blocked:
                    outcome = Outcome(name, family, "n/a", blocked)
                else:
                    outcome = _outcome(name, family, functools.partial(check, subject, 0))
                    torch_before.restore()  # of what a method left behind `restored` tells, and it alone
                if name in NEEDED and outcome.status == "FAILED":
                    blocked = f"{name} failed"
                report.outcomes.append(outcome)
    if not any(places):
        report.outcomes.append(Outcome("runs", "", "FAILED", "applies to none of the architectures"))


def _source_checks() -> dict[str, Any]:
    from attnbench.conformance import source

    return {
        "spec": source.round_trip,
        "docstring": source.docstring,
        "imports": source.imports,
        "stages": source.stages,
    }


def _family_checks() -> dict[str, Any]:
    from attnbench.conformance import integrity, learned, promises, strength

    return {
        "sites": promises.sites_hit,
        "finite": promises.finite,
        "causal": promises.causal,
        "batch": promises.batched,
        "tiles": promises.tiled,
        "deterministic": learned.deterministic,
        "seeds": learned.reseeded,
        "recorded": learned.recorded,
        "rebatched": learned.rebatched,
        "stateless": learned.stateless,
        "restored": integrity.restored,
        "realized": integrity.realized,
        "generation": promises.generation,
        "gradients": promises.gradients,
        "effect": strength.effect,
        "dtypes": strength.dtypes,
        "zero": strength.zero_strength,
        "growth": strength.growth,
    }


def _outcome(name: str, where: str, check: Callable[[], str]) -> Outcome:
    try:
        return Outcome(name, where, "ok", check())
    except NotApplicable as reason:
        return Outcome(name, where, "n/a", str(reason))
    except (Exception, SystemExit) as error:
        from attnbench.conformance.subject import Fault, told

        return Outcome(name, where, "FAILED", str(error) if isinstance(error, Fault) else told(error))


def expand(text: str) -> list[str]:
    """Return the specs to check for a spec or for a method's name alone: its examples, variants included."""
    known: dict[str, Any] = registry().methods
    named = [name for name in sorted(known) if name == text or name.partition(":")[0] == text]
    return [example for name in named for example in known[name].examples] or [text]


def check(options: Any) -> int:
    """Check every spec and print its report. Returns 0, or 1 where a check failed."""
    from attnbench.matrix import console
    from attnbench.matrix.bench import check_device

    check_device(options.device)
    console.quiet(options.verbose)
    bad = 0
    for text in [each for given in options.specs for each in expand(given)]:
        report = check_method(text, device=options.device)
        bad += not report.ok
        print(report, flush=True)
    return 1 if bad else 0
