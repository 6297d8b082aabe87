"""Costs of a record that was measured without them: its scores hold, so that nothing is evaluated again."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from attnbench.errors import UserError, described, own_fault
from attnbench.inputs.settings import Settings
from attnbench.matrix.bench import Bench
from attnbench.matrix.console import Listener
from attnbench.matrix.ledger import Ledger
from attnbench.measures.finite import require_finite
from attnbench.methods.protocol import Method
from attnbench.records import provenance
from attnbench.records.record import Record


def wanting(old: Record, settings: Settings) -> bool:
    """Tell whether a run measures costs that a record lacks."""
    return settings.measure and old.status == "measured" and "flops" not in old.measured


def costs(bench: Bench) -> Any:
    """Return what measures the methods of a column: dense is measured now."""
    from attnbench.measures.cost import Costs
    from attnbench.measures.measure import SAMPLES

    return Costs(bench.model, bench.batches(SAMPLES), bench.batches(bench.settings.batch_size)[0])


def added(
    old: Record,
    methods: Sequence[Method],
    learn: Callable[[], float],
    cost: Callable[[], dict[str, Any]],
    left_behind: Callable[[], str | None],
    ledger: Ledger,
    listener: Listener,
    strict: bool,
) -> bool:
    """Add costs to a record; False, and a line, where that fails: the record stays as it is.

    `learn` fits and returns the seconds that a fit takes, `cost` measures. Date, environment and seconds of
    the record stay those of its scores; beside the costs stands when, where and in how many seconds they were
    measured.
    """
    why = None
    try:
        with ledger.measuring(old), own_fault(methods):
            fit, began = learn(), time.perf_counter()
            found = cost()
            ended = time.perf_counter()
            require_finite(found)
    except (UserError, KeyboardInterrupt):
        raise
    except BaseException as error:
        if strict:
            traceback.print_exc()
        why = described(error)
    finally:
        left = left_behind()
    if why or left:
        cell = " · ".join(old.cell.values())
        listener.line(f"{cell}: its score stays, without costs: {why or f'not restored: {left}'}")
        return False
    old.measured |= found
    old.measured["costs"] = {
        "date": provenance.now(),
        "environment": provenance.environment(),
        "seconds": {"fit": fit, "measure": ended - began},
    }
    old.settings = old.settings | {"measure": True}
    ledger.write(old)
    return True
