"""The model cards: what a pocket model scores, measured through `attnbench.apply`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from attnbench.pocket import baselines, batches, network
from attnbench.pocket.text import documents

if TYPE_CHECKING:
    from torch import Tensor

SAMPLES, BATCH, SEEDS = 1000, 50, 5
ANSWER = 8  # tokens at most
ORDERS = (
    ("logquant2", "linquant2"),
    ("logquant3", "linquant3"),
    ("heads50:gradient", "heads50:random"),
    ("prune50", "prune80"),
    ("prune80", "prune95"),
)
RECORDS = Path(__file__).parents[2] / "leaderboards" / "records" / "minilm" / "minilm-sst2" / "sst2"
METRICS = {"sentiment": "accuracy", "qa": "exact match"}


def load(task: str, folder: Path) -> tuple[Any, Any]:
    """Load a folder's model and tokenizer."""
    import transformers

    head = {"sentiment": "SequenceClassification", "qa": "QuestionAnswering"}[task]
    model = getattr(transformers, f"AutoModelFor{head}").from_pretrained(folder).eval()
    return model, transformers.AutoTokenizer.from_pretrained(folder)


def inputs(tokenizer: Any, task: str, split: str, count: int) -> list[dict[str, Tensor]]:
    """Tokenise a split's first documents in batches with labels; `inside` tells which tokens may answer."""
    found = []
    samples = documents(task, split, count)
    for at in range(0, count, BATCH):
        batch = batches.encode(tokenizer, task, samples[at : at + BATCH])
        inside = batch["tags"] != batches.IGNORED
        kept = {key: value for key, value in batch.items() if key not in batches.TARGETS}
        found.append({**kept, "inside": inside} if task == "qa" else kept)
    return found


def hits(model: Any, prepared: list[dict[str, Tensor]]) -> Tensor:
    """Return 1.0 for every sample whose label, or whose best span, is right: (samples,)."""
    found = []
    for batch in prepared:
        given = {key: value for key, value in batch.items() if key not in ("labels", "inside")}
        starts, ends = given.pop("start_positions", None), given.pop("end_positions", None)
        with torch.inference_mode():
            result = model(**given)
        if starts is None or ends is None:
            found.append(result.logits.argmax(1) == batch["labels"])
        else:
            hidden = torch.where(batch["inside"], 0.0, -torch.inf)
            spans = (result.start_logits + hidden)[:, :, None] + (result.end_logits + hidden)[:, None, :]
            allowed = torch.ones_like(spans[0], dtype=torch.bool).triu().tril(ANSWER - 1)
            best = spans.masked_fill(~allowed, -torch.inf).flatten(1).argmax(1)
            found.append(best == starts * spans.shape[1] + ends)
    return torch.cat(found).double()


def order(above: Tensor, below: Tensor) -> str:
    """Say whether one method scores above another on the same samples: yes, no, or undecided at 95 %."""
    difference = above - below
    error = 1.96 * float(difference.std()) / len(difference) ** 0.5
    return "yes" if difference.mean() > error else "no" if difference.mean() < -error else "undecided"


def measure(task: str, folder: Path) -> dict[str, Any]:
    """Score a model dense, uniform and under the methods of known order (means over seeds)."""
    from attnbench.engine.serving.attention import apply
    from attnbench.methods.spec import parse

    model, tokenizer = load(task, folder)
    prepared = inputs(tokenizer, task, "validation", SAMPLES)
    calibration = [
        {key: value for key, value in batch.items() if key != "inside"}
        for batch in inputs(tokenizer, task, "calibration", 500)
    ]

    def under(spec: str) -> Tensor:
        methods = parse(spec)
        for method in methods:
            method.fit(model, calibration)
        with apply(model, *methods):
            return hits(model, prepared)

    scores = {"dense": hits(model, prepared), "uniform": under("uniform")}
    for spec in dict.fromkeys(spec for order in ORDERS for spec in order):
        repeats = [f"{spec}:seed={seed}" for seed in range(SEEDS)] if spec.endswith(":random") else [spec]
        scores[spec] = torch.stack([under(repeat) for repeat in repeats]).mean(0)
    train = documents(task, "train", baselines.TRAINING)
    bag = getattr(baselines, task)(train, documents(task, "validation", SAMPLES))
    return {"parameters": network.parameters(model), "bag-of-words": bag, "scores": scores}


def likeness(scores: dict[str, float]) -> dict[str, Any]:
    """Correlate the methods' scores by rank with a trained MiniLM's on SST-2 (leaderboards/minilm.toml).

    Spearman over the methods of ORDERS; empty where the repository's records are not at hand.
    """
    from scipy.stats import spearmanr

    specs = [spec for spec in scores if spec not in ("dense", "uniform")]
    real = []
    for spec in specs:
        files = sorted(RECORDS.glob(f"{spec.replace(':', ',')}.json"))
        files += sorted(RECORDS.glob(f"{spec.replace(':', ',')},seed=*.json")) if files else []
        values = [json.loads(file.read_text())["metrics"]["acc"]["value"] for file in files]
        if not values:
            return {}
        real.append(sum(values) / len(values))
    found = spearmanr([scores[spec] for spec in specs], real)
    return {
        "methods": len(specs),
        "spearman": round(float(found.statistic), 2),
        "p": round(float(found.pvalue), 2),
    }


def write(family: str, task: str, folder: Path) -> None:
    """Measure the folder's model and write its card; `training` is kept from the one that is there."""
    path = folder / "card.json"
    old = json.loads(path.read_text()) if path.exists() else {}
    found = measure(task, folder)
    scores = {name: round(float(value.mean()), 4) for name, value in found["scores"].items()}
    card = {
        "name": f"pocket-{family}",
        "tasks": [f"pocket-{task}"],
        "parameters": found["parameters"],
        "text": "generated",
        "licence": "Apache-2.0",
        "metric": METRICS[task],
        "samples": SAMPLES,
        "scores": {
            "dense": scores["dense"],
            "uniform": scores["uniform"],
            "bag-of-words": round(found["bag-of-words"], 4),
        },
        "orders": [
            {
                "above": above,
                "below": below,
                "scores": [scores[above], scores[below]],
                "holds": order(found["scores"][above], found["scores"][below]),
            }
            for above, below in ORDERS
        ],
        "likeness": likeness(scores) if task == "sentiment" else {},
        "training": old.get("training", {}),
    }
    path.write_text(json.dumps(card, indent=2) + "\n")
    (folder / "README.md").write_text(text(card))


def heading(card: dict[str, Any]) -> list[str]:
    """Return a card's first lines: licence, name, size, how it was trained."""
    training = card["training"]
    return [
        "---",
        "license: apache-2.0",
        "---",
        f"# {card['name']}, {' and '.join(card['tasks'])}",
        "",
        f"{card['parameters']:,} parameters, trained on generated text only.",
        "",
        f"`{training.get('command')}`: {training.get('steps')} steps of"
        f" {training.get('batch')} samples, {training.get('seconds')} s on one core.",
        "",
    ]


def text(card: dict[str, Any]) -> str:
    """Write a card as markdown."""
    rows = [f"| {name} | {value:.3f} |" for name, value in card["scores"].items()]
    orders = [
        "| {above} > {below} | {scores[0]:.3f} | {scores[1]:.3f} | {holds} |".format(**found)
        for found in card["orders"]
    ]
    alike = [
        f"Rank correlation of these scores with those of a trained MiniLM on SST-2: {found['spearman']:.2f} "
        f"over {found['methods']} methods (p = {found['p']:.2f}). A smoke test, not evidence."
        for found in filter(None, [card["likeness"]])
    ]
    return "\n".join(
        [
            *heading(card),
            f"| {card['samples']:,} validation samples | {card['metric']} |",
            "| --- | --- |",
            *rows,
            "",
            "| known order | first | second | holds |",
            "| --- | --- | --- | --- |",
            *orders,
            "",
            *(line for text in alike for line in (text, "")),
            "`heads50:random` is the mean of 5 seeds. Licence: Apache-2.0.",
            "",
        ]
    )
