"""What `attnbench models` and `tasks` say, and the table of tasks/README.md. Imports nothing heavy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attnbench.errors import PARAGRAPH, message, one_line, wrap
from attnbench.inputs import models, tasks
from attnbench.inputs.published import PUBLISHED

NAME = 20  # columns of a task's name
BEGIN, END = "<!-- table: python -m attnbench.inputs.listing -->", "<!-- end -->"
PROBING, PROBED = "<!-- probing: python -m attnbench.inputs.listing -->", "<!-- end of probing -->"
METRICS = {
    "acc": "accuracy", "em": "exact match", "f1": "F1", "mcc": "Matthews correlation", "pearson": "Pearson",
    "spearman": "Spearman", "bleu": "BLEU", "chrf": "chrF", "pseudo_perplexity": "pseudo-perplexity",
    "word_perplexity": "word perplexity", "byte_perplexity": "byte perplexity",
    "bits_per_byte": "bits per byte", "logp": "log-likelihood in nats",
    "acc_middle": "accuracy in the middle",
}  # fmt: skip
FITS = {
    "classification": "a classifier with the task's labels",
    "qa": "a …ForQuestionAnswering",
    "masked-lm": "a …ForMaskedLM, and lm-eval's own for a causal model",
    "causal-lm": "a causal language model",
    "seq2seq": "an encoder-decoder",
}
MISSING = (
    'opus-mt-en-de and its like need pip install "attnbench[sentencepiece]".',
    "Transformer-XL cannot be run: transformers 5 no longer has it. openai-gpt has no likelihoods, since its "
    "tokenizer has neither a first nor a last token, and takes only methods that change probabilities, since "
    "it does not use transformers' attention interface.",
)


def model_lines(width: int = PARAGRAPH) -> Iterator[str]:
    """Describe every model that has a short name, then what it runs, with the dense score of its card."""
    for family, folders in models.pocket_families().items():
        cards = {task: _read(folder / "card.json") for task, folder in folders.items()}
        sizes = {card["parameters"] / 1e6 for card in cards.values() if "parameters" in card}
        config = _read(next(iter(folders.values())) / "config.json")
        size = f"{max(sizes):.1f}M parameters, " if sizes else ""
        told = f"{size}{_heads(config)} heads, Apache-2.0, generated text"
        yield wrap(f"pocket-{family} (short: {family})  {told}", width)
        for task, card in cards.items():
            scores, metric = card.get("scores", {}), card.get("metric")
            if isinstance(metric, dict):  # a folder that serves several tasks
                scores, metric = scores[task], metric[task]
            dense = f"{metric} {stated(metric, scores['dense'])}" if metric and "dense" in scores else ""
            yield f"  {task:20} {dense}".rstrip()
    longest = max(len(hub) for found in PUBLISHED.values() for hub, _ in found.tasks.values())
    beside = width - len(f"  {'':{NAME}} {'':{longest}} ")
    for name, found in PUBLISHED.items():
        yield f"{name}  {found.parameters} parameters, {found.heads} heads, {found.licence}"
        for task, (identifier, scores) in found.tasks.items():
            said = ", ".join(f"{METRICS[metric]} {value:.3f}" for metric, value in scores.items())
            filled = longest if len(said) <= beside else 0  # in columns, where there is room for them
            yield wrap(f"  {task:{NAME}} {identifier:{filled}} {said}".rstrip(), width, 4)
    yield from (wrap(line, width) for line in MISSING)


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def stated(metric: str, value: float) -> str:
    """Write a pocket card's score as records have it: a card keeps BLEU as a fraction, they go up to 100."""
    return f"{100 * value:.1f}" if metric == "BLEU" else f"{value:.3f}"


def _heads(config: dict[str, int]) -> str:
    layers = config.get("num_hidden_layers") or config.get("n_layer") or config.get("encoder_layers")
    heads = config.get("num_attention_heads") or config.get("n_head") or config.get("encoder_attention_heads")
    both = f"{layers}+{config['decoder_layers']}" if "decoder_layers" in config else layers
    return f"{both}×{heads}"


def task_lines(include_path: str | None = None, width: int = PARAGRAPH) -> Iterator[str]:
    """Describe every task: what it needs, which short names have it, what it is, and its parts."""
    for name, text in _task_lines(include_path):
        yield wrap(f"{name:{NAME}} {text}", width, NAME + 1)


def _task_lines(include_path: str | None) -> Iterator[tuple[str, str]]:
    for task in tasks.available(include_path).values():
        named = models_for(task.name)
        needs = FITS.get(task.head or "", "an encoder")
        yield one_line(task.name), message(task.description or task.dataset)
        yield "", f"for {needs}: {', '.join(named) if named else 'give a Hub id or a folder'}"
        if task.any_length:
            yield "", f"at any length in tokens: {task.name}_1024"
        if task.configurations:
            first, *_, last = task.parts()
            told = message(f"its {len(task.configurations)} parts by themselves: {first}, …, {last}")
            yield "", told
    yield "FILE.csv, FILE.jsonl", "your own data: the columns text and label; text2 and split are optional"
    yield "", "for a classifier: give a Hub id or a folder"
    yield "FILE.jsonl, .parquet", "the columns context, question, answer_prefix, answer, max_new_tokens"
    yield "", "for a causal language model"
    yield "any other name", "a task of lm-eval's own, as lambada_openai or hellaswag"
    yield "", "for a causal language model, which also takes blimp and wikitext, by their likelihood"


def models_for(task: str) -> list[str]:
    """List the short names that have a checkpoint for a task."""
    pocket = [f"pocket-{family}" for family, found in models.pocket_families().items() if task in found]
    return pocket + [name for name, found in PUBLISHED.items() if task in found.tasks]


def table() -> str:
    """Return the bundled tasks as a markdown table, from what their YAML files say."""
    rows: list[tuple[str, ...]] = [
        ("task", "what", "source", "licence", "metric", "evaluated on", "calibration")
    ]
    rows += [_row(task) for task in tasks.available().values()]
    return _markdown(rows)


def probing_table() -> str:
    """Return the bundled probing tasks as a markdown table, from what their YAML files say."""
    rows: list[tuple[str, ...]] = [("probing task", "level", "what", "data", "licence")]
    for path in sorted((tasks.folder() / "probing").glob("*.yaml")):
        content = tasks.read_yaml(path)
        named = "/".join(filter(None, (content.get("dataset_path"), content.get("dataset_name"))))
        data = f"Hub: `{named}`" if named else content["source"]
        if "file" in content:
            data = f"`source=`: SentEval's `{content['file']}`"
        said = (content["level"], content["description"], data, content["licence"])
        rows.append((f"`{content['probe']}`", *said))
    return _markdown(rows)


def _markdown(rows: list[tuple[str, ...]]) -> str:
    lines = [rows[0], ("---",) * len(rows[0]), *rows[1:]]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _row(task: tasks.TaskFile) -> tuple[str, ...]:
    content = tasks.read_yaml(Path(task.path))
    split = content.get("test_split") or content.get("validation_split") or ""
    fitted = (content.get("metadata") or {}).get("calibration")
    generated = "custom_dataset" in content
    return (
        f"`{task.name}`",
        task.description,
        f"generated by `{task.dataset.rpartition('.')[0]}`" if generated else f"Hub: `{task.dataset}`",
        task.licence,
        ", ".join(METRICS.get(name, name) for name in task.metrics),
        f"`{split}`, {task.samples:,}" if task.samples else f"`{split}`",
        f"`{fitted['split']}`, {fitted['samples']}" if fitted else "`--calibration` only",
    )


def main(path: Path) -> None:
    """Write the tables into a README, each between its two marks."""
    text = path.read_text(encoding="utf-8")
    for begin, end, made in ((BEGIN, END, table()), (PROBING, PROBED, probing_table())):
        before, after = text.partition(begin)[0], text.partition(end)[2]
        text = f"{before}{begin}\n{made}{end}{after}"
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(tasks.folder() / "README.md")
