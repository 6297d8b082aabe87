"""What a record may hold: type and range of every field that is read, in one table. Imports nothing heavy.

A field may be absent unless it is required; one that the table does not name may hold anything, so that
what is measured or set later needs no other schema.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attnbench.errors import one_line
from attnbench.records.inert import clean

if TYPE_CHECKING:
    import numpy as np

STATUSES = ("measured", "failed", "not applicable")
# how a metric is computed from its array -> the array's columns; see aggregates
COLUMNS: dict[str, tuple[int, ...]] = {
    "mean": (), "mcc": (4,), "f1": (4,), "pearson": (2,), "spearman": (2,), "perplexity": (2,), "bleu": (10,),
    "chrf": (18,), "ratio": (2,),
}  # fmt: skip
NOT_ALWAYS = ("mcc", "f1", "pearson", "spearman", "ratio")  # of these a value may be null: not defined
FIDELITY = ("flips", "answers-changed", "kl")  # beside the metrics, of a cell with a method
FAITHFUL = tuple(f"fidelity {name}" for name in FIDELITY)  # their arrays, of numbers from 0
PLACED = (
    "depth",
    "length",
)  # arrays of texts that are asked about: where, from 0 to 1, and of how many tokens
LARGEST = 1e100  # of a score: sums of squares of larger ones are no floats
ABSENT = object()
LONGEST = 40


@dataclass(frozen=True)
class Kind:
    """What a value has to be, in words and as a test."""

    words: str
    fits: Callable[[Any], bool]
    required: bool = False

    def or_null(self) -> Kind:
        return Kind(f"{self.words} or null", lambda value: value is None or self.fits(value), self.required)

    def needed(self) -> Kind:
        return Kind(self.words, self.fits, required=True)


def _number(low: float = -sys.float_info.max, high: float = sys.float_info.max) -> Callable[[Any], bool]:
    # true is no number; nan is in no range
    return lambda value: type(value) in (int, float) and low <= value <= high


def _whole(low: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= sys.maxsize


def _is_text(value: Any) -> bool:
    # half a surrogate pair can be in JSON and in no file
    return isinstance(value, str) and (value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value))


def _one_of(*words: str) -> Kind:
    return Kind(f"one of {', '.join(words)}", lambda value: isinstance(value, str) and value in words)


TEXT = Kind("a text", _is_text)
NAME = Kind("a text that is not empty", lambda value: _is_text(value) and value != "").needed()
TEXTS = Kind("a list of texts", lambda value: isinstance(value, list) and all(map(_is_text, value)))
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
NUMBER = Kind("a finite number", _number())
AMOUNT = Kind("a number of at least 0", _number(0))
SHARE = Kind("a number from 0 to 1", _number(0, 1))
WHOLE = Kind("a whole number", _whole(-sys.maxsize))
COUNT = Kind("a whole number of at least 0", _whole(0))
POSITIVE = Kind("a whole number of at least 1", _whole(1))
ANY = Kind("anything", lambda value: True)

Table = dict[str, "Kind | Table"]
EACH = "*"  # stands for every name

TABLE: Table = {
    "cell": {"model": NAME, "task": NAME, "method": NAME},
    "status": _one_of(*STATUSES),
    "error": TEXT.or_null(),
    "metrics": {
        EACH: {
            "value": NUMBER.or_null().needed(), "stderr": AMOUNT.or_null(), "higher_is_better": FLAG,
            "aggregate": _one_of(*COLUMNS),
        }
    },
    "receipt": {
        "sites_expected": COUNT, "sites_hit": COUNT, "changed": SHARE,
        "effect": _one_of("applied", "no effect"), "cut": SHARE, "notes": {EACH: COUNT},
    },
    "measured": {
        "sparsity": SHARE, "nominal": SHARE, "bits": AMOUNT.or_null(), "entropy": AMOUNT.or_null(),
        "heads": SHARE, "divergence": AMOUNT.or_null(), "samples": COUNT, "cache": SHARE, "kv": AMOUNT,
        "fidelity": {
            EACH: {"value": AMOUNT.needed(), "low": AMOUNT.needed(), "high": AMOUNT.needed()},
        },
        "flops": {"dense": AMOUNT, "simulated": SHARE.or_null(), "realised": AMOUNT.or_null()},
        "latency": {
            "ratio": AMOUNT, "low": AMOUNT, "high": AMOUNT, "seconds": AMOUNT, "rounds": COUNT,
            "samples": COUNT, "tokens": COUNT, "threads": COUNT, "why": TEXT,
        },
        "first": {
            "ratio": AMOUNT, "low": AMOUNT, "high": AMOUNT, "seconds": AMOUNT, "rounds": COUNT,
            "samples": COUNT, "tokens": COUNT, "threads": COUNT, "why": TEXT,
        },
        "held": {"dense": AMOUNT, "ratio": AMOUNT},
        "memory": {"dense": AMOUNT, "ratio": AMOUNT},
        "costs": {"date": TEXT, "environment": {"versions": {EACH: TEXT}}, "seconds": {EACH: AMOUNT}},
        "floor": {
            "batch_size": POSITIVE.needed(), "threads": POSITIVE.needed(), "samples": COUNT.needed(),
            "metrics": {EACH: {"value": NUMBER.or_null().needed(), "moved": COUNT.needed()}},
        },
    },
    "fitted": {EACH: ANY},
    "settings": {
        "limit": POSITIVE.or_null(), "batch_size": POSITIVE, "batch_tokens": POSITIVE.or_null(),
        "seed": WHOLE, "device": TEXT, "device_map": TEXT,
        "dtype": _one_of("float32", "float64", "bfloat16", "float16"),
        "calibration": TEXT.or_null(), "trust_remote_code": FLAG, "measure": FLAG, "notes": TEXTS,
        "max_length": POSITIVE.or_null(), "calibration_samples": POSITIVE, "calibration_tokens": POSITIVE,
        "num_fewshot": COUNT, "apply_chat_template": FLAG,
        "fewshot_as_multiturn": FLAG, "system_instruction": TEXT, "gen_kwargs": TEXT,
    },
    "environment": {"versions": {EACH: TEXT}},
    "provenance": {
        "model": TEXT, "source": TEXT, "weights": TEXT, "fingerprints": {EACH: TEXT.or_null()},
        "places": {EACH: TEXT},
        "trust_remote_code": FLAG, "plugins": TEXTS, "code": TEXT.or_null(), "check": TEXT,
        "command": TEXT,
        "identity": TEXT.or_null(), "arrays": TEXT.needed(),
    },
    "seconds": {EACH: AMOUNT},
    "date": TEXT,
}  # fmt: skip


def _test(table: Table) -> Callable[[Any], bool]:
    """Make of a table what only tells whether values are as it says: it looks at those that are there."""
    inner = {name: _test(kind) if isinstance(kind, dict) else kind.fits for name, kind in table.items()}
    needed = [name for name, kind in table.items() if isinstance(kind, Kind) and kind.required]
    each = inner.get(EACH)

    def fits(values: Any) -> bool:
        if type(values) is not dict:
            return False
        for name, value in values.items():
            test = inner.get(name, each)
            if test is not None and not test(value):
                return False
        return all(name in values for name in needed)

    return fits


fits = _test(TABLE)  # nearly every record holds no fault, and to look for one by name takes longer


def first_fault(body: dict[str, Any]) -> str | None:
    """Name the first field that is not what the table says, or return None."""
    told = _problem("", body, TABLE)
    return told and one_line(told)


def problem(body: dict[str, Any]) -> str | None:
    """Say what is wrong with a record's fields, or return None."""
    told = None if fits(body) else first_fault(body)
    told = told or next(_undefined(body["metrics"]), None)
    extra = sorted(set(body["cell"]) - {"model", "task", "method"}) if told is None else []
    return f"cell has the unknown {', '.join(extra)}" if extra else told


def _problem(path: str, values: Any, table: Table) -> str | None:
    if type(values) is not dict:
        return f"{path[:-1]} is {_shown(values)}, not a table of values"
    for key, kind in table.items():
        for name in values if key == EACH else (key,):
            value = values.get(name, ABSENT)
            if isinstance(kind, dict):
                told = None if value is ABSENT else _problem(f"{path}{name} ", value, kind)
                if told is not None:
                    return told
            elif value is ABSENT:
                if kind.required:
                    return f"{path}{name} is missing"
            elif not kind.fits(value):
                return f"{path}{name} is {_shown(value)}, not {kind.words}"
    return None


def _undefined(metrics: dict[str, Any]) -> Iterator[str]:
    """Yield a line for each metric that has no value and is computed as one that always has one."""
    for name, metric in metrics.items():
        if metric["value"] is None and metric.get("aggregate", "mean") not in NOT_ALWAYS:
            yield f"metrics {name} value is None, not {NUMBER.words}"


def _shown(value: Any) -> str:
    return clean(repr(value), LONGEST)


def array_problem(metrics: dict[str, Any], scores: dict[str, np.ndarray]) -> str | None:
    """Name the first array that is no score a sample of its metric, or return None."""
    ids = scores.get("doc_id")
    if ids is not None and (ids.ndim != 1 or ids.dtype.kind not in "iu"):
        return "doc_id is no list of whole numbers"
    for name, metric in metrics.items():
        array = scores.get(name)
        if array is None:
            continue
        if array.dtype.kind not in "biuf" or array.ndim < 1:
            return f"{name} is no list of numbers"
        if (abs(array) > LARGEST).any():
            return f"{name} holds a number beyond {LARGEST:.0e}"
        kind = metric.get("aggregate", "mean")
        if array.shape[1:] != COLUMNS[kind]:
            return f"{name} is of shape {array.shape}, which is not what '{kind}' is computed from"
        if ids is not None and len(array) != len(ids):
            return f"{name} has {len(array)} scores for {len(ids)} samples"
    for name in (*FAITHFUL, *PLACED):
        array = scores.get(name)
        if array is None:
            continue
        if array.dtype.kind not in "biuf" or array.ndim != 1 or not ((array >= 0) & (array <= LARGEST)).all():
            return f"{name} is no list of numbers from 0 on"
        if ids is not None and len(array) != len(ids):
            return f"{name} has {len(array)} numbers for {len(ids)} samples"
    return None
