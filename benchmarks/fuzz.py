# ruff: noqa: E501, tables of what to try
"""Draw specs, records and files that nobody would write, and see that each is read or refused in one line.

    python benchmarks/fuzz.py --specs 100000 --records 20000 --files 5000

Valid ones are mutated, by a seed. Anything but UserError or NotApplicable, a refusal of 400 characters or
more, a control character in what is shown or a case of more than SECONDS is a fault; status 1 where one is
found. Ends with what was drawn, how much of it was refused, and the time.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import hashlib
import importlib
import io
import json
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from attnbench.backends import classification
from attnbench.boards import board, checks, suite
from attnbench.boards.formats import exports
from attnbench.boards.tables import leaderboard
from attnbench.cli.main import main as command
from attnbench.errors import NotApplicable, UserError, message
from attnbench.inputs import hub, tasks
from attnbench.matrix import plan
from attnbench.methods import families, spec
from attnbench.methods.plugins import registry
from attnbench.records import arrays, record
from attnbench.statistics import pairs
from attnbench.statistics.aggregates import aggregate
from attnbench.statistics.inference import standard_error

LONGEST, SECONDS, MOST = 400, 20, 200_000
SHOWN = 10  # faults with their traceback
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


class Slow(Exception):
    """A case that takes longer than SECONDS."""


class Fuzz:
    """Draws by one seed; keeps what came of it."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.rng, self.folder = random.Random(seed), folder
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []

    def attempt(self, kind: str, case: object, read: Callable[[], object]) -> None:
        """Run one case: what it raises and what it shows are held against the promise."""
        self.counts[kind] += 1
        out, err = io.StringIO(), io.StringIO()
        try:
            with _watched(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                status = read()
        except (UserError, NotApplicable) as error:
            self.counts[f"{kind} refused"] += 1
            told = [f"attnbench: {error}"]
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            self._fault(kind, case, "".join(traceback.format_exception(error)[-8:])[-3000:])
            return
        else:
            self.counts[f"{kind} refused"] += status == 2
            told = err.getvalue().split("\n")
            if any(not (each.isprintable() or each == "\n") for each in out.getvalue()):
                self._fault(kind, case, f"a control character is shown: {_strange(out.getvalue())}")
        for line in told:
            if len(line) >= LONGEST or not line.isprintable():
                self._fault(kind, case, f"a refusal of {len(line)} characters: {line[:200]!r}")

    def _fault(self, kind: str, case: object, told: str) -> None:
        self.faults.append(f"{kind}: {case!r:.600}\n{told}")

    # specs

    def specs(self, count: int) -> None:
        names = sorted(registry().methods)
        valid = [example for name in names for example in registry().methods[name].examples]
        words = sorted({word for text in valid for word in text.replace("+", ":").split(":")})
        for _ in range(count):
            text = self._spec(valid, words)
            self.attempt("specs", text, lambda text=text: _read_spec(text))

    def _spec(self, valid: list[str], words: list[str]) -> str:
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

    # records

    def records(self, count: int) -> None:
        good = [_valid("dense", self.rng), _valid("uniform", self.rng), _valid("prune80", self.rng)]
        good.append(_valid("prune50", self.rng, "pearson"))
        root = self.folder / "records"
        for item in good[:2]:
            record.write(root, item)
        for k in range(count):
            item = self.rng.choice(good)
            name = self.rng.choice(("fuzzed", "dense", "uniform")) if k % 10 == 0 else "fuzzed"
            path = root / "tiny" / "sst2" / f"{name}.json"
            body, packed = self._mutated(item)
            path.write_bytes(body)
            path.with_suffix(".npz").write_bytes(packed)
            self.attempt("records", body[:400], lambda path=path: self._shown(root, path))
            if name != "fuzzed":
                record.write(root, good[name == "uniform"])

    def _mutated(self, item: record.Record) -> tuple[bytes, bytes]:
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
            packed = self._broken(packed)
        body = copy.deepcopy({**item.body(), "schema": record.SCHEMA})
        body["provenance"]["arrays"] = hashlib.sha256(packed).hexdigest()
        for _ in range(rng.choice((0, 1, 1, 1, 2, 4))):
            self._twist(body)
        text = json.dumps(body, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
        return (self._broken(text) if rng.random() < 0.1 else text), packed

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

    def _shown(self, root: Path, path: Path) -> None:
        found = list(record.read_all(root))
        self.counts["records read"] += any(item.file == str(path) for item in found)
        told = list(checks.problems(root))
        print(*map(message, told), sep="\n")
        print(*leaderboard_of(found, self.rng.random() < 0.2), sep="\n")
        for method in ("fuzzed", "prune80"):
            with contextlib.suppress(UserError):
                print("\n".join(pairs.report(found, method, "dense", None, None)))

    # files

    def files(self, count: int) -> None:
        importlib.import_module("attnbench.matrix.verify")  # the first import takes longer than any case
        makers = (self._yaml, self._toml, self._csv, self._jsonl, self._json)
        for k in range(count):
            makers[k % len(makers)]()

    def _text(self, whole: str, parts: tuple[str, ...]) -> bytes:
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
        return self._broken(data) if rng.random() < 0.15 else data

    def _broken(self, data: bytes) -> bytes:
        rng = self.rng
        for _ in range(rng.randint(1, 3)):
            place, size = rng.randint(0, len(data)), rng.choice((0, 1, 4, 30))
            data = data[:place] + rng.choice((*BYTES, bytes([rng.randrange(256)]))) + data[place + size :]
        return data

    def _file(self, name: str, data: bytes) -> Path:
        path = self.folder / "files" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        return path

    def _yaml(self) -> None:
        path = self._file("mine.yaml", data := self._text(YAML, YAML_PARTS))
        self.attempt("yaml", data, lambda: (tasks.find(str(path)), plan.check_tasks([str(path)]))[:0])
        self.attempt("yaml", data, lambda: command(["tasks", "--include-path", str(path.parent)]))

    def _toml(self) -> None:
        path = self._file("mine.toml", data := self._text(TOML, TOML_PARTS))
        self.attempt(
            "toml",
            data,
            lambda: command(["run", str(path), "--dry-run", "--records", str(self.folder / "none")]),
        )
        self.attempt("toml", data, lambda: _suite(path))

    def _csv(self) -> None:
        path = self._file("mine.csv", data := self._text(CSV, ('"', "1,2,3", "text,text", "label", ",")))
        self._own("csv", path, data)

    def _jsonl(self) -> None:
        parts = (
            "[" * 3000,
            '{"a":' * 2000,
            "{}",
            '{"text": 1}',
            '{"text": "a", "label": ' + "9" * 5000 + "}",
            "[]",
            "1",
        )
        more = tuple('{"text": "a", "label": ' + json.dumps(value) + "}" for value in NASTY)
        path = self._file(
            "mine.jsonl",
            data := self._text(
                JSONL, (*parts, *more, '{"text": "a", "label": ' + "[" * 900 + "]" * 900 + "}")
            ),
        )
        self._own("jsonl", path, data)

    def _own(self, kind: str, path: Path, data: bytes) -> None:
        usual = ("negative", "positive")
        labels = self.rng.choice((usual, usual, usual, usual, ("us", "US", "no"), ("a", "a"), ("number",)))
        config = SimpleNamespace(id2label=dict(enumerate(labels)))

        def read() -> None:
            task = classification.own_task("mine", str(path), config)
            for doc in task.validation_docs():
                task.doc_to_target(doc)

        self.attempt(kind, data, read)

    def _json(self) -> None:
        data = (
            self._broken(CONFIG.encode())
            if self.rng.random() < 0.5
            else json.dumps(self.rng.choice(NASTY)).encode()
        )
        folder = self._file("checkpoint/config.json", data).parent if self._folder() else self.folder
        (folder / "model.safetensors.index.json").write_bytes(self._broken(CONFIG.encode()))
        self.attempt("json", data, lambda: hub.whole(folder, own_code=True) and None)
        self.attempt("json", data, lambda: command(["verify", str(folder / "config.json")]))

    def _folder(self) -> bool:
        (self.folder / "files" / "checkpoint").mkdir(parents=True, exist_ok=True)
        return True


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    def late(*_: object) -> None:
        raise Slow(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _json(value: object) -> str:
    text = value if isinstance(value, str) else ""
    return json.dumps(value, ensure_ascii=not text.isascii())


def _strange(text: str) -> str:
    place = next(k for k, each in enumerate(text) if not (each.isprintable() or each == "\n"))
    return repr(text[max(0, place - 60) : place + 20])


def _read_spec(text: str) -> None:
    methods = spec.parse(text)
    written = spec.format(methods)
    if spec.format(spec.parse(written)) != written:
        raise AssertionError(f"{written} does not come back")
    families.family(written), families.amounts(written), plan.seeded(text, 2)


def _suite(path: Path) -> None:
    found = suite.load(path)
    for part in found.parts:
        found.request(part)
    checks.problems(path.parent / "nowhere", found)
    print(leaderboard.write(board.build([], found)))


def leaderboard_of(found: list[record.Record], everything: bool) -> Iterator[str]:
    """Yield what is shown of records."""
    whole = board.build(found)
    yield leaderboard.write(whole, "text")
    if everything:
        yield leaderboard.write(whole, "md")
        yield exports.to_csv(whole)
        yield exports.to_latex(whole)
        yield json.dumps(leaderboard.to_json(found), allow_nan=False)


def _valid(method: str, rng: random.Random, kind: str = "mean") -> record.Record:
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


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, count in (("specs", 100_000), ("records", 20_000), ("files", 5_000), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=count)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fuzz = Fuzz(options.seed, Path(folder))
        for name in ("specs", "records", "files"):
            started = time.perf_counter()
            getattr(fuzz, name)(getattr(options, name))
            print(f"{name}: {getattr(options, name):,} in {time.perf_counter() - started:.0f} s", flush=True)
    print(", ".join(f"{name} {count:,}" for name, count in sorted(fuzz.counts.items())))
    print(f"{len(fuzz.faults)} faults")
    print("\n".join(fuzz.faults[:SHOWN]))
    return 1 if fuzz.faults else 0


if __name__ == "__main__":
    sys.exit(main())
