"""A board as one HTML file: no server, no network; its script sorts, filters and opens records."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from importlib import resources
from typing import Any

from attnbench.boards import choice, decisions
from attnbench.boards.board import Board, Section
from attnbench.boards.page import apart
from attnbench.boards.page.markup import WIDE, code, safe
from attnbench.boards.pictures.points import Picture
from attnbench.boards.tables import anchors, cells, footnotes, glossary, leaderboard, summary
from attnbench.boards.tables.cells import COSTS, left_out, score_title, task_of
from attnbench.inputs.gguf_files import ENDING
from attnbench.inputs.names import OWN
from attnbench.inputs.prompting import NAMES
from attnbench.methods.families import name_without_seed
from attnbench.records.inert import clean
from attnbench.statistics.row import Row

NUMBERS = {
    "score": "score", cells.DIFFERENCE: "difference", "kept": "kept",
    "flips": "flips", "answers changed": "answers_changed", "KL": "kl", "sparsity": "sparsity",
    "bits": "bits", "heads": "heads", "sim. FLOPs": "flops_simulated", "FLOPs": "flops_realised",
    "latency": "latency", "memory": "memory", "KV bytes": "kv_bytes", "cache": "cache", "kv": "kv",
    "divergence": "divergence",
}  # fmt: skip
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def to_html(board: Board, pictures: Iterable[tuple[Picture, bytes]] = ()) -> str:
    """Write the page; `pictures` come with their SVG."""
    title = clean(board.suite.title, 200) if board.suite else "Leaderboard"
    about = board.suite.about.split("\n\n") if board.suite else []
    bodies = [leaderboard.plain_body(item) for item in board.records]
    places = {tuple(body["cell"].values()): place for place, body in enumerate(bodies)}
    for body in bodies:
        body["reproduce"] = reproduce(body)
        body["provenance"].pop("arrays", None)  # the hash of a file that the page has not
    data = json.dumps(bodies, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        data = data.replace(character, f"\\u{ord(character):04x}")
    files = resources.files("attnbench.boards.page")
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{safe(title, 200)}</title>",
            f"<style>\n{files.joinpath('page.css').read_text(encoding='utf-8')}</style></head><body>",
            f"<h1>{safe(title, 200)}</h1>",
            *(f"<p>{code(safe(text, 2000))}</p>" for text in about if text.strip()),
            '<div class="tools"><label>Filter <input id="filter" type="search" '
            'placeholder="prune -random sst2"></label><label>Family <select id="family"><option value="">all'
            '</option></select></label><span id="count" role="status"></span>'
            "<span>A header sorts; a method opens its record; # beside it links to its row.</span></div>",
            *(_section(section, places) for section in board.sections),
            *_choices(board),
            *_claims(board),
            *_absent(board),
            *(_figure(picture, svg, place) for place, (picture, svg) in enumerate(pictures)),
            _words(),
            '<dialog id="record" aria-label="Record"><header><span></span>'
            '<button class="close" type="button">Close</button></header><div class="body"></div></dialog>',
            f'<script type="application/json" id="records">{data}</script>',
            f"<script>\n{files.joinpath('page.js').read_text(encoding='utf-8')}</script>",
            "</body></html>",
        ]
    )


def reproduce(body: dict[str, Any]) -> str:
    """Return the command that measures one record again."""
    cell, settings, source = body["cell"], body["settings"], body["provenance"]
    model = str(source.get("model", cell["model"]))
    if source.get("source") in OWN:
        model = f"PATH/{model}" + (ENDING if source["source"] == "file" else "")
    words = ["attnbench", "run", "--models", model, "--tasks", cell["task"], "--methods", cell["method"]]
    if settings.get("measure"):
        words.append("--measure")
    standard = {"limit": None, "seed": 0, "dtype": "float32", "calibration": None, "max_length": None}
    standard |= dict.fromkeys(("calibration_samples", "calibration_tokens", *NAMES))
    for name, value in standard.items():
        if settings.get(name, value) != value:
            words.append(f"--{name.replace('_', '-')}")
            words += [] if settings[name] is True else [str(settings[name])]
    return shlex.join(clean(word, 1000) for word in words)


def _section(section: Section, places: dict[tuple[Any, ...], int]) -> str:
    rows = section.rows
    lines = [{**_names(row), **cells.of(row, clean)} for row in rows]
    titles = {"": "verdict", "score": score_title(rows)}
    names = ["model", "task", "method", "metric", "score", cells.DIFFERENCE, "", *COSTS]
    dropped = left_out(rows, lines) - {""}  # a verdict stands there in words too
    names = [name for name in names if name not in dropped]
    same = {name for name in ("model", "task") if len({line[name] for line in lines}) == 1}
    told = ", ".join(safe(lines[0][name]) for name in ("model", "task") if name in same)
    told = f'<p class="told">{told}</p>\n' if told else ""
    seeds: dict[tuple[str, str, str], list[int]] = {}
    for (model, task, method), place in places.items():
        for name in {method, name_without_seed(method)}:
            seeds.setdefault((model, task, name), []).append(place)
    head = "".join(
        f'<th scope="col"{_class(name, same)}><button type="button">'
        f"{safe(titles.get(name, name))}</button></th>"
        for name in names
    )
    body = "\n".join(
        _row(row, line, names, same, seeds.get((row.model, row.task, row.method), []))
        for row, line in zip(rows, lines, strict=True)
    )
    verdicts = "".join(f"<li>{safe(line, 2000)}</li>" for line in summary.of_methods(rows, clean))
    notes = "".join(
        f"<p>{safe(line, 4000)}</p>" for line in footnotes.footnotes(rows, section.records, clean)
    )
    return (
        f"<h2>{safe(section.title, 200)}</h2>\n"
        f"{told}"
        f'{WIDE.format("Table")}<table class="board"><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>\n"
        f"<p>{safe(summary.counts(rows), 1000)}</p>\n"
        f"<details><summary>Verdict of each method</summary><ul>{verdicts}</ul></details>\n"
        f'<div class="notes">{notes}</div>\n'
        f"{apart.of_section(section)}"
    )


def _names(row: Row) -> dict[str, str]:
    return {"model": row.model, "task": task_of(row, clean), "": ""}


def _class(name: str, same: set[str]) -> str:
    """Name a header's classes: what is the same in every row stands above the table instead."""
    kinds = [*(["text"] if name not in NUMBERS else []), *(["same"] if name in same else [])]
    kinds += ["verdict"] if name == "" else []
    kinds += ["method"] if name == "method" else ["where"] if name in ("model", "task") else []
    return f' class="{" ".join(kinds)}"' if kinds else ""


def _row(row: Row, line: dict[str, str], names: list[str], same: set[str], places: list[int]) -> str:
    found = []
    for name in names:
        if name == "method":
            told = cells.notes(row)
            text = safe(row.method) + (f" ({told})" if told else "")
            if places:
                chosen = " ".join(map(str, sorted(places)))
                text = f'<button type="button" data-records="{chosen}">{text}</button>'
            where = " · ".join(safe(line[each]) for each in ("model", "task") if each not in same)
            where = f' data-where="{where}"' if where else ""
            found.append(f'<td class="text method"{where}>{text}</td>')
        elif name in NUMBERS:
            value = getattr(row, NUMBERS[name])
            number = "" if value is None or not (row.primary or name in list(NUMBERS)[:2]) else f"{value:.6g}"
            kind = ' class="score"' if name == "score" else ""
            found.append(f'<td{kind} data-value="{number}">{safe(line.get(name, ""), 200)}</td>')
        else:
            word = f" {row.verdict}" if name == "" and row.status == "measured" else ""
            found.append(f"<td{_class(name, same)}>{safe(line.get(name, '') + word)}</td>")
    kind = "absent" if row.status != "measured" else "control" if row.control_of else ""
    own = f' id="{anchor}"' if (anchor := anchors.of(row)) else ""
    own += f' class="{kind}"' if kind else ""
    return f"<tr{own}>{''.join(found)}</tr>"


def _claims(board: Board) -> list[str]:
    outcomes = decisions.evaluate(board)
    return [_table("Claims", *decisions.table(outcomes), decisions.notes(outcomes))] if outcomes else []


def _choices(board: Board) -> list[str]:
    found = choice.choose(board)
    return [_table("How far each can go", *choice.table(found), [choice.NOTE])] if found else []


def _table(title: str, header: Iterable[str], rows: Iterable[Iterable[str]], notes: Iterable[str]) -> str:
    head = "".join(f'<th scope="col" class="text">{safe(name)}</th>' for name in header)
    lines = ["".join(f'<td class="text">{safe(cell, 200)}</td>' for cell in row) for row in rows]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    told = "".join(f"<p>{safe(line, 400)}</p>" for line in notes)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<h2>{title}</h2>{WIDE.format(title)}{table}</div>{told}"


def _absent(board: Board) -> list[str]:
    lines = "".join(f"<li>{safe(line, 400)}</li>" for line in board.absent)
    return [f"<h2>Not measured</h2><ul>{lines}</ul>"] if lines else []


def _words() -> str:
    told = "".join(
        f"<dt>{code(safe(w))}</dt><dd>{code(safe(m, 400))}</dd>" for w, m in glossary.WORDS.items()
    )
    return f"<details><summary>What the words of this page mean</summary><dl>{told}</dl></details>"


def _figure(picture: Picture, svg: bytes, place: int) -> str:
    """Put a picture into the page, its ids made its own."""
    text = svg.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'\bid="', f'id="p{place}-', text)
    text = re.sub(r'href="#', f'href="#p{place}-', text)
    text = text.replace("url(#", f"url(#p{place}-")
    title = safe(picture.title, 200)
    text = text.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
    return f"<figure>{text}</figure>"
