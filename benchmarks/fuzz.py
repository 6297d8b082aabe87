"""Draw specs, records and files that nobody would write, and see that each is read or refused in one line.

    python benchmarks/fuzz.py --specs 100000 --records 20000 --files 5000

Valid ones are mutated, by a seed. Anything but UserError or NotApplicable, a refusal of 400 characters or
more, a control character in what is shown or a case of more than SECONDS is a fault; status 1 where one is
found. Ends with what was drawn, how much of it was refused, and the time.
"""

from __future__ import annotations

import argparse
import contextlib
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

from fuzz_cases import CONFIG, CSV, JSONL, NASTY, TOML, TOML_PARTS, YAML, YAML_PARTS, Draw, strange, valid

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
from attnbench.records import record
from attnbench.statistics import pairs

LONGEST, SECONDS = 400, 20
SHOWN = 10  # faults with their traceback


class Slow(Exception):
    """A case that takes longer than SECONDS."""


class Fuzz:
    """Draws by one seed; keeps what came of it."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.rng, self.folder = random.Random(seed), folder
        self.draw = Draw(self.rng)
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
                self._fault(kind, case, f"a control character is shown: {strange(out.getvalue())}")
        for line in told:
            if len(line) >= LONGEST or not line.isprintable():
                self._fault(kind, case, f"a refusal of {len(line)} characters: {line[:200]!r}")

    def _fault(self, kind: str, case: object, told: str) -> None:
        self.faults.append(f"{kind}: {case!r:.600}\n{told}")

    def specs(self, count: int) -> None:
        names = sorted(registry().methods)
        valid = [example for name in names for example in registry().methods[name].examples]
        words = sorted({word for text in valid for word in text.replace("+", ":").split(":")})
        for _ in range(count):
            text = self.draw.spec(valid, words)
            self.attempt("specs", text, lambda text=text: _read_spec(text))

    def records(self, count: int) -> None:
        good = [valid("dense", self.rng), valid("uniform", self.rng), valid("prune80", self.rng)]
        good.append(valid("prune50", self.rng, "pearson"))
        root = self.folder / "records"
        for item in good[:2]:
            record.write(root, item)
        for k in range(count):
            item = self.rng.choice(good)
            path = record.path_of(root, item.cell)
            if k % 10 == 0:  # a file that is another record's
                path = path.with_stem(self.rng.choice(("other", "dense", "uniform")))
            body, packed = self.draw.mutated(item)
            path.write_bytes(body)
            path.with_suffix(".npz").write_bytes(packed)
            self.attempt("records", body[:400], lambda path=path: self._shown(root, path))
            for whole in good[:2]:
                record.write(root, whole)

    def _shown(self, root: Path, path: Path) -> None:
        found = list(record.read_all(root))
        self.counts["records read"] += any(item.file == str(path) for item in found)
        told = list(checks.problems(root))
        print(*map(message, told), sep="\n")
        print(*leaderboard_of(found, self.rng.random() < 0.2), sep="\n")
        for method in ("prune50", "prune80"):
            with contextlib.suppress(UserError):
                print("\n".join(pairs.report(found, method, "dense", None, None)))

    def files(self, count: int) -> None:
        importlib.import_module("attnbench.matrix.verify")  # the first import takes longer than any case
        makers = (self._yaml, self._toml, self._csv, self._jsonl, self._json)
        for k in range(count):
            makers[k % len(makers)]()

    def _file(self, name: str, data: bytes) -> Path:
        path = self.folder / "files" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        return path

    def _yaml(self) -> None:
        path = self._file("mine.yaml", data := self.draw.text(YAML, YAML_PARTS))
        self.attempt("yaml", data, lambda: (tasks.find(str(path)), plan.check_tasks([str(path)]))[:0])
        self.attempt("yaml", data, lambda: command(["tasks", "--include-path", str(path.parent)]))

    def _toml(self) -> None:
        path = self._file("mine.toml", data := self.draw.text(TOML, TOML_PARTS))
        self.attempt(
            "toml",
            data,
            lambda: command(["run", str(path), "--dry-run", "--records", str(self.folder / "none")]),
        )
        self.attempt("toml", data, lambda: _suite(path))

    def _csv(self) -> None:
        path = self._file("mine.csv", data := self.draw.text(CSV, ('"', "1,2,3", "text,text", "label", ",")))
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
            data := self.draw.text(
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
            self.draw.broken(CONFIG.encode())
            if self.rng.random() < 0.5
            else json.dumps(self.rng.choice(NASTY)).encode()
        )
        folder = self._file("checkpoint/config.json", data).parent if self._folder() else self.folder
        (folder / "model.safetensors.index.json").write_bytes(self.draw.broken(CONFIG.encode()))
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
