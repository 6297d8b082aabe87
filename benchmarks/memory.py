"""Follow the memory of a process over a whole evaluation, one method after the other.

HF_HOME=... HF_HUB_OFFLINE=1 python benchmarks/memory.py --model MODELS/minilm-squad --task squad
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import sys
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from attnbench import apply
from attnbench.backends import lm_eval
from attnbench.inputs import models, tasks
from attnbench.inputs.settings import Settings
from attnbench.matrix import console

POINTS = 10


def resident() -> float:
    """Return the resident megabytes of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--specs", default="dense,prune80,logquant3")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--batch-size", type=int, default=32)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console.quiet(False)
    print(f"{resident():.0f} MB with the libraries", file=sys.stderr)
    checkpoint = models.find(arguments.model, tasks.find(arguments.task).name)
    prepared = lm_eval.prepare(arguments.task, checkpoint, Settings(limit=arguments.limit))
    print(f"{resident():.0f} MB with {prepared.samples:,} samples", file=sys.stderr)
    model = checkpoint.load(prepared.head)
    print(f"{resident():.0f} MB with the weights", file=sys.stderr)
    shares = [f"{point / POINTS:.0%}" for point in range(POINTS + 1)]
    print(f"| MB, of {prepared.samples:,} samples done | " + " | ".join(shares) + " |")
    print("|---|" + "---|" * len(shares))
    for spec in arguments.specs.split(","):
        gc.collect()
        seen = [resident()]

        def progress(samples: int, seen: list[float] = seen) -> None:
            seen.append(resident())

        with nullcontext() if spec == "dense" else apply(model, spec):
            prepared.evaluate(model, batch_size=arguments.batch_size, progress=progress)
        # the highest since the last point, so that no peak is lost
        ends = [1 + point * (len(seen) - 1) // POINTS for point in range(POINTS + 1)]
        highest = [seen[0], *(max(seen[first:last]) for first, last in pairwise(ends))]
        print(f"| {spec} | " + " | ".join(f"{size:,.0f}" for size in highest) + " |", flush=True)


if __name__ == "__main__":
    main()
