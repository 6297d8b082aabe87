"""Check a spec: its source once, its promises on every architecture it applies to."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any

from attnbench.conformance.report import Outcome, Report
from attnbench.errors import NotApplicable, UserError
from attnbench.methods import spec
from attnbench.methods.plugins import registry
from attnbench.methods.protocol import Method, needs_fit

NEEDED = ("sites", "finite")  # where one of these fails on an architecture, the others would only repeat it


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
        report.outcomes.append(outcome_of(name, "", functools.partial(check, terms)))
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
    from attnbench.conformance.subject import Subject
    from attnbench.engine.applicable import require_sites
    from attnbench.engine.serving.spies import spied
    from attnbench.engine.whole import Process

    places = []
    with torch.random.fork_rng():
        for family in families or tiny.FAMILIES:
            report.kinds[family] = tiny.FAMILIES[family].kind
            subject = Subject(family, terms, device)

            def prepare(subject: Subject = subject) -> str:
                require_sites(subject.shared, terms)
                methods = copy.deepcopy(terms)
                subject.fit(subject.model(), methods)
                subject.fitted = methods
                subject.run(subject.sample(0), spied(subject.methods(), lambda *_: None))
                return "fits and runs" if any(map(needs_fit, terms)) else "runs"

            torch_before = Process(subject.shared)
            first = outcome_of("runs", family, prepare)
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
                    outcome = outcome_of(name, family, functools.partial(check, subject, 0))
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


def outcome_of(name: str, where: str, check: Callable[[], str]) -> Outcome:
    """Return what a check said, or how it failed or did not apply."""
    try:
        return Outcome(name, where, "ok", check())
    except NotApplicable as reason:
        return Outcome(name, where, "n/a", str(reason))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        from attnbench.conformance.subject import Fault, told

        return Outcome(name, where, "FAILED", str(error) if isinstance(error, Fault) else told(error))


def expand(text: str) -> list[str]:
    """Return the specs to check for a spec or for a method's name alone: its examples, variants included."""
    known: dict[str, Any] = registry().methods
    named = [name for name in sorted(known) if name == text or name.partition(":")[0] == text]
    return [example for name in named for example in known[name].examples] or [text]
