"""Write a model without some of its heads as a checkpoint, and cut them out again on loading."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnbench.errors import NotApplicable, UserError

if TYPE_CHECKING:
    from torch import nn

    from attnbench.matrix.bench import Bench
    from attnbench.methods.protocol import Method

NAME = "attnbench.json"
SCHEMA = 1
Layer = tuple[str, int]  # kind, layer
README = """# {model}, {method}

Made by `attnbench export` from {source} on {task}: {left} of {total} heads are left.

* `attnbench run --models` with this folder, or `attnbench.matrix.export.load(model, folder)` after
  `from_pretrained`, cuts the other heads out of the weights, as `{name}` lists them: the same answers in
  less time.
* Plain transformers loads the folder as it is. The output weights of the heads that go are zero, so it gives
  the same answers, at the speed and size of the whole model: its configuration cannot say which heads a layer
  has.
"""


def export(
    model_name: str,
    task: str,
    method: str,
    folder: str | Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    calibration: str | None = None,
    include_path: str | None = None,
) -> dict[str, Any]:
    """Fit a method on a task and write the model it leaves, with the sidecar. Returns the sidecar's content.

    Raises UserError where the folder has something in it, for a model or a task that is not to be had, and
    for a method that cannot be realised.
    """
    from attnbench.inputs import models, tasks
    from attnbench.matrix import plan
    from attnbench.matrix.bench import Bench, Settings
    from attnbench.methods import spec

    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{folder} is there already: give a new folder, or an empty one")
    methods = spec.parse(method)
    plan.check_tasks([task], include_path)
    settings = Settings(limit=1, seed=seed, device=device, calibration=calibration, include_path=include_path)
    try:
        bench = Bench(model_name, task, settings)
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
        "heads": {f"{kind} {layer}": kept[kind, layer] for kind, layer in sorted(whole)},
        "of": {f"{kind} {layer}": heads for (kind, layer), heads in sorted(whole.items())},
    }
    try:
        _write(target, bench, methods, kept, content)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror or error}") from error
    return content


def _left(bench: Bench, methods: Sequence[Method]) -> tuple[dict[Layer, int], dict[Layer, list[int]]]:
    """Fit methods, and return how many heads each layer has and which of them are left.

    Raises NotApplicable for methods that remove no heads, or none here, and what `fit` raises.
    """
    import torch

    from attnbench.engine.applicable import require_sites
    from attnbench.engine.places.sites import discover
    from attnbench.engine.realised.removal import kept_heads, realize
    from attnbench.matrix.bench import fit
    from attnbench.methods.protocol import needs_fit

    model = bench.model
    torch.manual_seed(bench.settings.seed)
    require_sites(model, methods)
    whole: dict[Layer, int] = {(site.kind, site.layer): site.heads for site in discover(model)}
    if any(map(needs_fit, methods)):
        fit(model, methods, bench.calibration())
    with realize(model, *methods):
        return whole, kept_heads(model)


def _write(
    target: Path,
    bench: Bench,
    methods: Sequence[Method],
    kept: dict[Layer, list[int]],
    content: dict[str, Any],
) -> None:
    """Write the whole model, of which the heads that go are silent, its tokenizer, the sidecar, a README."""
    with contextlib.ExitStack() as stack:
        for each in methods:
            stack.enter_context(each.installed(bench.model))
        _silence(bench.model, kept)
        bench.model.save_pretrained(target)
    bench.checkpoint.tokenizer().save_pretrained(target)
    (target / NAME).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    told = {"name": NAME, "left": sum(map(len, kept.values())), "total": sum(content["of"].values())}
    readme = README.format(**{**content, **told, "source": bench.checkpoint.name})
    (target / "README.md").write_text(readme, encoding="utf-8")


def _silence(model: nn.Module, kept: dict[Layer, list[int]]) -> None:
    """Zero the output weights of the heads that go: then the whole model answers as the smaller one."""
    from attnbench.engine.places.sites import discover
    from attnbench.engine.realised.slicing import head_columns

    for site in discover(model):
        for head in set(range(site.heads)) - set(kept[site.kind, site.layer]):
            head_columns(model, site.path, head, site.head_dim).zero_()


def load(model: nn.Module, folder: str | Path) -> None:
    """Cut out of a loaded model the heads that its folder's sidecar does without, where it has a sidecar.

    Raises UserError where the sidecar does not fit the model.
    """
    path = Path(folder) / NAME
    if not path.is_file():
        return
    from attnbench.engine.places.sites import discover
    from attnbench.engine.realised.removal import shrink

    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise UserError(f"{path}: schema {content['schema']}, this version reads {SCHEMA}")
        kept, of = content["heads"], content["of"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not isinstance(kept, dict) or of != {
        f"{site.kind} {site.layer}": site.heads for site in discover(model)
    }:
        raise UserError(f"{path} is of another model: its layers and heads are not those of the weights")
    shrink(model, {(site.kind, site.layer): kept[f"{site.kind} {site.layer}"] for site in discover(model)})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `attnbench export`."""
    parser.add_argument("folder", metavar="OUT", help="a new folder for the checkpoint")
    parser.add_argument("--model", required=True, metavar="NAME", help="as in a run")
    parser.add_argument(
        "--task", required=True, metavar="TASK", help="whose calibration split the method is fitted on"
    )
    parser.add_argument("--method", required=True, metavar="SPEC", help="as in heads50:gradient, gates:l0")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the calibration samples (0)")
    parser.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda (cpu)")
    parser.add_argument("--calibration", metavar="DATASET:SPLIT", help="samples to fit on, as in a run")
