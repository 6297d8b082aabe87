"""Check that methods and studies keep their promises, on tiny models of five architectures."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from attnbench.errors import say, screen_width, wrap
from attnbench.inputs.settings import check_device
from attnbench.matrix import console

if TYPE_CHECKING:
    from attnbench.conformance.report import Report

DETAILS = 25  # columns before what a check saw


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
            print(wrap(line, screen_width()))
    return 1 if bad else 0


def _tell(report: Report, whole: bool) -> None:
    """Print a report at once: its verdict, or what every check saw."""
    say(f"{report.spec}: {report.verdict}", sys.stdout)
    for line in str(report).splitlines()[1:] if whole else ():
        say(line, sys.stdout, DETAILS)
