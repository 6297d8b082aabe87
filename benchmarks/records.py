"""Measure what a leaderboard of 10,000 records takes: reading, comparing, rendering, in CPU seconds.

python benchmarks/records.py                  # 25 models x 4 tasks x 100 methods of 872 samples, 0/1 scores
python benchmarks/records.py --models 250     # 100,000: what 25 models are given stands there ten times

Records are made anew in a temporary folder, which is not counted; imports are not counted either.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import resource
import tempfile
import time
import zlib
from pathlib import Path
from unittest import mock

import numpy as np

from attnbench.boards import board
from attnbench.boards.page import document
from attnbench.boards.tables import leaderboard
from attnbench.records import record

MODELS, TASKS, METHODS = 25, 4, 100


def make(folder: Path, samples: int) -> int:
    """Write records of methods that lose 0 to 20 % of what dense has right; return how many."""
    rng = np.random.default_rng(0)
    names = ["dense", "uniform", *(f"prune{amount}" for amount in range(1, METHODS - 1))]
    for model in range(MODELS):
        for task in range(TASKS):
            dense = (rng.random(samples) < 0.9).astype(float)
            for place, name in enumerate(names):
                scores = np.where(rng.random(samples) < 0.2 * place / METHODS, 1 - dense, dense)
                value, stderr = scores.mean(), scores.std(ddof=1) / np.sqrt(samples)
                metric = {"value": float(value), "stderr": float(stderr), "higher_is_better": True}
                item = record.Record(
                    {"model": f"model-{model}", "task": f"task-{task}", "method": name}, "measured",
                    metrics={"acc": {**metric, "aggregate": "mean"}},
                    scores={"doc_id": np.arange(samples), "acc": scores},
                    receipt={"sites_expected": 6, "sites_hit": 6, "changed": 0.5, "effect": "applied"},
                    measured={"sparsity": place / METHODS}, settings={"limit": None, "dtype": "float32"},
                    provenance={"command": "attnbench run --models all --methods prune"},
                    environment={"versions": {"attnbench": "0.1.0"}, "cores": 2},
                    seconds={"evaluate": 2.0}, date="2026-11-20T10:00:00+00:00",
                )  # fmt: skip
                record.write(folder, item)
    return MODELS * TASKS * METHODS


def repeat(folder: Path, models: int) -> int:
    """Give the records of the first models to others too, up to so many; return how many there are."""
    for path in sorted(folder.glob("*/*/*.json")):
        text, first = path.read_text("utf-8"), path.parents[1].name
        for model in range(int(first.rpartition("-")[2]) + MODELS, models, MODELS):
            place = folder / f"model-{model}" / path.parent.name / path.name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text.replace(f'"{first}"', f'"model-{model}"'), encoding="utf-8")
            os.link(path.with_suffix(".npz"), place.with_suffix(".npz"))
    return max(models, MODELS) * TASKS * METHODS


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=872, help="of each record (872)")
    parser.add_argument("--models", type=int, default=MODELS, help=f"how many ({MODELS})")
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        with mock.patch("os.fsync"):  # a disk's own time, of which nothing is measured here
            make(Path(folder), options.samples)
        count = repeat(Path(folder), options.models)
        profile = cProfile.Profile()
        if options.profile:
            profile.enable()
        print("| step | CPU seconds |\n|---|---|")
        started = time.process_time()
        items = list(record.read_all(folder))
        marks = [("read", time.process_time())]
        found = board.build(items)
        marks.append(("compare", time.process_time()))
        text = leaderboard.write(found)
        marks.append(("write markdown", time.process_time()))
        page = document.to_html(found)
        marks.append(("write the page", time.process_time()))
        before = started
        for name, now in marks:
            print(f"| {name} | {now - before:.2f} |")
            before = now
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        sizes = [len(each) / 1e6 for each in (text, page, zlib.compress(page.encode()))]
        told = "{:.1f} MB of markdown, {:.1f} MB of page, {:.1f} MB deflated".format(*sizes)
        print(f"\n{count:,} records, {told}, {most:.1f} GB held at most")
        if options.profile:
            profile.disable()
            pstats.Stats(profile).sort_stats("cumulative").print_stats(30)


if __name__ == "__main__":
    main()
