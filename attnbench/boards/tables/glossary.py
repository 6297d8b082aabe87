"""The words that are ours, as docs/results.md has them: what stands at the foot of every board."""

from __future__ import annotations

from pathlib import Path

WORDS = {
    "cell": "one model on one task with one method: one record",
    "column": "one model on one task: all methods that are compared there, on the same samples",
    "spec": "a method as it is written: name, amount, modifiers "
    "(`heads50:gradient:per-layer`); `+` applies one after the other",
    "dense": "the unmodified model",
    "uniform": "the uniform-attention baseline: every visible key has the same weight",
    "random baseline, control": "a method that draws at random what the method above it chooses, at the "
    "same amount: `prune80:random`",
    "sampled methods": "methods that draw at random; each is measured with several seeds, and its "
    "row is their mean",
    "kept": "the share that is left of what attention adds over `uniform`",
    "receipt": "the proof in a record that the method ran at every place where it should",
    "site": "a place where a model attends: self-attention of an encoder or decoder, or "
    "cross-attention, in one layer",
    "simulated": "computed as if work were saved; nothing runs faster",
    "realised": "the work is really left out, and time and memory are measured",
    "numerical floor": "how much a score changes when the same cell is measured again with other "
    "batches and another number of threads; a smaller difference gets neither ▼ "
    "nor ▲",
    "margin": "the loss that counts as none: 1 point, or 1 % of a perplexity, unless a suite says otherwise",
    "sweep": "one method at several amounts, as in `prune{25,50,75}`",
    "mostly dense": "the mark of a row in which less than half of the scored tokens saw a cut cache",
    "pocket model": "a tiny model, trained on generated text, that comes with attnbench: a "
    "smoke test, not evidence",
    "board": "what `attnbench leaderboard` makes of records: tables, notes, pictures, or a page",
    "look": "a page and tables of what heads do, made by `attnbench look`",
    "study": "what `attnbench look` measures of heads and attention, as a method is what "
    "`attnbench run` applies",
    "suite": "a TOML file with models, tasks, methods and claims; rendered, it is a board",
    "claim": "a sentence of a suite that measurement decides: `prune80 within 1 of "
    "dense` holds, fails or is undecided; a claim about looks holds, fails or "
    "is open",
}
DOCUMENT = "docs/results.md"
ANCHOR = "the-words-that-are-ours"


def link(board: Path) -> str:
    """Point from a board's file to the words, by a link where the documents lie beside its folder."""
    if (board.resolve().parent.parent / DOCUMENT).is_file():
        return f"The words of this page are explained in the [glossary](../{DOCUMENT}#{ANCHOR})."
    return f"The words of this page are explained in {DOCUMENT} of attnbench."
