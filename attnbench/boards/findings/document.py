"""A board of looks as markdown: claims first, then each look with its command, its tables and pictures."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from tabulate import tabulate

from attnbench.boards.findings import claims, selection
from attnbench.boards.findings.asked import Findings, Shown
from attnbench.boards.findings.claims import FAILS, HOLDS, OPEN, Outcome
from attnbench.boards.findings.drawn import pictures
from attnbench.boards.findings.kept import Seen
from attnbench.boards.findings.selection import HIGH, LOW, METHOD
from attnbench.boards.tables import glossary
from attnbench.errors import UserError
from attnbench.records.inert import clean, escape
from attnbench.studies.compared import DIFFERENCE
from attnbench.studies.passes import DENSE

LINE = 300  # characters of a line that a file gives
PARAGRAPH = 2000


def write(findings: Findings, looks: Sequence[Seen]) -> str:
    """Write the board. Raises UserError for a name that a table has not."""
    parts = [f"# {escape(findings.title, 200)}"]
    parts += [escape(each, PARAGRAPH) for each in findings.about.split("\n\n") if each.strip()]
    parts += _claims(findings, looks)
    for look in looks:
        parts += _look(findings, look)
    file = f"{findings.path.resolve().parent.name}/{findings.path.name}"
    folder = file.partition("/")[0]
    parts.append(f"Made by `attnbench look {file}` and `attnbench leaderboard {file} --output {folder}`.")
    parts.append(glossary.link(findings.path))
    return "\n\n".join(parts) + "\n"


def _claims(findings: Findings, looks: Sequence[Seen]) -> list[str]:
    outcomes = [(look, each) for look in looks for each in decided(findings, look)]
    if not outcomes:
        return []
    rows = [
        [
            escape(each.claim.text, LINE),
            f"[{_where(look)}](#{look.number})",
            escape(each.found, LINE),
            each.verdict,
        ]
        for look, each in outcomes
    ]
    counts = {word: sum(each.verdict == word for _, each in outcomes) for word in (HOLDS, FAILS, OPEN)}
    told = (
        f"{counts[HOLDS]} hold, {counts[FAILS]} fail, {counts[OPEN]} are open. In brackets are 95 % "
        "intervals, where a study has them: such a number is held against its threshold by them, and the "
        "claim is open where they do not tell. The other numbers are held as they are."
    )
    return ["## Claims", _table(["claim", "of", "found", "verdict"], rows), told]


def decided(findings: Findings, look: Seen) -> list[Outcome]:
    """Decide the claims of a look. Raises UserError for a name that a table has not."""
    try:
        return [claims.decide(each, look.tables, [*look.missing]) for each in look.asked.claims]
    except UserError as error:
        raise UserError(f"looks {findings.path}: look {look.number}: {error}") from None


def _where(look: Seen) -> str:
    cell = look.asked.cell("", "")
    return escape(f"{look.number}. {cell['model']}, {cell['task']}")


def _look(findings: Findings, look: Seen) -> Iterator[str]:
    asked = look.asked
    yield f'## <a id="{look.number}"></a>{_where(look)}: {escape(", ".join(asked.names), 200)}'
    yield f"```bash\n{command(look)}\n```"
    yield from filter(None, [_spent(look)])
    if look.missing:
        yield "\n".join(f"- {escape(name, 200)}: {escape(why, LINE)}" for name, why in look.missing.items())
    for each in asked.shows:
        if each.rows.study in look.found:
            try:
                yield f"`{clean(each.text, LINE)}`\n\n{_shown(each, look)}"
            except UserError as error:
                raise UserError(f"looks {findings.path}: shows '{each.text}': {error}") from None
    for drawn in pictures([look]):
        yield f"![{escape(drawn.title, 200)}]({findings.name}/{drawn.file}.svg)"


def command(look: Seen) -> str:
    """Return the command that looks at the same and writes everything, with the page."""
    asked, model = look.asked, look.asked.model
    folder = (
        look.asked.cell("", "")["model"] == model and not model.startswith("pocket-") and "/" not in model
    )
    words = ["attnbench", "look", "--models", f"./{model}" if folder else model, "--tasks", asked.task]
    words += ["--limit", str(asked.limit)] if asked.limit else []
    words += ["--studies", ",".join(asked.studies)]
    words += ["--methods", ",".join(asked.methods)] if asked.methods else []
    return shlex.join([*words, "--output", "look"])


def _spent(look: Seen) -> str:
    """Say how long looking took: what was looked at together has the same numbers."""
    each = {tuple(kept.seconds.get(key, 0.0) for key in ("cpu", "look")) for kept in look.records.values()}
    if not each:
        return ""
    cpu, clock = (sum(spent[k] for spent in each) for k in (0, 1))
    machines = sorted({
        f"{kept.environment.get('processor', 'unknown')}, {kept.environment.get('threads', '?')} thread"
        + ("s" if kept.environment.get("threads") != 1 else "")
        for kept in look.records.values()
    })  # fmt: skip
    return (
        f"Measured in {cpu:,.0f} CPU seconds, {clock:,.0f} on the clock ({escape('; '.join(machines), 200)})."
    )


def _shown(shown: Shown, look: Seen) -> str:
    """Lay out a table: its index, then its columns, an interval beside its number; several methods apart."""
    table = shown.rows.of(look.tables, every=True)
    whole = look.tables[shown.rows.study][shown.rows.table]
    index = [name for name in whole.index.names if name != METHOD]
    for name in (*shown.by, *shown.columns):
        selection.require(name, table)
    if shown.by:
        numbers = [name for name in table if name not in whole.index.names]
        table = table.groupby([METHOD, *shown.by], sort=False, as_index=False)[numbers].mean()
        index = list(shown.by)
    names = [*table]
    ends = [name + end for name in names for end in (LOW, HIGH) if name + end in names]
    left = [METHOD, *whole.index.names, *ends]
    columns = list(shown.columns) or [
        name for name in names if name not in left and not name.endswith(DIFFERENCE)
    ]
    columns = [name for name in columns if table[name].notna().any()]
    several = set(table[METHOD]) != {DENSE}
    header = [*([METHOD] if several else []), *index, *columns]
    rows = []
    for row in range(len(table)):
        labels = [str(table[name].iloc[row]) for name in header[: len(header) - len(columns)]]
        rows.append(
            [escape(text) for text in labels] + [claims.with_interval(table, row, c) for c in columns]
        )
    return _table(list(map(escape, header)), rows, len(columns))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: int = 0) -> str:
    align = ["left"] * (len(header) - numbers) + ["right"] * numbers
    return tabulate(rows, header, tablefmt="github", disable_numparse=True, colalign=align if rows else None)
