"""The recipe of the pocket models: python -m attnbench.pocket.train --family bert --task sentiment."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from attnbench.pocket import card, decoders, encoders, fluency, network
from attnbench.pocket.recipes import RECIPES

WEIGHTS = Path(__file__).parent / "weights"
CHECKPOINT = "training.pt"
LESSONS = {
    "sentiment": encoders.lesson,
    "qa": encoders.lesson,
    "language": decoders.lesson,
    "translation": decoders.lesson,
}
CARDS = {
    "sentiment": card.write,
    "qa": card.write,
    "language": fluency.write,
    "translation": fluency.write,
}
SERVES = {"language": ["pocket-agreement", "pocket-perplexity"]}


def train(family: str, task: str, output: Path, steps: int | None = None, every: int = 100) -> float:
    """Train a model into a folder and return the CPU seconds it took, those before an interruption included.

    Every `every` steps the whole state is written to `training.pt`; a run that finds one there goes on from
    it, and ends in the same weights as one that was never interrupted.
    """
    recipe = RECIPES[family, task]
    steps = recipe.steps if steps is None else steps
    torch.manual_seed(recipe.seed)
    lesson = LESSONS[task](family, task, recipe, steps)
    model, tutor = lesson.model, lesson.tutor
    weights = [*model.parameters(), *tutor.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=recipe.rate, betas=(0.9, 0.98))
    output.mkdir(parents=True, exist_ok=True)
    checkpoint = output / CHECKPOINT
    first, seconds = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        tutor.load_state_dict(state["tutor"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        first, seconds = state["step"], state["seconds"]
    start = time.process_time() - seconds
    for step, batch in zip(range(first, steps), lesson.batches(first), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * network.warm(step, steps, min(recipe.warmup, steps))
        loss = lesson.loss(batch, step / steps)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        if (step + 1) % every == 0 and step + 1 < steps:
            seconds = time.process_time() - start
            parts = {"model": model, "tutor": tutor, "optimizer": optimizer}
            state = {name: part.state_dict() for name, part in parts.items()}
            write(checkpoint, {**state, "rng": torch.get_rng_state(), "step": step + 1, "seconds": seconds})
            print(
                f"{family} {task} step {step + 1}/{steps} loss {loss:.3f} {seconds:.0f} s",
                file=sys.stderr,
            )
    save(model, lesson.vocabulary, output)
    checkpoint.unlink(missing_ok=True)
    return time.process_time() - start


def served(task: str) -> list[str]:
    """List the tasks that a model trained for `task` is measured on."""
    return SERVES.get(task, [f"pocket-{task}"])


def write(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint so that a kill leaves the old one or the new one."""
    new = path.with_suffix(".new")
    torch.save(state, new)
    os.replace(new, path)


def save(model: Any, vocabulary: Any, output: Path) -> None:
    """Write weights in half precision, to be read as float32, and the tokenizer."""
    model.half().save_pretrained(output)
    vocabulary.save_pretrained(output)
    (output / "model.safetensors").chmod(0o644)
    config = json.loads((output / "config.json").read_text())
    config["dtype"] = "float32"
    (output / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m attnbench.pocket.train", description=__doc__)
    parser.add_argument("--family", choices=sorted({family for family, _ in RECIPES}), required=True)
    parser.add_argument("--task", choices=sorted(LESSONS), required=True)
    parser.add_argument("--steps", type=int, help="fewer steps than the recipe's, for a test")
    parser.add_argument("--output", type=Path, help="the folder (default: the one that is shipped)")
    parser.add_argument(
        "--card-only", action="store_true", help="measure the folder's model again and write its card"
    )
    options = parser.parse_args(arguments)
    if (options.family, options.task) not in RECIPES:
        parser.error(f"{options.family} is not trained for {options.task}")
    output = options.output or WEIGHTS / f"{options.family}-{options.task}"
    torch.set_num_threads(1)  # sums in one order: the same weights on the same machine
    if options.card_only:
        CARDS[options.task](options.family, options.task, output)
        return
    seconds = train(options.family, options.task, output, options.steps)
    recipe = RECIPES[options.family, options.task]
    training = {
        "command": f"python -m attnbench.pocket.train --family {options.family} --task {options.task}",
        "steps": options.steps or recipe.steps,
        "batch": recipe.batch,
        "seconds": round(seconds),
    }
    (output / "card.json").write_text(
        json.dumps({"tasks": served(options.task), "training": training}, indent=2) + "\n"
    )
    if options.steps is None:
        CARDS[options.task](options.family, options.task, output)


if __name__ == "__main__":
    main()
