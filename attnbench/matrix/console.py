"""Who hears of a run: a bar over the whole matrix and one line a finished cell on stderr, or nobody."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from attnbench.errors import NARROWEST, broken, message, say
from attnbench.records.inert import clean

if TYPE_CHECKING:
    from attnbench.records.record import Record


class Listener(Protocol):
    """What hears of a run's progress."""

    def start(self, cells: int) -> None: ...
    def begin(self, cell: str) -> None: ...
    def line(self, text: str) -> None: ...
    def advance(self, cells: float) -> None: ...
    def finish(self, record: Record, reused: bool) -> None: ...


class Silent:
    """Listen and say nothing."""

    def start(self, cells: int) -> None: ...
    def begin(self, cell: str) -> None: ...
    def line(self, text: str) -> None: ...
    def advance(self, cells: float) -> None: ...
    def finish(self, record: Record, reused: bool) -> None: ...


class Console:
    """Listen to a run: progress bar and lines on stderr."""

    def start(self, cells: int) -> None:
        self._bar = _bar(cells)
        self._within = 0.0

    def begin(self, cell: str) -> None:
        width = getattr(self._bar, "ncols", None) or NARROWEST  # a bar that nobody sees has none
        self._bar.set_description_str(fitting(cell, width // 2))

    def line(self, text: str) -> None:
        from tqdm import tqdm

        tqdm.write(broken(message(text), sys.stderr), file=sys.stderr)

    def advance(self, cells: float) -> None:
        self._within += cells
        self._bar.update(cells)

    def finish(self, record: Record, reused: bool) -> None:
        self._bar.update(1 - self._within)
        self._within = 0.0
        if reused:
            self._bar.old += 1
        self.line(describe(record, reused))

    def close(self) -> None:
        if hasattr(self, "_bar"):
            self._bar.clear()  # which closing leaves out of a bar that was shown before its delay is over
            self._bar.close()


def _bar(cells: int) -> Any:
    """Return a bar over cells, on a terminal only: the cell at work, how many are done, the time left."""
    from tqdm import tqdm

    class Bar(tqdm):
        old = 0  # cells that were there already: they say nothing of the time that others take

        @property
        def format_dict(self) -> dict[str, Any]:
            found = super().format_dict
            told = time_left(found["elapsed"], found["n"] - self.old, found["total"] - found["n"])
            return {**found, "done": int(found["n"]), "left": told}

    return Bar(
        total=cells, file=sys.stderr, dynamic_ncols=True, leave=False, disable=not sys.stderr.isatty(),
        bar_format="{desc} |{bar}| {done}/{total} cells{left}", delay=0.2,
    )  # fmt: skip


def time_left(elapsed: float, measured: float, cells: float) -> str:
    """Say how long `cells` more will take by the mean of those measured; nothing before the first is."""
    if measured < 1 or elapsed <= 0:
        return ""
    seconds = round(elapsed / measured * cells)
    if seconds >= 3600:
        return f", {seconds // 3600} h {seconds % 3600 // 60:02} min left"
    return f", {seconds // 60} min left" if seconds >= 120 else f", {seconds} s left"


def fitting(cell: str, width: int) -> str:
    """Write a cell in so many columns: without its model, then without its task, where it is longer."""
    parts = cell.split(" · ")
    shown = [" · ".join(parts[k:]) for k in range(len(parts))]
    return next((text for text in shown if len(text) <= width), clean(parts[-1], width))


class Once:
    """Pass on to a listener, each line once: a column may be opened several times."""

    def __init__(self, listener: Listener) -> None:
        self._listener, self._said = listener, set[str]()
        self.start, self.begin = listener.start, listener.begin
        self.advance, self.finish = listener.advance, listener.finish

    def line(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._listener.line(text)


def describe(record: Record, reused: bool = False) -> str:
    """Return a finished cell as one line."""
    where = " · ".join(record.cell[key] for key in ("model", "task", "method"))
    if record.status != "measured":
        return f"{where}: {record.status}: {record.error}"
    name, metric = next(iter(record.metrics.items()))
    text = f"{where}: {name} {_number(metric['value'])}" + (
        f" ± {_number(metric['stderr'])}" if metric["stderr"] is not None else ""
    )
    text += f", {sum(record.seconds.values()):.1f} s" if not reused else ", as recorded"
    if record.cell["method"] != "dense" and record.receipt.get("effect") == "no effect":
        text += ", no answer changed"
    return text


def beside_card(name: str, task: str, record: Record) -> Iterator[str]:
    """Warn of dense scores on all samples that are not those of a checkpoint's card."""
    from attnbench.inputs import models

    stated = models.expected_scores(name, task) if record.settings.get("limit") is None else {}
    for metric, score in stated.items():
        found = record.metrics.get(metric)
        if found and found["stderr"] and abs(found["value"] - score) > 3 * found["stderr"]:
            yield (
                f"warning: {name} on {task} has {metric} {found['value']:.4f}, "
                f"its card states {score:.4f}: more than 3 standard errors apart"
            )


def _number(value: float | None) -> str:
    if value is None:
        return "– (not defined on these samples)"
    return f"{value:.4f}" if abs(value) < 1e6 else f"{value:.4g}"


def introduce(name: str) -> None:
    """Say on stderr which model a short name stands for."""
    from attnbench.inputs import models

    folders = models.pocket_families().get(name, {})
    if folders:
        shown = models.label(name)
        cards = [
            json.loads((folder / "card.json").read_text(encoding="utf-8")) for folder in folders.values()
        ]
        size = max(card["parameters"] for card in cards) / 1e6
        published = (
            f" The published model: --models {name}-base" if f"{name}-base" in models.PUBLISHED else ""
        )
        say(f"{name} → {shown}: {size:.1f}M parameters, generated text.{published}")


def quiet(verbose: bool) -> None:
    """Silence the libraries' own chatter. Before they are imported: some read the environment only then."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if verbose:
        return
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("LMEVAL_LOG_LEVEL", "ERROR")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # its profiler tells of memory from before it began
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
