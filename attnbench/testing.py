"""Prove that a method keeps its promises, on tiny models of five architectures.

>>> from attnbench.testing import check_method
>>> print(check_method("prune80"))  # doctest: +SKIP
"""

from __future__ import annotations

from attnbench.conformance.kit import check_method, expand
from attnbench.conformance.report import Outcome, Report

__all__ = ["Outcome", "Report", "check_method", "expand"]
