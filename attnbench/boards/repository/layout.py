"""Lay out a repository of results, from suites here or from those that lie in it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from attnbench.boards import publish
from attnbench.boards.formats import parquet
from attnbench.boards.repository import entries, versions
from attnbench.boards.repository.entries import Entry
from attnbench.boards.repository.workflow import workflow
from attnbench.boards.suite import Suite
from attnbench.errors import UserError, require_folder
from attnbench.records.inert import clean

BOARDS = "boards"  # suites and what is made of them; a clone may have any name, this folder has its own
WORKFLOW = ".github/workflows/check.yml"
ROWS = """```bash
pip install attnbench=={version}
$EDITOR {boards}/{name}.toml                 # methods = [..., "my-method50"]
attnbench run {boards}/{name}.toml           # what is recorded is not measured again
attnbench publish .                          # renders all boards, and this page, anew
git add . && git commit -m "Add my-method50"
```"""


def lay_out(folder: str | Path, paths: Sequence[str | Path] = (), keep_as: str | None = None) -> list[Entry]:
    """Write suites and files of looks, their records, boards, pages and tables, the card and the workflow.

    Without paths the folder's own are rendered anew; `keep_as` also copies the boards under that name, to
    stay as they are. A record that lies there is never overwritten; a workflow that lies there is the
    owner's. Raises UserError, before anything is written, where a file or its records cannot be believed,
    and where a record contradicts one that is there.
    """
    target = Path(folder)
    require_folder("publish", folder)
    home = target / BOARDS
    if keep_as is not None:
        versions.require_new(target, keep_as)
    asked = [entries.load(path) for path in (paths or sorted(home.glob("*.toml")))]
    if not asked:
        raise UserError(
            f"{folder}: no suite in {home}. Name those to publish: attnbench publish DIR SUITE.toml"
        )
    names = [each.name for each in asked]
    for each in asked:
        if names.count(each.name) > 1:
            raise UserError(f"two suites are named {each.name}: a repository has room for one. Rename one.")
        if found := list(entries.problems(each)):
            more = (
                f" ({len(found) - 1} more). `attnbench leaderboard --check` lists them." if found[1:] else ""
            )
            raise UserError(f"{found[0]}{more}")
    for each in asked:
        _bring(each, home)
    own = [entries.load(path) for path in sorted(home.glob("*.toml"))]
    for each in own:
        publish.write(entries.rendered(each), home)
    if keep_as is not None:
        versions.keep(target, home, keep_as)
    written = {"README.md": card(own, versions.known(target)).encode()}
    if not (target / WORKFLOW).exists():
        written[WORKFLOW] = workflow(metadata.version("attnbench")).encode()
    publish.write(written, target)
    return own


def _bring(asked: Entry, home: Path) -> None:
    """Copy a file and its records to their places, unless they are there."""
    place = home / asked.path.name
    if place.resolve() == asked.path.resolve():
        return
    if problems := entries.bring(asked, home / "records" / asked.name):
        raise UserError(f"{problems[0]}. Delete the one that is not to stand, or verify both.")
    publish.write({asked.path.name: asked.path.read_bytes()}, home)


def card(found: Sequence[Entry], kept: Mapping[str, Sequence[str]]) -> str:
    """Write the front page: what the Hub reads of it as a data set, the boards, how to add a row."""
    suites = [each for each in found if isinstance(each, Suite)]
    head = ["---", f"license: {parquet.LICENCE}", "tags:", "- attention", "- compression", "- benchmark"]
    head += ["configs:"] if suites else []
    for each in suites:
        head += [f"- config_name: {json.dumps(each.name)}", "  data_files:", "  - split: results"]
        head.append(f"    path: {json.dumps(f'{BOARDS}/{each.name}-parquet/{parquet.FILE}')}")
    lines = []
    for one in found:
        place, cells = f"{BOARDS}/{one.name}", ["", ""]
        if isinstance(one, Suite):
            cells = [
                f"[page]({place}.html), [ranks]({place}-ranks.md)",
                f"[csv]({place}.csv), [parquet]({place}-parquet/{parquet.FILE})",
            ]
        title = f"[{clean(one.title, 200).translate(PLAIN)}]({place}.md)"
        lines.append(f"| {' | '.join([title, *cells, f'[records]({BOARDS}/records/{one.name})'])} |")
    parts = [
        "\n".join([*head, "---"]), "# Results of attention-compression methods",
        "Measured by attnbench: every method against the dense model on the same samples, with receipts. "
        "This page is made by `attnbench publish`: what to change is in the suites.",
        "\n".join(["| board | | as data | measured |", "|---|---|---|---|", *lines]),
    ]  # fmt: skip
    if suites:
        told = {"version": metadata.version("attnbench"), "boards": BOARDS, "name": suites[0].name}
        parts += ["## Add a row", ROWS.format(**told)]
    parts.append(
        "A pull request is checked: its records by their samples, its boards by their records, and some of "
        "its new cells are measured again. A comment says how its rows differ from those that were there."
    )
    parts += ["## To cite", _versions(kept)]
    return "\n\n".join([
        *parts, "## Licence",
        "The numbers are given to the public domain: [CC0 1.0]"
        "(https://creativecommons.org/publicdomain/zero/1.0/). Models and data sets have licences of their "
        "own.",
    ]) + "\n"  # fmt: skip


def _versions(kept: Mapping[str, Sequence[str]]) -> str:
    """Say how a row is linked to, and list the versions that stay as they are, the last first."""
    told = (
        "A row of a board has a link of its own: `#MODEL/TASK/METHOD` after the page's address, as its "
        "record is named. `attnbench publish . --keep-as 2026.1` copies all boards to where they stay as "
        "they are."
    )
    lines = []
    for name, boards in reversed([*kept.items()]):
        links = [f"[{each}]({versions.FOLDER}/{name}/{each}.md)" for each in boards]
        lines.append(f"- {name}: {', '.join(links)}")
    return "\n\n".join([told, *(["\n".join(lines)] if lines else [])])


PLAIN = str.maketrans({character: f"\\{character}" for character in "[]|\\`*_<"})
