"""Check that methods and studies keep their promises, on tiny models of five architectures."""

from __future__ import annotations

import argparse
import textwrap
from typing import TYPE_CHECKING, Any

from attnbench.inputs.settings import check_device
from attnbench.matrix import console
from attnbench.records.inert import WIDTH, screen_width

if TYPE_CHECKING:
    from attnbench.conformance.report import Report

WHOLE: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}  # no word is cut


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `attnbench check`."""
    parser.add_argument(
        "specs", nargs="+", metavar="SPEC", help="a spec, as in prune80; a name alone checks its examples"
    )
    parser.add_argument("--device", default="cpu", metavar="NAME", help="cpu or cuda (cpu)")


def execute(options: argparse.Namespace) -> int:
    """Check every spec: a line for one that is well, then what failed by check. Returns 1 where any did."""
    from attnbench.conformance.kit import check_method, expand

    check_device(options.device)
    console.quiet(options.verbose)
    from attnbench.conformance.report import summary
    from attnbench.conformance.studies import check_study, expanded
    from attnbench.methods import spec, verdicts

    reports = []
    studies = {given: expanded(given) for given in options.specs}
    for text in [each for found in studies.values() for each in found]:
        reports.append(check_study(text))
        _tell(reports[-1], options.verbose)
    for text in [each for given in options.specs if not studies[given] for each in expand(given)]:
        report = check_method(text, device=options.device)
        verdicts.keep(spec.parse(text), report.failed)
        reports.append(report)
        _tell(report, options.verbose)
    bad = [report for report in reports if not report.ok]
    if bad:
        print()
        for line in summary(bad).splitlines():
            indent = " " * (len(line) - len(line.lstrip()) + 2)
            print(textwrap.fill(line, min(WIDTH, screen_width()), subsequent_indent=indent, **WHOLE))
    return 1 if bad else 0


def _tell(report: Report, whole: bool) -> None:
    """Print a report at once: its verdict, or what every check saw."""
    print(report if whole else f"{report.spec}: {report.verdict}", flush=True)
