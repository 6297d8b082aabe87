"""The cards of the pocket models that write: what they score, measured through `attnbench.apply`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from attnbench.inputs.listing import stated
from attnbench.pocket import baselines, decoders, grams, network
from attnbench.pocket.card import BATCH, ORDERS, SAMPLES, SEEDS, heading, order
from attnbench.pocket.exams import EXAMS, Score, bleu, load, per_word
from attnbench.pocket.text import documents

CALIBRATION = 200
METRICS = {
    "pocket-agreement": "accuracy",
    "pocket-perplexity": "word perplexity",
    "pocket-translation": "BLEU",
}


def baseline(task: str, found: list[dict[str, Any]]) -> dict[str, float]:
    """Score what can be had without attention on a task's documents."""
    train = documents(task, "train", baselines.TRAINING)
    if task == "translation":
        texts = grams.word_for_word(train, [document["source"] for document in found])
        return {"word for word": bleu(texts, [document["target"] for document in found]).value}
    model = grams.Trigrams(
        [document["text"] for document in documents("perplexity", "train", baselines.TRAINING)]
    )
    if task == "perplexity":
        texts = [document["text"] for document in found]
        sums = torch.tensor([model.log_likelihood(text) for text in texts])
        return {"trigrams": per_word(texts, sums).value}
    good, bad = (
        torch.tensor([model.log_likelihood(pair[f"sentence_{side}"]) for pair in found])
        for side in ("good", "bad")
    )
    bag = baselines.sentiment(grams.prefixes(train), grams.prefixes(found))
    return {"trigrams": float((good > bad).double().mean()), "bag-of-words": bag}


def measure(task: str, folder: Path, samples: int = SAMPLES) -> dict[str, Any]:
    """Score a model on its tasks: dense, uniform and under the methods of known order (means over seeds)."""
    from attnbench.engine.serving.attention import apply
    from attnbench.methods.spec import parse

    model, tokenizer = load(task, folder)
    part = {"language": "perplexity"}.get(task, task)
    held = documents(part, "calibration", CALIBRATION)
    calibration = [
        decoders.encode(tokenizer, part, held[at : at + BATCH]) for at in range(0, CALIBRATION, BATCH)
    ]
    asked = {name: documents(name.removeprefix("pocket-"), "validation", samples) for name in EXAMS[task]}

    def exams() -> dict[str, Score]:
        return {name: exam(model, tokenizer, asked[name]) for name, exam in EXAMS[task].items()}

    def under(spec: str) -> dict[str, Score]:
        methods = parse(spec)
        for method in methods:
            method.fit(model, calibration)
        with apply(model, *methods):
            return exams()

    scores = {"dense": exams(), "uniform": under("uniform")}
    for spec in dict.fromkeys(spec for pair in ORDERS for spec in pair):
        repeats = [f"{spec}:seed={seed}" for seed in range(SEEDS)] if spec.endswith(":random") else [spec]
        found = [under(repeat) for repeat in repeats]
        scores[spec] = {
            name: Score(
                sum(each[name].value for each in found) / len(found),
                torch.stack([each[name].samples for each in found]).mean(0),
            )
            for name in asked
        }
    return {
        "parameters": network.parameters(model),
        "scores": scores,
        "baselines": {name: baseline(name.removeprefix("pocket-"), found) for name, found in asked.items()},
    }


def write(family: str, task: str, folder: Path) -> None:
    """Measure the folder's model and write its card; `training` is kept from the one that is there."""
    path = folder / "card.json"
    old = json.loads(path.read_text()) if path.exists() else {}
    found = measure(task, folder)
    scores = found["scores"]
    card = {
        "name": f"pocket-{family}",
        "tasks": list(EXAMS[task]),
        "parameters": found["parameters"],
        "text": "generated",
        "licence": "Apache-2.0",
        "samples": SAMPLES,
        "metric": {name: METRICS[name] for name in EXAMS[task]},
        "scores": {
            name: {
                **{spec: round(each[name].value, 4) for spec, each in scores.items()},
                **{how: round(value, 4) for how, value in found["baselines"][name].items()},
            }
            for name in EXAMS[task]
        },
        "orders": [
            {
                "task": name,
                "above": above,
                "below": below,
                "scores": [round(scores[spec][name].value, 4) for spec in (above, below)],
                "holds": order(scores[above][name].samples, scores[below][name].samples),
            }
            for name in EXAMS[task]
            for above, below in ORDERS
        ],
        "training": old.get("training", {}),
    }
    path.write_text(json.dumps(card, indent=2) + "\n")
    (folder / "README.md").write_text(text(card))


def text(card: dict[str, Any]) -> str:
    """Write a card as markdown."""
    lines = heading(card)
    row = "| {0[above]} > {0[below]} | {1} | {2} | {0[holds]} |"
    for task in card["tasks"]:
        held = [each for each in card["orders"] if each["task"] == task]
        told = {spec for each in held for spec in (each["above"], each["below"])}
        rows = [(name, value) for name, value in card["scores"][task].items() if name not in told]
        lines += [
            f"| {task}, {card['samples']:,} validation samples | {card['metric'][task]} |",
            "| --- | --- |",
            *(f"| {name} | {stated(card['metric'][task], value)} |" for name, value in rows),
            "",
            "| known order | better | worse | holds |",
            "| --- | --- | --- | --- |",
            *(row.format(each, *(stated(card["metric"][task], v) for v in each["scores"])) for each in held),
            "",
        ]
    return "\n".join([*lines, "`heads50:random` is the mean of 5 seeds. Licence: Apache-2.0.", ""])
