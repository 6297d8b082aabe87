"""Describe a method or a study from its class, and what a method does to a probability."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from attnbench.errors import PARAGRAPH, wrap
from attnbench.methods.declared import place
from attnbench.methods.facts import of as known
from attnbench.methods.fields import amount_field
from attnbench.methods.plugins import registry
from attnbench.methods.protocol import Method, Site, stages_of
from attnbench.methods.spec import parse
from attnbench.methods.study import Study, alone, observed

if TYPE_CHECKING:
    from torch import Tensor

PARTS = ("Shapes", "Needs", "Source", "Differs")  # a docstring's sentences begin with these
GRID = 2048  # probabilities tried from LOWEST to 1
LOWEST = 1e-4
FEW = 32  # more levels than this are only counted
CURVE = (48, 12)  # columns and rows
LABEL = 9  # columns of a label


def describe(name: str, width: int = PARAGRAPH) -> str:
    """Return all that `attnbench methods NAME` shows, for so many columns."""
    cls = registry().methods[name]
    lines = [_titled(name, cls.examples, width), ""]
    first, parts = docstring(cls)
    lines += [wrap(first, width, 0), "", *(_wrapped(label, text, width) for label, text in parts.items())]
    changed = [*stages_of(cls)]
    fits = cls.fit is not Method.fit
    stages = ("fit, then " if fits else "") + (", ".join(changed) or "none")
    facts = [("stages", stages), ("defined", place(cls)), *_declarations(cls)]
    facts += known(cls).lines()
    lines += [_wrapped(label, text, width) for label, text in facts]
    lines += ["", "fields", *_fields(cls)]
    if changed == ["probs"] and not fits:
        lines += _transfer(cls, width)
    return "\n".join(lines)


def describe_study(name: str, width: int = PARAGRAPH) -> str:
    """Return all that `attnbench studies NAME` shows, for so many columns."""
    cls = registry().studies[name]
    first, parts = docstring(cls)
    looks = "runs by itself" if alone(cls) else ", ".join(observed(cls))
    facts = [("looks at", looks), ("runs on", ", ".join(cls.data)), ("defined", place(cls))]
    lines = [_titled(name, cls.examples, width), "", wrap(first, width, 0), ""]
    lines += [_wrapped(label, text, width) for label, text in (*parts.items(), *facts)]
    return "\n".join([*lines, "", "fields", *_fields(cls)])


def _titled(name: str, examples: Sequence[str], width: int) -> str:
    """Write a name and its examples, as many of them on a line as it holds."""
    told = f"e.g. {', '.join(examples)}" if examples else "examples: none yet"
    return wrap(f"{name}    {told}", width, len(name) + 9)


def docstring(cls: type[Method | Study]) -> tuple[str, dict[str, str]]:
    """Split a docstring into its first line and what follows, by the words its sentences begin with."""
    first, _, rest = (inspect.getdoc(cls) or "").partition("\n")
    text = " ".join(rest.split())
    found = re.split(rf"(?:^|(?<=[.;:)] ))({'|'.join(PARTS)})\b:? ?", text)
    parts = {"formula": found[0].strip()} if found[0].strip() else {}
    for label, body in zip(found[1::2], found[2::2], strict=True):
        label = label.lower()
        parts[label] = f"{parts[label]} {body.strip()}" if label in parts else body.strip()
    return first, parts


def _wrapped(label: str, text: str, width: int) -> str:
    return wrap(f"{label:{LABEL}}{text}", width, LABEL)


def _declarations(cls: type[Method]) -> list[tuple[str, str]]:
    amount = amount_field(cls)
    said = []
    if getattr(cls, "zero", None) is not None and amount is not None:
        said.append(("zero", f"at {amount.name} {cls.zero:g} it changes nothing"))
    if getattr(cls, "grows", ""):
        said.append(("grows", f"{cls.grows} grows with the amount"))
    if cls.rows == "all":
        said.append(("rows", "needs all query rows: not applicable where attention is causal"))
    if cls.empty == "uniform":
        said.append(("empty", "a query with no key left attends uniformly"))
    return said


def _fields(cls: type[Method | Study]) -> list[str]:
    amount, shown = amount_field(cls), []
    for field in sorted(dataclasses.fields(cls), key=lambda field: field is not amount):
        if not field.init:
            continue
        kind = getattr(field.type, "__name__", field.type)
        given = "" if field.default is dataclasses.MISSING else f" = {field.default!r}"
        note = "  (the amount)" if field is amount else ""
        shown.append(f"  {field.name.replace('_', '-')}: {kind}{given}{note}")
    return shown


def _transfer(cls: type[Method], width: int) -> list[str]:
    """Show what each example makes of a probability, where that depends on nothing else."""
    import torch

    lines: list[str] = []
    grid = torch.logspace(torch.tensor(LOWEST).log10().item(), 0, GRID)
    for spec in cls.examples:
        (method,) = parse(spec)
        try:
            together = _row(method, grid)
            alone = torch.cat([_row(method, value) for value in grid[::16, None]])
            backward = _row(method, grid.flip(0)).flip(0)
        except Exception:
            return lines  # it wants more of its site than a row of probabilities has
        if not torch.equal(alone, together[::16]) or not torch.equal(backward, together):
            return lines  # depends on the rest of the row: no function of one probability
        lines += ["", *_levels(spec, together, width)]
        if spec == cls.examples[0]:
            lines += ["", *_curve(grid, together)]
    return lines


def _row(method: Method, values: Tensor) -> Tensor:
    """Return what a method makes of one query's probabilities (keys)."""
    site = Site("", "encoder", 0, heads=1, head_dim=1)
    return method.probs(values.clone().view(1, 1, 1, -1), site).view(-1)


def _levels(spec: str, values: Tensor, width: int) -> list[str]:
    levels = values.unique().tolist()
    if len(levels) > FEW:
        told = f"{spec}: {len(levels)} different values for {GRID} probabilities from {LOWEST:g} to 1"
        return [wrap(told, width)]
    return [_wrapped("levels", f"{spec}: " + ", ".join(f"{level:.4g}" for level in levels), width)]


def _curve(grid: Tensor, values: Tensor) -> list[str]:
    """Plot output against input, both on a log scale from LOWEST to 1, zeros on a line of their own."""
    import math

    columns, rows = CURVE
    canvas = [[" "] * columns for _ in range(rows + 1)]
    for x, y in zip(grid.tolist(), values.tolist(), strict=True):
        column = min(columns - 1, int(columns * (1 - math.log(x) / math.log(LOWEST))))
        share = 0.0 if y <= 0 else max(0.0, min(1.0, 1 - math.log(y) / math.log(LOWEST)))
        row = rows if y <= 0 else min(rows - 1, int(rows * (1 - share)))
        canvas[row][column] = "#"
    marks = {0: "1", rows - 1: f"{LOWEST:g}", rows: "0"}
    drawn = [f"{marks.get(at, ''):>7} |{''.join(line).rstrip()}" for at, line in enumerate(canvas)]
    ends = f"{LOWEST:g}{'1':>{columns - len(f'{LOWEST:g}')}}"
    return ["out, log scale", *drawn, f"{'':8}+{'-' * columns}", f"{'':9}{ends}  in"]
