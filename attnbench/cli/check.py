"""Check that methods and studies keep their promises, on tiny models of five architectures."""

from __future__ import annotations

import argparse

from attnbench.inputs.settings import check_device
from attnbench.matrix import console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `attnbench check`."""
    parser.add_argument("specs", nargs="+", metavar="SPEC", help="as in prune80; a name alone: its examples")
    parser.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda (cpu)")


def execute(options: argparse.Namespace) -> int:
    """Check every spec and print its report. Returns 0, or 1 where a check failed."""
    from attnbench.conformance.kit import check_method, expand

    check_device(options.device)
    console.quiet(options.verbose)
    from attnbench.conformance.studies import check_study, expanded
    from attnbench.methods import spec, verdicts

    bad = 0
    studies = {given: expanded(given) for given in options.specs}
    for text in [each for found in studies.values() for each in found]:
        report = check_study(text)
        bad += not report.ok
        print(report, flush=True)
    for text in [each for given in options.specs if not studies[given] for each in expand(given)]:
        report = check_method(text, device=options.device)
        verdicts.keep(spec.parse(text), report.failed)
        bad += not report.ok
        print(report, flush=True)
    return 1 if bad else 0
