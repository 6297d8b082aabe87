"""A look as one HTML file: no server, no network; its scripts draw heads, maps and histograms."""

from __future__ import annotations

import json
from importlib import resources
from typing import TYPE_CHECKING, Any

from attnbench.boards.inside.content import content, told
from attnbench.boards.page.document import POLICY, safe
from attnbench.studies.compared import page_of

if TYPE_CHECKING:
    from attnbench.studies.looking import Look

MOST = 10_000_000  # bytes of a page
ROOM = 200_000  # of them for scripts, styles and what is around maps
SCRIPTS = ("numbers.js", "grid.js", "map.js", "head.js", "page.js")


def to_html(look: Look, most: int = MOST) -> str:
    """Write the page of a look, of at most `most` bytes. It runs the model on texts whose maps it shows."""
    return written(*_fitting(look, page_of(look), most))


def _fitting(look: Look, page: dict[str, Any], most: int) -> tuple[dict[str, Any], dict[str, str]]:
    body, blobs = content(look, page, most - ROOM)
    rest = len(embedded(body)) + ROOM
    return (body, blobs) if rest + sum(map(len, blobs.values())) <= most else content(look, page, most - rest)


def embedded(body: dict[str, Any]) -> str:
    """Return JSON that stands in a script element and ends it nowhere."""
    data = json.dumps(body, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        data = data.replace(character, f"\\u{ord(character):04x}")
    return data


def written(body: dict[str, Any], blobs: dict[str, str]) -> str:
    """Write a page from its JSON and its maps."""
    files = resources.files("attnbench.boards.inside")
    style, *scripts = (files.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", *SCRIPTS))
    title = f"{safe(body['model'], 200)}: attention"
    subtitle = f"{safe(body['data'], 200)} · {safe(', '.join(body['methods']), 2000)}"
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{title}</title>",
            f"<style>\n{style}</style></head><body>",
            f'<header><h1>{safe(body["model"], 200)}</h1><p class="told">{subtitle}</p></header>',
            '<div class="tools"><label>Text <select id="text"></select></label>'
            '<label>Colour by <select id="score"></select></label>'
            '<label id="which">Method <select id="method"></select></label>'
            '<div id="views" class="views" role="radiogroup" aria-label="Attention"></div></div>',
            '<main><section id="heads" aria-label="Heads"><div id="grids"></div>'
            '<div id="scale" class="scale"></div><div id="badges" class="badges"></div></section>',
            '<section id="head" aria-label="One head"><h2 id="title" aria-live="polite"></h2>'
            '<p id="has" class="told"></p><div class="pair"><div class="part"><div id="frame" class="frame">'
            '<canvas id="map" tabindex="0" role="img"></canvas></div>'
            '<div id="key" class="scale"></div><p id="readout" class="readout" role="status"></p>'
            '<h3>From</h3><div id="queries" class="tokens"></div>'
            '<h3>to</h3><div id="keys" class="tokens"></div></div>'
            '<div class="part"><h3>Weights of this map</h3><div id="histogram"></div>'
            '<div class="wide"><table id="scores"></table></div></div></div></section></main>',
            "<details><summary>How to read it</summary><p>A row of squares is a layer, the first at the "
            "bottom, a square a head. Choose one by a click, a touch or the arrow keys. On its map a row is "
            "a token that looks, a column one that is looked at. The brighter, the more.</p>",
            *(f"<p>{safe(line, 1000)}</p>" for line in told(body)),
            "</details><noscript>This page draws with JavaScript, from what is in this file.</noscript>",
            f'<script type="application/json" id="data">{embedded(body)}</script>',
            *(f'<script type="text/plain" id="{name}">{blob}</script>' for name, blob in blobs.items()),
            f'<script>\n"use strict";\n{"".join(scripts)}</script>',
            "</body></html>",
        ]
    )  # fmt: skip
