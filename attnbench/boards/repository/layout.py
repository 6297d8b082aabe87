"""Lay out a repository of results, from suites here or from those that lie in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from attnbench.boards import checks, publish, suite
from attnbench.boards.formats import parquet
from attnbench.boards.repository.workflow import workflow
from attnbench.boards.suite import Suite
from attnbench.errors import UserError, require_folder
from attnbench.records import merging
from attnbench.records.inert import clean

BOARDS = "boards"  # suites and what is made of them; a clone may have any name, this folder has its own
WORKFLOW = ".github/workflows/check.yml"
FORMATS = ("md", "csv", "html", publish.PLOTS, "parquet", "ranks")
ROWS = """```bash
pip install attnbench=={version}
$EDITOR {boards}/{name}.toml                 # methods = [..., "my-method50"]
attnbench run {boards}/{name}.toml           # what is recorded is not measured again
attnbench publish .                          # renders all boards, and this page, anew
git add . && git commit -m "Add my-method50"
```"""


def lay_out(folder: str | Path, paths: Sequence[str | Path] = ()) -> list[Suite]:
    """Write suites, their records, boards, pages and tables, the card and the workflow into a folder.

    Without paths the folder's own suites are rendered anew. A record that lies there is never overwritten; a
    workflow that lies there is the owner's. Raises UserError, before anything is written, where a suite or
    its records cannot be believed, and where a record contradicts one that is there.
    """
    target = Path(folder)
    require_folder("publish", folder)
    home = target / BOARDS
    asked = [suite.load(path) for path in (paths or sorted(home.glob("*.toml")))]
    if not asked:
        raise UserError(
            f"{folder}: no suite in {home}. Name those to publish: attnbench publish DIR SUITE.toml"
        )
    names = [each.name for each in asked]
    for each in asked:
        if names.count(each.name) > 1:
            raise UserError(f"two suites are named {each.name}: a repository has room for one. Rename one.")
        _believe(each)
    for each in asked:
        _bring(each, home)
    own = [suite.load(path) for path in sorted(home.glob("*.toml"))]
    for each in own:
        board = publish.load(str(each.path), each.records)
        publish.write(publish.files(board, FORMATS, each.name), home)
    written = {"README.md": card(own).encode()}
    if not (target / WORKFLOW).exists():
        written[WORKFLOW] = workflow(metadata.version("attnbench")).encode()
    publish.write(written, target)
    return own


def _believe(asked: Suite) -> None:
    """Raise UserError for a suite without records, or with one that does not hold."""
    if not any(asked.records.glob("*/*/*.json")):
        raise UserError(f"{asked.path}: nothing is measured. `attnbench run {asked.path}` does it.")
    found = list(checks.problems(asked.records, asked))
    if found:
        more = f" ({len(found) - 1} more)" if found[1:] else ""
        raise UserError(f"{asked.records}: {found[0]}{more}. `attnbench leaderboard --check` lists them.")


def _bring(asked: Suite, home: Path) -> None:
    """Copy a suite and its records to their places, unless they are there."""
    place = home / asked.path.name
    if place.resolve() == asked.path.resolve():
        return
    found = merging.merge([asked.records], home / "records" / asked.name)
    if found.problems:
        raise UserError(f"{found.problems[0]}. Delete the one that is not to stand, or verify both.")
    publish.write({asked.path.name: asked.path.read_bytes()}, home)


def card(suites: Sequence[Suite]) -> str:
    """Write the front page: what the Hub reads of it as a data set, the boards, how to add a row."""
    head = ["---", f"license: {parquet.LICENCE}", "tags:", "- attention", "- compression", "- benchmark"]
    head.append("configs:")
    for each in suites:
        head += [f"- config_name: {json.dumps(each.name)}", "  data_files:", "  - split: results"]
        head.append(f"    path: {json.dumps(f'{BOARDS}/{each.name}-parquet/{parquet.FILE}')}")
    lines = []
    for each in suites:
        title, place = clean(each.title, 200).translate(PLAIN), f"{BOARDS}/{each.name}"
        cells = [
            f"[{title}]({place}.md)",
            f"[page]({place}.html), [ranks]({place}-ranks.md)",
            f"[csv]({place}.csv), [parquet]({place}-parquet/{parquet.FILE})",
            f"[records]({BOARDS}/records/{each.name})",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    told = {"version": metadata.version("attnbench"), "boards": BOARDS, "name": suites[0].name}
    return "\n\n".join([
        "\n".join([*head, "---"]), "# Results of attention-compression methods",
        "Measured by attnbench: every method against the dense model on the same samples, with receipts. "
        "This page is made by `attnbench publish`: what to change is in the suites.",
        "\n".join(["| board | | as data | measured |", "|---|---|---|---|", *lines]),
        "## Add a row", ROWS.format(**told),
        "A pull request is checked: its records by their samples, its boards by their records, and some of "
        "its new cells are measured again. A comment says how its rows differ from those that were there.",
        "## Licence",
        "The numbers are given to the public domain: [CC0 1.0]"
        "(https://creativecommons.org/publicdomain/zero/1.0/). Models and data sets have licences of their "
        "own.",
    ]) + "\n"  # fmt: skip


PLAIN = str.maketrans({character: f"\\{character}" for character in "[]|\\`*_<"})
