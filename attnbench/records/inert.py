"""Names from records as inert text: one line, cut, without what a terminal or markdown would act on."""

from __future__ import annotations

import functools
import html
import re
import shlex
from collections.abc import Callable

from attnbench.errors import one_line

Show = Callable[..., str]  # (text, longest) -> the text made safe for its surroundings

LONGEST = 60
KEPT = 4096  # texts: a board shows the same names again and again
FORMULA = tuple("=+-@＝＋－＠")


def command_lines(command: str, width: int) -> list[str]:
    """Break a command between its words, so that the lines together can be pasted into a shell."""
    try:
        words = [shlex.quote(word) for word in shlex.split(command)]
    except ValueError:  # a quote is not closed
        words = []
    if not words:
        return [command]
    lines, indent = [[words[0]]], 2
    for word in words[1:]:
        if indent + sum(len(each) + 1 for each in [*lines[-1], word]) + 1 > width:
            lines, indent = [*lines, []], 4
        lines[-1].append(word)
    texts = [" " * (4 if k else 2) + " ".join(each) for k, each in enumerate(lines)]
    return [f"{text} \\" for text in texts[:-1]] + texts[-1:]


@functools.lru_cache(KEPT, typed=True)
def clean(text: str, longest: int = LONGEST) -> str:
    """Put any text on one line without control characters, cut at `longest`."""
    line = one_line(text)
    return line if len(line) <= longest else line[: longest - 1] + "…"


def spreadsheet(text: str, longest: int = 200) -> str:
    """Make any text inert in a cell of a spreadsheet, which would take some for a formula."""
    line = clean(text, longest)
    return "'" + line if line.startswith(FORMULA) else line


@functools.lru_cache(KEPT, typed=True)
def escape(text: str, longest: int = LONGEST) -> str:
    """Make any text inert in markdown, in a table's cell too."""
    line = html.escape(clean(text, longest), quote=False)
    return re.sub(r"([\\`*\[\]|~]|(?<!\w)_|_(?!\w))", r"\\\1", line)
