"""Write docs/methods.md from the built-in methods' classes.

python -m attnbench.methods.catalogue > docs/methods.md
"""

from __future__ import annotations

import dataclasses
import html
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from attnbench.errors import UserError
from attnbench.methods import facts
from attnbench.methods.fields import amount_field
from attnbench.methods.plugins import registry
from attnbench.methods.protocol import Method, stages_of
from attnbench.methods.spec import parse

JI = "https://aclanthology.org/2021.findings-acl.363/"
FUNCTIONS = {  # the attention quantisers of Ji et al.'s code, in its order
    1: "linear_slinear",
    2: "linear_slinear_midval",
    3: "linear_slinear_clamped",
    4: "linear_slinear_clamped_midval",
    5: "linear_slog",
    6: "linear_slog_midval",
    7: "linear_slog_clamped_midval",
    8: "uniform_slinear_clamped_mean",
    9: "uniform_slog_clamped_mean",
    10: "uniform_slog_mean",
    11: "binarization",
}
Rows = list[tuple[str, ...]]
HEAD = """# Methods

<!-- written by: python -m attnbench.methods.catalogue > docs/methods.md -->

What `attnbench methods` lists, with every method's formula, source and fields. `attnbench methods NAME` shows
one with a quantiser's levels and curve; `attnbench methods --examples` prints all examples as one argument.
Every method also takes `on=encoder|decoder|cross` and `layers=0-5`. Below each: what its numbers are held
against and by which test, what its source publishes and how that stands on the boards, and its overhead: the
time of a forward pass over that of dense SDPA in the same run, from [benchmarks](../benchmarks/README.md).
"""
ROOT = Path(__file__).resolve().parents[2]  # of the repository, which this document is part of
SIZES = "batch "  # how columns of the table of overheads begin


def built_in() -> dict[str, type[Method]]:
    """Return the methods of this package by name, plugins of others left out."""
    known = registry().methods
    return {
        name: known[name] for name in sorted(known) if known[name].__module__.startswith("attnbench_plugins.")
    }


def render() -> str:
    """Return docs/methods.md."""
    methods = built_in()
    rows: Rows = [("`dense`", "The unmodified model.", "")]
    rows += [
        (f"[`{usual(name)}`](#{_anchor(name)})", _lines(cls)[0], _stages(cls))
        for name, cls in methods.items()
    ]
    parts = [HEAD, _table(("spec", "what it does", "stages"), rows), _quantisers(methods)]
    parts += [_section(name, cls) for name, cls in methods.items()]
    return "\n".join(parts)


def usual(name: str) -> str:
    """Write a method as it is asked for first: its example, without fields and terms that may be left out."""
    examples = registry().methods[name].examples
    family, *variant = name.split(":")
    for term in examples[0].split("+") if examples else ():
        for text in (":".join([term.partition(":")[0], *variant]), term):
            if term.startswith(family) and _is_of(name, text):
                return text
    return examples[0] if examples else name


def quantisers() -> dict[int, str]:
    """Return the method of each quantiser of Ji et al. 2021 by its number, which docstrings name."""
    found: dict[int, str] = {}
    for name, cls in built_in().items():
        for number in re.findall(r"function (\d+) of Ji et al\. 2021", " ".join(_lines(cls))):
            if int(number) in found:
                raise ValueError(f"{found[int(number)]} and {name} are both function {number}")
            found[int(number)] = name
    return found


def _quantisers(methods: dict[str, type[Method]]) -> str:
    """Say which spec each function of Ji et al. is, then which other methods come from them."""
    of = quantisers()
    specs = {number: methods[name].examples[0] for number, name in of.items()}
    rows: Rows = [(str(number), f"`{name}`", f"`{specs[number]}`") for number, name in FUNCTIONS.items()]
    others = [
        cls.examples[0]
        for name, cls in methods.items()
        if name not in of.values() and JI in " ".join(_lines(cls))
    ]
    return (
        "## The quantisers of Ji et al. 2021\n\n"
        f"{_table(('function', 'name in their code', 'here'), rows)}\n"
        f"Also from or for that paper: {', '.join(f'`{spec}`' for spec in others)}.\n"
    )


def _section(name: str, cls: type[Method]) -> str:
    first, *rest = _lines(cls)
    amount = amount_field(cls)
    inherited = {field.name for field in dataclasses.fields(Method)}
    fields = []
    for field in dataclasses.fields(cls):
        if field.init and field.name not in inherited:
            given = "" if field.default is dataclasses.MISSING else f" = {field.default}"
            label = "amount" if field is amount else field.name.replace("_", "-")
            fields.append(f"`{label}`: {field.type}{given}")
    text = [f"## {name}\n", first, "", *rest, ""]
    told = [f"Examples: {', '.join(f'`{example}`' for example in cls.examples)}."]
    told += [f"Fields: {', '.join(fields)}."] if fields else []
    return "\n".join([*text, " ".join(told), "", *_known(cls), ""])


def _known(cls: type[Method]) -> list[str]:
    """List what a method agrees with, what its source publishes, and what it takes."""
    known = facts.of(cls)
    lines = [f"- Agrees with {what}: `{test}`." for what, test in known.agrees]
    lines = lines or [f"- Agrees: {facts.UNCHECKED}."]
    for says, suite in known.published:
        board = ROOT / Path(suite).with_suffix(".md")
        measured = "\n## Models\n" in board.read_text(encoding="utf-8")
        told = "measured" if measured else "not measured yet"
        lines.append(f"- Its source: {says}. On such models {told}; [{board.stem}](../{suite}) asks for it.")
    if claims := _claims(cls.name):
        lines.append(f"- On real models: {'; '.join(claims)}.")
    return [*lines, f"- Overhead: {_overhead(cls.name)}."]


def _claims(name: str) -> list[str]:
    """Say how claims that begin with a method came out on real models, as the boards have them."""
    found: dict[str, list[str]] = {}
    for board in sorted((ROOT / "leaderboards").glob("*.md")):
        for row in _tables(board.read_text(encoding="utf-8"), "## Claims"):
            text, verdict = html.unescape(row["claim"]), row.get("verdict", "")
            if verdict in ("holds", "fails", "undecided") and _is_of(name, text.split()[0]):
                place = f"[{board.stem}](../leaderboards/{board.name})"
                found.setdefault(text, []).append(f"{verdict} on {row['model']} {row['task']} ({place})")
    return [f"`{text}` {', '.join(told)}" for text, told in found.items()]


def _overhead(name: str) -> str:
    """Say what a method takes, as the table of benchmarks has it."""
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    told = []
    for row in _tables(text, "## Attention"):
        if _is_of(name, row.get("variant", "")):
            sizes = [key for key in row if key.startswith(SIZES)]
            told += (
                [f"`{row['variant']}` {', '.join(f'{row[key]} ({key})' for key in sizes)}"] if sizes else []
            )
    for row in _tables(text, "## Caches"):
        if _is_of(name, row.get("method", "")):
            first, after = (row[key].partition(" ")[0] for key in ("first token", "tokens after it"))
            told.append(
                f"`{row['method']}` on {row['prompt']} tokens of prompt, realised: {first} times dense's "
                f"time to the first token, {after} times as fast after it"
            )
    for row in _tables(text, "## Whole prompts"):
        if _is_of(name, row.get("method", "")):
            told += [
                f"`{row['method']}` {value.partition(' ')[0]} ({key})"
                for key, value in row.items() if key.startswith("2,048")
            ]  # fmt: skip
    return "; ".join(told) or "not measured yet"


def _is_of(name: str, text: str) -> bool:
    """Tell whether a spec is of one method alone, by its name."""
    try:
        methods = parse(text)
    except UserError:
        return False
    return [method.name for method in methods] == [name]


def _tables(text: str, heading: str) -> Iterator[dict[str, str]]:
    """Yield the rows of the first table under a heading of a document, by the names of their columns."""
    part = text.partition(f"{heading}\n")[2].partition("\n## ")[0]
    header: list[str] = []
    for line in part.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if header and not cells:
            return
        if header and set(line) - set("|-: "):
            yield dict(zip(header, cells, strict=False))
        header = header or cells


def _lines(cls: type[Method]) -> list[str]:
    """Return a docstring's first line and the lines of the rest."""
    first, _, rest = (inspect.getdoc(cls) or "").partition("\n")
    return [first, *rest.strip().splitlines()]


def _stages(cls: type[Method]) -> str:
    changed = [*stages_of(cls)]
    return ", ".join(["fit"] * (cls.fit is not Method.fit) + changed)


def _anchor(name: str) -> str:
    return name.replace(":", "")


def _table(head: tuple[str, ...], rows: Rows) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |\n" for line in lines)


if __name__ == "__main__":
    print(render(), end="")
