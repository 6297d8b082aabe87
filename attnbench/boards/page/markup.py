"""Text made inert for HTML, and the frame of a wide table."""

from __future__ import annotations

import html
import re

from attnbench.records.inert import LONGEST, clean

WIDE = '<div class="wide" tabindex="0" role="region" aria-label="{}">'


def safe(text: str, longest: int = LONGEST) -> str:
    """Make any text inert in HTML, in an attribute too."""
    return html.escape(clean(text, longest), quote=True)


def code(text: str) -> str:
    """Show what stands between backticks as code; the text is inert already."""
    return re.sub(r"`([^`<>]+)`", r"<code>\1</code>", text)
