"""What a study promises: it is registered and described, and what it finds depends on no batch or padding."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from attnbench.conformance import tiny
from attnbench.conformance.kit import outcome_of
from attnbench.conformance.report import Outcome, Report
from attnbench.conformance.subject import Fault
from attnbench.errors import NotApplicable
from attnbench.methods import spec
from attnbench.methods.describe import docstring
from attnbench.methods.plugins import registry
from attnbench.methods.study import Study, alone
from attnbench.methods.views import TEXT, Batch
from attnbench.studies.passes import Seen, conduct
from attnbench.studies.reading import Reading

if TYPE_CHECKING:
    from pandas import DataFrame

METHOD = "prune80"
LENGTHS = (12, 12, 9, 7, 12, 5)
# means over a few hundred probabilities, of which rounding may move one over the edge of a bin
CLOSE = 5e-3
Tables = dict[str, dict[str, "DataFrame"]]


class Numbers:
    """A tokenizer of numbers, for models that know no words."""

    all_special_ids = (tiny.PAD, tiny.BOS, tiny.EOS)
    is_fast, model_max_length = False, tiny.LONGEST

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        """Name each token by its number."""
        return [f"t{token}" for token in ids]

    def decode(self, ids: Iterable[int]) -> str:
        """Write tokens as their names."""
        return " ".join(f"t{token}" for token in ids)


def check_study(text: str, families: Sequence[str] = ()) -> Report:
    """Check a study on tiny random models of five architectures, or on those named.

    Every failure is in the report. Raises UserError for a spec that does not parse.
    """
    study = spec.parse_study(text)
    report = Report(text)
    for name, check in (("spec", _registered), ("docstring", _described)):
        report.outcomes.append(outcome_of(name, "", functools.partial(check, study)))
    if alone(type(study)) or TEXT not in type(study).data:
        told = "brings its own texts and passes: its own tests hold it"
        report.outcomes.append(Outcome("batch", "", "n/a", told))
        return report
    ran = []
    for family in families or tiny.FAMILIES:
        report.kinds[family] = tiny.FAMILIES[family].kind
        whole: list[Tables] = []
        outcome = outcome_of("runs", family, functools.partial(_runs, study, family, whole))
        report.outcomes.append(outcome)
        ran.append(outcome.status != "n/a")
        for promise, kept in (("batch", _batched), ("padding", _padded), ("tiles", _tiled)):
            if whole:
                bound = functools.partial(kept, study, family, whole[0])
                report.outcomes.append(outcome_of(promise, family, bound))
            else:
                report.outcomes.append(Outcome(promise, family, "n/a", outcome.detail or "does not run"))
    if not any(ran):
        report.outcomes.append(Outcome("runs", "", "FAILED", "applies to none of the architectures"))
    return report


def expanded(text: str) -> list[str]:
    """Return the study specs that a name stands for: its examples; none where it names no study."""
    known = registry().studies
    named = [name for name in sorted(known) if name == text or name.partition(":")[0] == text]
    examples = [example for name in named for example in known[name].examples]
    return examples or ([text] if text.split(":")[0].rstrip("0123456789.") in known else [])


def _registered(study: Study) -> str:
    for example in type(study).examples:
        if spec.format([spec.parse_study(example)]) != example:
            raise Fault(f"its example {example} is written {spec.format([spec.parse_study(example)])}")
    if len(type(study).shown) > 3:
        raise Fault("it shows more than three columns")
    return ", ".join(type(study).examples)


def _described(study: Study) -> str:
    _, parts = docstring(type(study))
    for part in ("source", "shapes"):
        if part not in parts:
            raise Fault(f"its docstring has no {part.capitalize()}:")
    return "formula, shapes, source"


def _runs(study: Study, family: str, whole: list[Tables]) -> str:
    whole.append(_tables(study, family, [tiny.samples(family, LENGTHS)]))
    shown, tables = type(study).shown, whole[0]
    for method, given in tables.items():
        for name, table in given.items():
            if not table.index.is_unique:
                raise Fault(f"table {name} of {method} has two rows of one name")
        if shown and "heads" in given and not {*shown} <= {*given["heads"].columns}:
            raise Fault(f"it shows {', '.join(shown)}, which the table heads has not all")
    return "runs"


def _batched(study: Study, family: str, whole: Tables) -> str:
    return _alike(_tables(study, family, [[each] for each in tiny.samples(family, LENGTHS)]), whole, "alone")


def _padded(study: Study, family: str, whole: Tables) -> str:
    return _alike(
        _tables(study, family, [tiny.samples(family, LENGTHS)], wider=5), whole, "with more padding"
    )


def _tiled(study: Study, family: str, whole: Tables) -> str:
    from unittest import mock

    from attnbench.engine.serving import tiles

    with mock.patch.dict(tiles.TILE_BYTES, dict.fromkeys(tiles.TILE_BYTES, 1)):
        found = _tables(study, family, [tiny.samples(family, LENGTHS)])
    return _alike(found, whole, "in tiles of one query row")


def _tables(study: Study, family: str, batches: Sequence[Sequence[Any]], wider: int = 0) -> Tables:
    model = tiny.build(family)
    reading, given = Reading(model, Numbers()), list[Batch]()
    for samples in batches:
        inputs = tiny.batch(family, samples, wider=wider)
        given.append(reading.taken(inputs, sum(len(each.samples) for each in given)))
    methods = {METHOD: spec.parse(METHOD)}
    with torch.random.fork_rng():
        (seen,) = conduct(model, [copy.deepcopy(study)], reading, methods, given)
    return _found(seen)


def _found(seen: Seen) -> Tables:
    if seen.absent:
        raise NotApplicable(seen.absent)
    if seen.failed:
        raise Fault(seen.failed)
    return seen.tables()


def _alike(found: Tables, expected: Tables, how: str) -> str:
    import numpy as np

    worst = 0.0
    for method, tables in expected.items():
        for name, table in tables.items():
            other = found[method].get(name)
            if other is None or set(other.index) != set(table.index):
                raise Fault(f"{how}: table {name} of {method} has other rows")
            one, two = (each.astype(float).to_numpy() for each in (table, other.reindex(table.index)))
            if (np.isfinite(one) != np.isfinite(two)).any():
                raise Fault(f"{how}: table {name} of {method} has other empty cells")
            size = max(1.0, float(np.abs(one[np.isfinite(one)]).max(initial=0)))
            gap = float(np.abs(np.where(np.isfinite(one), one - two, 0)).max(initial=0)) / size
            if gap > CLOSE:
                raise Fault(f"{how}: table {name} of {method} differs by {gap:.2g}, {CLOSE:g} is allowed")
            worst = max(worst, gap)
    return f"{worst:.1g}"
