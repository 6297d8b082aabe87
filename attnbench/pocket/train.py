"""The recipe of the pocket models: python -m attnbench.pocket.train --family bert --task sentiment."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from attnbench.pocket import batches, network, tokenizer
from attnbench.pocket.text import WRITERS

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = Path(__file__).parent / "weights"
CHECKPOINT = "training.pt"
LAYER = {"asked": 1, "words": 2, "owners": 2, "tags": 3, "clauses": 3}


@dataclass(frozen=True)
class Recipe:
    """How long and how fast a task is trained."""

    steps: int
    batch: int
    options: Callable[[float], dict[str, Any]]  # the writer's, from the share of the steps done
    rate: float = 1e-3
    warmup: int = 100
    seed: int = 0


def growing(done: float) -> dict[str, Any]:
    """Begin with few facts a paragraph: matching is learned there, the full length is practice."""
    if done < 0.4:
        return {"people": (3, 4), "relations": 2, "turned": 0.0}
    if done < 0.7:
        return {"people": (4, 6), "relations": 3}
    return {}


RECIPES = {
    ("bert", "sentiment"): Recipe(steps=1000, batch=64, options=lambda done: {}),
    ("bert", "qa"): Recipe(steps=1200, batch=32, options=growing),
    ("roberta", "sentiment"): Recipe(steps=2000, batch=64, options=lambda done: {}),
    ("roberta", "qa"): Recipe(steps=1600, batch=32, options=growing),
}


class Tutor(nn.Module):
    """The auxiliary heads, thrown away after training: they give many supervised positions a sequence.

    From layer 1: whether a word occurs again (sentiment), or in the question (qa). From layer 2: an opinion
    word's own polarity and whether it is denied (sentiment), the name of every value's person (qa), which
    is what breaks the "right type, wrong fact" plateau. From layer 3: what an opinion says in the end and
    which clauses decide (sentiment), which clause answers (qa).
    """

    def __init__(self) -> None:
        super().__init__()
        sizes = {"asked": 2, "words": 5, "owners": network.WIDTH, "tags": 5, "clauses": 3}
        self.heads = nn.ModuleDict({name: nn.Linear(network.WIDTH, size) for name, size in sizes.items()})

    def forward(self, hidden: tuple[Tensor, ...], targets: dict[str, Tensor], words: Tensor) -> Tensor:
        """Return the summed losses; `hidden` are the layers' outputs, `words` the word embeddings."""
        loss = words.new_zeros(())
        for name, target in targets.items():
            known = target != batches.IGNORED
            logits = self.heads[name](hidden[LAYER[name]][known])
            if name == "owners":
                logits = logits @ words.T * network.WIDTH**0.5  # words begin about 1 long
            loss = loss + cross_entropy(logits, target[known])
        return loss


def train(family: str, task: str, output: Path, steps: int | None = None, every: int = 100) -> float:
    """Train a model into a folder and return the seconds it took, those before an interruption included.

    Every `every` steps the whole state is written to `training.pt`; a run that finds one there goes on from
    it, and ends in the same weights as one that was never interrupted.
    """
    recipe = RECIPES[family, task]
    steps = recipe.steps if steps is None else steps
    torch.manual_seed(recipe.seed)
    vocabulary = tokenizer.build(family)
    model = network.build(family, task, vocabulary).train()
    tutor = Tutor()
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
    start = time.monotonic() - seconds
    source = batches.stream(
        vocabulary, task, recipe.batch, first, lambda number: recipe.options(number / steps)
    )
    for step, batch in zip(range(first, steps), source, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * network.warm(step, steps, min(recipe.warmup, steps))
        targets = {key: batch.pop(key) for key in LAYER if key in batch}
        result = model(**batch, output_hidden_states=True)
        words = model.base_model.embeddings.word_embeddings.weight
        loss = result.loss + tutor(result.hidden_states, targets, words)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        if (step + 1) % every == 0 and step + 1 < steps:
            seconds = time.monotonic() - start
            parts = {"model": model, "tutor": tutor, "optimizer": optimizer}
            state = {name: part.state_dict() for name, part in parts.items()}
            write(checkpoint, {**state, "rng": torch.get_rng_state(), "step": step + 1, "seconds": seconds})
            print(
                f"{family} {task} step {step + 1}/{steps} loss {result.loss:.3f} {seconds:.0f} s",
                file=sys.stderr,
            )
    save(model, vocabulary, output)
    checkpoint.unlink(missing_ok=True)
    return time.monotonic() - start


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
    parser.add_argument("--family", choices=sorted(tokenizer.SPECIAL), required=True)
    parser.add_argument("--task", choices=sorted(WRITERS), required=True)
    parser.add_argument("--steps", type=int, help="fewer steps than the recipe's, for a test")
    parser.add_argument("--output", type=Path, help="the folder (default: the one that is shipped)")
    parser.add_argument(
        "--card-only", action="store_true", help="measure the folder's model again and write its card"
    )
    options = parser.parse_args(arguments)
    output = options.output or WEIGHTS / f"{options.family}-{options.task}"
    torch.set_num_threads(1)  # sums in one order: the same weights on the same machine
    if options.card_only:
        from attnbench.pocket import card

        card.write(options.family, options.task, output)
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
        json.dumps({"tasks": [f"pocket-{options.task}"], "training": training}, indent=2) + "\n"
    )
    if options.steps is None:
        from attnbench.pocket import card

        card.write(options.family, options.task, output)


if __name__ == "__main__":
    main()
