"""Names from records as inert text: one line, cut, without what a terminal or markdown would act on."""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Callable

from attnbench.errors import one_line

Show = Callable[..., str]  # (text, longest) -> the text made safe for its surroundings

WIDTH = 118
LONGEST = 60
FORMULA = tuple("=+-@＝＋－＠")


def wrap(line: str) -> str:
    """Break a line for a terminal, its rest indented."""
    return textwrap.fill(line, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def clean(text: str, longest: int = LONGEST) -> str:
    """Put any text on one line without control characters, cut at `longest`."""
    line = one_line(text)
    return line if len(line) <= longest else line[: longest - 1] + "…"


def spreadsheet(text: str, longest: int = 200) -> str:
    """Make any text inert in a cell of a spreadsheet, which would take some for a formula."""
    line = clean(text, longest)
    return "'" + line if line.startswith(FORMULA) else line


def escape(text: str, longest: int = LONGEST) -> str:
    """Make any text inert in markdown, in a table's cell too."""
    line = html.escape(clean(text, longest), quote=False)
    return re.sub(r"([\\`*\[\]|~]|(?<!\w)_|_(?!\w))", r"\\\1", line)
