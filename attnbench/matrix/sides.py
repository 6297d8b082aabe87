"""Two checkpoints side by side on a task, as an export and its original: what they answer, what they cost."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnbench.errors import UserError
from attnbench.inputs import models
from attnbench.inputs.files import expanded
from attnbench.inputs.settings import Settings
from attnbench.matrix import runner
from attnbench.matrix.bench import Bench
from attnbench.matrix.plan import Cell, check_tasks, refuse_twins

if TYPE_CHECKING:
    from attnbench.matrix.console import Listener
    from attnbench.records.record import Record

LETTERS = ("A", "B")  # stand for two models whose names take too much room


def side_by_side(
    names: tuple[str, str], task: str, settings: Settings, records: str, listener: Listener, width: int
) -> list[str]:
    """Measure two models on a task and write how they differ; their records are kept as those of a run.

    Raises UserError for a model or a task that is not to be had, and where the two do not read the same.
    """
    labels = {name: models.label(name) for name in names}
    for name in names:
        models.check_folder(name)
    check_tasks([task], settings.include_path)
    if names[0] == names[1]:
        raise UserError(f"'{names[0]}' beside itself: give an export and its original")
    refuse_twins("models", labels)
    cells = [Cell(name, task, "dense") for name in names]
    found = runner.run(cells, settings, records, listener=listener)
    for item in found:
        if item.status != "measured":
            raise UserError(f"{item.cell['model']} on {task}: {item.error}")
    shown = (labels[names[0]], labels[names[1]])
    benches = [Bench(name, task, settings) for name in names]
    return [*_scores(shown, *found), "", *_table(shown, benches, width)]


def _scores(shown: tuple[str, str], ours: Record, theirs: Record) -> list[str]:
    from attnbench.statistics import pairs

    lines, how = [], []
    for metric in ours.metrics:
        found = pairs.difference([ours], [theirs], metric)
        lines += pairs.lines_of((ours.cell["task"],), *shown, found)
        how.append(found.how)
    return [*lines, *pairs.explained(how)]


def _table(shown: tuple[str, str], benches: list[Bench], width: int) -> list[str]:
    """Write what two models cost: theirs in turns on the first batch of samples."""
    import torch

    from attnbench.measures.cost import seconds
    from attnbench.measures.peak import peak_memory
    from attnbench.measures.turns import in_turns, median_interval

    batches = [bench.batches(bench.settings.batch_size)[0] for bench in benches]
    if not all(torch.equal(batches[0]["input_ids"], batch["input_ids"]) for batch in batches[1:]):
        raise UserError(f"{shown[0]} and {shown[1]} read the same texts as other tokens: no cost compares")
    batch, (ours, theirs) = batches[0], [bench.model for bench in benches]
    spent = in_turns(lambda: seconds(ours, batch), lambda: seconds(theirs, batch))
    ratios = [mine / other for mine, other in zip(*spent, strict=True)]
    low, high = median_interval(ratios)
    sizes = [sum(weight.numel() for weight in model.parameters()) for model in (ours, theirs)]
    files = [_on_disk(bench.checkpoint) for bench in benches]
    held = [peak_memory(model, batch) for model in (ours, theirs)]
    noise = ": within noise" if low <= 1 <= high else ""
    rows = [
        ("", *shown, "ratio"),
        ("parameters", *(f"{size:,}" for size in sizes), f"{sizes[0] / sizes[1]:.2f}"),
        ("weights on disk", *_sized(files, benches), f"{files[0] / files[1]:.2f}"),
        (
            "latency", *(f"{1000 * statistics.median(each):,.1f} ms" for each in spent),
            f"{statistics.median(ratios):.2f} [{low:.2f}, {high:.2f}]{noise}",
        ),
        ("attention's memory", *(f"{size / 1e6:,.1f} MB" for size in held), f"{held[0] / held[1]:.2f}"),
    ]  # fmt: skip
    rows_of, tokens = batch["input_ids"].shape
    return [*_aligned(rows, width), "", _how(len(ratios), rows_of, tokens)]


def _on_disk(checkpoint: models.Checkpoint) -> int:
    """Count the bytes of the files that weights are loaded from."""
    if (own := expanded(checkpoint.path)).is_file():
        return own.stat().st_size
    files = Path(checkpoint.base.folder).glob(models.WEIGHTS[checkpoint.weight_format])
    return sum(file.stat().st_size for file in files)


def _sized(files: list[int], benches: list[Bench]) -> list[str]:
    """Write the sizes of files, and where the types of two are not one, in which each is stored."""
    types = [_stored(bench.checkpoint) for bench in benches]
    told = [f" ({each})" if each and len({*types}) > 1 else "" for each in types]
    return [f"{size / 1e6:,.1f} MB{each}" for size, each in zip(files, told, strict=True)]


def _stored(checkpoint: models.Checkpoint) -> str:
    """Return the types of the weights in a checkpoint's safetensors files, nothing for others."""
    from safetensors import safe_open

    found: set[str] = set()
    for file in sorted(Path(checkpoint.base.folder).glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            found |= {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118
    return ", ".join(sorted(found))


def _how(rounds: int, samples: int, tokens: int) -> str:
    import torch

    threads = f"{torch.get_num_threads()} thread{'' if torch.get_num_threads() == 1 else 's'}"
    return (
        f"latency: of a batch of {samples} samples, {tokens} tokens long, median of {rounds} rounds in turns "
        f"with its 95 % interval, {threads}; memory: the most that one attention module holds"
    )


def _aligned(rows: list[tuple[Any, ...]], width: int) -> list[str]:
    """Lay out a table; where the names of models make it too wide they stand above it."""
    widths = [max(len(row[k]) for row in rows) for k in range(3)]
    if sum(widths) + max(len(row[3]) for row in rows) + 6 > width and rows[0][1:3] != LETTERS:
        said = [f"{letter}: {name}" for letter, name in zip(LETTERS, rows[0][1:3], strict=True)]
        return [*said, *_aligned([("", *LETTERS, rows[0][3]), *rows[1:]], width)]
    filled = ([row[0].ljust(widths[0]), *(row[k].rjust(widths[k]) for k in (1, 2)), row[3]] for row in rows)
    return ["  ".join(row).rstrip() for row in filled]
