"""What a suite claims: how a claim is written.

    claim = spec ">" spec (">" spec)* [where]        logquant3 > linquant3: each scores higher than the next
          | spec "within" number "of" spec [where]   prune80 within 1 of dense: worse by less than a point
          | spec measure ("<" | ">") number [where]  prune80 flips < 3: of less than 3 % of the samples
    measure = "flips" | "answers-changed" | "kl"     shares in percent, kl in nats
    where = "on" task

Points are percent of a perplexity. `decisions` says when a claim holds.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attnbench.errors import UserError, near
from attnbench.methods import spec
from attnbench.records.schema import FIDELITY

NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Claim:
    """Pairs of canonical specs, the first of which is better, or worse by less than `within`.

    With a `bound` (measure, "<" or ">", number) it is the first one's own measure that is claimed of.
    """

    text: str
    pairs: tuple[tuple[str, str], ...]
    within: float | None = None
    task: str | None = None
    bound: tuple[str, str, float] | None = None


def parse(text: str) -> Claim:
    """Read a claim. Raises UserError saying what it may look like."""
    words = text.split()
    task = None
    if len(words) > 2 and words[-2] == "on":
        task, words = words[-1], words[:-2]
    if len(words) == 5 and words[1] == "within" and words[3] == "of" and NUMBER.fullmatch(words[2]):
        return Claim(text, ((_spec(text, words[0]), _spec(text, words[4])),), float(words[2]), task)
    if len(words) == 4 and words[1] in FIDELITY and words[2] in ("<", ">") and NUMBER.fullmatch(words[3]):
        pair = (_spec(text, words[0]), "dense")
        return Claim(text, (pair,), None, task, (words[1], words[2], float(words[3])))
    if len(words) >= 3 and len(words) % 2 and set(words[1::2]) == {">"}:
        names = [_spec(text, word) for word in words[::2]]
        return Claim(text, tuple(itertools.pairwise(names)), None, task)
    raise UserError(
        f"claim '{text}': write 'A > B', 'A > B > C', 'A within 1 of B' or "
        f"'A flips < 3' ({', '.join(FIDELITY)}), then 'on TASK' or not"
    )


def _spec(text: str, word: str) -> str:
    try:
        return spec.format(spec.parse(word))
    except UserError as error:
        raise UserError(f"claim '{text}': {error}") from None


def check(
    texts: Sequence[str], known: Sequence[str], columns: Mapping[tuple[str, str], Sequence[str]]
) -> None:
    """Raise UserError where a claim is malformed, or about a method or task that its suite has not.

    `known` are the suite's methods, `columns` those of each (model, task).
    """
    tasks = list(dict.fromkeys(task for _, task in columns))
    for text in texts:
        claim = parse(text)
        names = list(dict.fromkeys(name for pair in claim.pairs for name in pair))
        for name in names:
            if name not in known:
                told = f"{name} is none of the suite's methods"
                raise UserError(f"claim '{text}': {told}.{near(name, known)}")
        if claim.task is not None and claim.task not in tasks:
            told = f"{claim.task} is none of the suite's tasks, {', '.join(tasks)}"
            raise UserError(f"claim '{text}': {told}.{near(claim.task, tasks)}")
        if not any(is_about(claim, task, specs) for (_, task), specs in columns.items()):
            where = f" on {claim.task}" if claim.task else ""
            raise UserError(f"claim '{text}': no part of the suite has {' and '.join(names)}{where}")


def is_about(claim: Claim, task: str, specs: Sequence[str]) -> bool:
    """Tell whether a claim is about a task that has these methods."""
    names = [name for pair in claim.pairs for name in pair]
    return claim.task in (None, task) and all(name in specs for name in names)
