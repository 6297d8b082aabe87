# ruff: noqa: E501, tables of what to try
"""What the fuzz tries: valid specs, records and files, and what a seed makes of them."""

from __future__ import annotations

import copy
import hashlib
import json
import random
from typing import Any

import numpy as np

from attnbench.records import arrays, record
from attnbench.statistics.aggregates import aggregate
from attnbench.statistics.inference import standard_error

MOST = 200_000  # characters of a text
NASTY_TEXTS = (
    "", " ", "\x00", "\x1b[31mred\x1b[0m", "a\nb", "a\rb", "\u202egnp", "x" * MOST, "=1+1", "@SUM(A1)", "|a|b|",
    "<script>", "../../etc/passwd", "/etc/passwd", "~nobody-here/x", "~", "Maße", "\ud800", "NaN", "1e999", "9" * 5000,
    "prune80", "dense", "mask:file=/etc/passwd", "\u2028", "\x85", "\ufeff", "%s%n", "{0}", "١٢", "²",
)  # fmt: skip
NASTY = (
    *NASTY_TEXTS, None, True, False, 0, -1, 1, 0.5, -0.0, 1e308, -1e308, 1e-320, 2**63, 10**300, [], {}, [[]], [None],
    {"": None}, {"a": {"b": 1}}, float("nan"), float("inf"),
)  # fmt: skip
BYTES = (
    b"\x00",
    b"\xff\xfe",
    b"\xc3\x28",
    b"[" * 3000,
    b"{" * 3000,
    b'"',
    b"'",
    b"\n",
    b"\r",
    b",",
    b"9" * 5000,
)
YAML = """task: mine
class: !function attnbench.backends.classification.Classify
custom_dataset: !function attnbench.pocket.text.documents
dataset_kwargs: {task: sentiment}
validation_split: validation
doc_to_text: text
doc_to_target: label
doc_to_choice: [negative, positive]
metric_list: [{metric: acc}]
metadata: {calibration: {split: train, samples: 8}, description: mine, licence: MIT, samples: 100}
"""
YAML_PARTS = (
    "2001-99-99", "!!int ''", "!!timestamp x", "!!bool maybe", "!!binary x", "&a [*a]", "*b", "? [a]\n: b", "!x y", "- a",
    "<<: 3", "9" * 5000, "[" * 2000, "{a: " * 2000, "|\n  text", "!function [a]", "!!python/object:os.system x", "0x",
    "&a [x, x]\nb: &b [*a, *a]", "include: ../x.yaml", "task: [a]", "class: Classify", "1e400", ".nan", "\t", "%TAG", "--- a",
)  # fmt: skip
TOML = """title = "Mine"
about = "What it is about."
methods = ["prune50", "prune80:random", "heads50:entropy", "logquant3+prune80"]
claims = ["prune50 > prune80:random", "prune50 within 1 of dense"]
sweeps = ["prune"]
repeats = 2
seed = 0
margin = 0.01
models = ["pocket-bert", "mine"]
tasks = ["pocket-sentiment"]
limit = 100
"""
TOML_PARTS = (
    "[" * 2000, "a = " + "[" * 3000, "a = " + "{a=" * 2000, "seed = " + "9" * 5000, "seed = 1e400", "margin = nan",
    "margin = -inf", "limit = 99999999999999999999", "repeats = 99999999", "date = 2001-99-99", "[[part]]", "[part]",
    "models = ['~nobody/x']", "models = ['\\u0000']", 'title = "\\u001b[31m"', "models = ['../..']", "part = []",
    "methods = ['mask50:file=/etc/passwd']", "claims = ['a within " + "9" * 400 + " of dense']", "\"a\\nb\" = 1",
)  # fmt: skip
CSV = 'text,label,split\nA good film.,1,test\nA bad one.,negative,test\n"Well, so so",0,train\nFine.,positive,dev\n'
JSONL = "".join(json.dumps({"text": f"text {k}", "label": k % 2, "split": "test"}) + "\n" for k in range(4))
CONFIG = json.dumps({"weight_map": {"a": "model.safetensors"}, "auto_map": {"AutoModel": "own.Model"}})


class Draw:
    """Change what is valid, by one seed."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def spec(self, valid: list[str], words: list[str]) -> str:
        """Return a spec of which something is not as it should be."""
        rng = self.rng
        text = rng.choice(valid)
        for _ in range(rng.choice((0, 1, 1, 1, 2, 4))):
            place = rng.randint(0, len(text))
            part = rng.choice((
                rng.choice(words), rng.choice(valid), rng.choice("+:=-.,09azé \x00\n"), str(rng.choice(NASTY)),
                f":seed={rng.choice(('0', '-1', '1.5', '9' * 30, '9' * 5000))}", "9" * rng.choice((3, 400, 5000)),
                f":on={rng.choice(('encoder', 'cross', 'x', ''))}", f":layers={rng.choice(('0', '0-', '9' * 5000, '1-3'))}",
                f":{rng.choice(words)}={rng.choice(('true', '1', '0.5', 'x', '/etc/passwd'))}",
            ))  # fmt: skip
            text = rng.choice(
                (text[:place] + part + text[place:], text[:place] + part, text + part, f"{text}+{part}")
            )
        return text[:MOST]

    def mutated(self, item: record.Record) -> tuple[bytes, bytes]:
        """Return the two files of a record with something changed."""
        rng = self.rng
        scores = {name: array.copy() for name, array in item.scores.items()}
        if rng.random() < 0.3:
            name = rng.choice(sorted(scores))
            scores[name] = rng.choice((
                np.full_like(scores[name], rng.choice((0, 1, 2, -1))), scores[name][:1], scores[name][:0], scores[name][None],
                scores[name].astype("U3"), scores[name].astype(complex), np.float64(3), scores[name].astype(bool),
                np.where(np.arange(len(scores[name])).reshape(-1, *[1] * (scores[name].ndim - 1)) == 3, np.nan, scores[name]),
                np.full(scores[name].shape, rng.choice((1e308, -1e308, np.inf, 1e-320))), scores[name][::-1],
            ))  # fmt: skip
        packed = arrays.pack(scores)
        if rng.random() < 0.15:
            packed = self.broken(packed)
        body = copy.deepcopy({**item.body(), "schema": record.SCHEMA})
        body["provenance"]["arrays"] = hashlib.sha256(packed).hexdigest()
        for _ in range(rng.choice((0, 1, 1, 1, 2, 4))):
            self._twist(body)
        text = json.dumps(body, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
        return (self.broken(text) if rng.random() < 0.1 else text), packed

    def _twist(self, body: dict[str, Any]) -> None:
        """Change one value somewhere in nested tables, or take it out, or put one in."""
        rng, place = self.rng, body
        while True:
            key = rng.choice(sorted(place)) if place else "new"
            inner = place.get(key)
            if not isinstance(inner, dict) or rng.random() < 0.15:
                break
            place = inner
        what = rng.random()
        if what < 0.1:
            place.pop(key, None)
        elif what < 0.2:
            place[str(rng.choice(NASTY_TEXTS))] = copy.deepcopy(rng.choice(NASTY))
        elif what < 0.22:
            deep: Any = 1
            for _ in range(rng.choice((20, 200, 900))):
                deep = {"a": deep}
            place[key] = deep
        else:
            place[key] = copy.deepcopy(rng.choice(NASTY))

    def text(self, whole: str, parts: tuple[str, ...]) -> bytes:
        """Put a value that nobody means in the place of another, or break a line, or bytes."""
        rng = self.rng
        lines = whole.rstrip("\n").split("\n")
        for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
            place = rng.randrange(len(lines))
            key, mark, _ = lines[place].partition(rng.choice((": ", " = ", ",")))
            if mark and rng.random() < 0.6:
                lines[place] = key + mark + _json(rng.choice(NASTY))
            else:
                lines[place] = rng.choice((rng.choice(parts), lines[place] + rng.choice(parts), ""))
        data = "\n".join(lines).encode("utf-8", "surrogatepass")
        return self.broken(data) if rng.random() < 0.15 else data

    def broken(self, data: bytes) -> bytes:
        """Cut bytes out, or put in some that are no text."""
        rng = self.rng
        for _ in range(rng.randint(1, 3)):
            place, size = rng.randint(0, len(data)), rng.choice((0, 1, 4, 30))
            data = data[:place] + rng.choice((*BYTES, bytes([rng.randrange(256)]))) + data[place + size :]
        return data


def _json(value: object) -> str:
    text = value if isinstance(value, str) else ""
    return json.dumps(value, ensure_ascii=not text.isascii())


def valid(method: str, rng: random.Random, kind: str = "mean") -> record.Record:
    """Return a record in which all is right."""
    scores = np.array([float(rng.random() < 0.8) for _ in range(24)])
    if kind == "pearson":
        scores = np.array([[rng.random(), rng.random()] for _ in range(24)])
    metric = {
        "value": aggregate(kind, scores), "stderr": standard_error(kind, [scores]), "higher_is_better": True,
        "aggregate": kind,
    }  # fmt: skip
    return record.Record(
        {"model": "tiny", "task": "sst2", "method": method}, "measured", metrics={kind: metric},
        receipt={"sites_expected": 2, "sites_hit": 2, "changed": 0.5, "effect": "applied"},
        measured={"sparsity": 0.5, "bits": 3.0, "flops": {"dense": 1e9, "realised": 0.5}, "latency": {"ratio": 1.0}},
        fitted={"scores_": {"layer 0": [0.5, 0.25]}},
        settings={"limit": None, "batch_size": 32, "dtype": "float32", "seed": 0, "notes": ["2 inputs are cut"]},
        environment={"versions": {"torch": "2.13.0"}, "processor": "Xeon", "cores": 2},
        provenance={"source": "folder", "command": "attnbench run", "fingerprints": {"dataset": "0" * 64, "task": "1" * 64}},
        seconds={"fit": 1.0, "evaluate": 2.5}, date="2026-11-20T10:00:00+00:00",
        scores={"doc_id": np.arange(24), kind: scores},
    )  # fmt: skip


def strange(text: str) -> str:
    """Return what stands around the first character that nobody could read."""
    place = next(k for k, each in enumerate(text) if not (each.isprintable() or each == "\n"))
    return repr(text[max(0, place - 60) : place + 20])
