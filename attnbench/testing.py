"""Prove that a method keeps its promises, on tiny models of five architectures.

>>> from attnbench.testing import check_method
>>> print(check_method("prune80"))  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Sequence

from attnbench.conformance.kit import check_method, expand
from attnbench.conformance.report import Outcome, Report

__all__ = ["Outcome", "Report", "check_method", "check_study", "expand"]


def check_study(text: str, families: Sequence[str] = ()) -> Report:
    """Check a study on tiny random models of five architectures, or on those named.

    Every failure is in the report. Raises UserError for a spec that does not parse.
    """
    from attnbench.conformance import studies

    return studies.check_study(text, families)
