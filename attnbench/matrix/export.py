"""Write a model without some of its heads as a checkpoint."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnbench.engine.realised.sidecar import NAME, SCHEMA, Layer, silence
from attnbench.errors import NotApplicable, UserError
from attnbench.inputs.settings import Settings
from attnbench.matrix import model_card

if TYPE_CHECKING:
    from attnbench.matrix.bench import Bench
    from attnbench.methods.protocol import Method


def export(
    model_name: str,
    task: str,
    method: str,
    folder: str | Path,
    settings: Settings | None = None,
    records: str | None = None,
) -> dict[str, Any]:
    """Fit a method on a task and write the model it leaves, with the sidecar. Returns the sidecar's content.

    With `records` it is measured on the task's samples, as is its source: the records are kept there, the
    scores stand in the card and, of data of the Hub, in `.eval_results`. Raises UserError where the folder
    has something in it, for a model or a task that is not to be had, and for a method that cannot be
    realised.
    """
    from attnbench.inputs import models, tasks
    from attnbench.matrix import plan
    from attnbench.matrix.bench import Bench
    from attnbench.methods import spec

    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{folder} is there already: give a new folder, or an empty one")
    methods = spec.parse(method)
    chosen = dataclasses.replace(settings or Settings(), limit=1)
    plan.check_tasks([task], chosen.include_path)
    try:
        bench = Bench(model_name, task, chosen)
        if (Path(bench.checkpoint.folder) / NAME).is_file():
            raise UserError(f"model '{model_name}' is an export already: export its source with both methods")
        whole, kept = _left(bench, methods)
    except (NotApplicable, ValueError, ArithmeticError) as reason:
        raise UserError(f"{method} on {models.label(model_name)}, {task}: {reason}") from reason
    content = {
        "schema": SCHEMA,
        "method": spec.format(methods),
        "model": models.label(model_name),
        "source": bench.checkpoint.fingerprint,
        "task": tasks.shown(task),
        "calibration": tasks.shown(chosen.calibration) if chosen.calibration else None,
        "seed": chosen.seed,
        "heads": {f"{kind} {layer}": kept[kind, layer] for kind, layer in sorted(whole)},
        "of": {f"{kind} {layer}": heads for (kind, layer), heads in sorted(whole.items())},
    }
    whole_run = dataclasses.replace(settings or Settings(), limit=None)
    hub = bench.checkpoint.source == "hub"
    source = bench.checkpoint.path if hub else bench.checkpoint.name
    try:
        _write(target, bench, methods, kept, content)
        model_card.write(target, content, str(source), hub, None, NAME)
        if records is not None:
            score = model_card.measure(place(folder), model_name, task, whole_run, records)
            model_card.write(target, content, str(source), hub, score, NAME)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror or error}") from error
    return content


def _left(bench: Bench, methods: Sequence[Method]) -> tuple[dict[Layer, int], dict[Layer, list[int]]]:
    """Fit methods, and return how many heads each layer has and which of them are left.

    Raises NotApplicable for methods that remove no heads, or none here, and what `fit` raises.
    """
    from attnbench.engine.learning.fit import learn
    from attnbench.engine.places.sites import discover
    from attnbench.engine.realised.removal import kept_heads, realize

    model = bench.model
    learn(model, methods, bench.settings.seed, bench.calibration)
    whole: dict[Layer, int] = {(site.kind, site.layer): site.heads for site in discover(model)}
    with realize(model, *methods):
        return whole, kept_heads(model)


def _write(
    target: Path,
    bench: Bench,
    methods: Sequence[Method],
    kept: dict[Layer, list[int]],
    content: dict[str, Any],
) -> None:
    """Write the whole model, of which the heads that go are silent, its tokenizer and the sidecar."""
    with contextlib.ExitStack() as stack:
        for each in methods:
            stack.enter_context(each.installed(bench.model))
        silence(bench.model, kept)
        bench.model.save_pretrained(target)
    bench.checkpoint.tokenizer().save_pretrained(target)
    (target / NAME).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def place(folder: str | Path) -> str:
    """Write a folder as a model is named by it: ./NAME, where it says no more than NAME."""
    text = str(folder)
    return text if text.startswith((".", "/", "~")) else f"./{text}"
