"""A look from Python, at a model and a batch in memory: its tables, and its page in a notebook."""

from __future__ import annotations

import functools
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnbench.boards.inside.document import to_html
from attnbench.inputs.settings import EAGER_TOLERANCE, Settings
from attnbench.matrix.request import split
from attnbench.methods import spec
from attnbench.methods.protocol import Method
from attnbench.methods.study import Study
from attnbench.studies.attended import Ids
from attnbench.studies.compared import compared
from attnbench.studies.looking import Look, tabled, usual
from attnbench.studies.passes import DENSE, conduct
from attnbench.studies.reading import Reading

if TYPE_CHECKING:
    from pandas import DataFrame
    from torch import Tensor, nn

FRAME = 900  # pixels high in a notebook


@dataclass
class Looked:
    """What studies found of a batch; a notebook shows it as a page."""

    look: Look

    @property
    def tables(self) -> dict[str, dict[str, DataFrame]]:
        """Return every table by study and name, with all methods and their differences to dense."""
        return {text: compared(found.tables) for text, found in self.look.found.items() if found.tables}

    @property
    def left_out(self) -> dict[str, str]:
        """Return the studies that found nothing, and why."""
        return {text: found.error for text, found in self.look.found.items() if found.error}

    @functools.cached_property
    def html(self) -> str:
        """Return the page as one HTML file; the model runs again, once, for the maps of the first texts."""
        return to_html(self.look)

    def save(self, path: str | Path) -> None:
        """Write the page to a file."""
        Path(path).write_text(self.html, encoding="utf-8")

    def _repr_html_(self) -> str:
        page = html.escape(self.html, quote=True)
        return (
            f'<iframe sandbox="allow-scripts" srcdoc="{page}" title="attention" '
            f'style="width: 100%; height: {FRAME}px; border: 0"></iframe>'
        )


@dataclass
class _Given:
    """What stands for an opened checkpoint: a model, and a batch that was read."""

    model: Any
    reading: Reading
    asked: dict[str, tuple[Method, ...]]
    settings: Settings = field(default_factory=Settings)

    def learned(self, methods: Mapping[str, Sequence[Method]]) -> dict[str, Sequence[Method]]:
        return dict(methods)


def look(
    model: nn.Module,
    batch: Mapping[str, Tensor],
    methods: str | Sequence[str | Method] = (),
    studies: str | Sequence[str] = (),
    tokenizer: Any = None,
) -> Looked:
    """Let studies look at a model on a batch, densely and with each method, as `attnbench look` does.

    `batch` is what the model takes, `input_ids` (batch, tokens) and the others, padding and all. Without a
    `tokenizer` tokens are named by their ids, special ones are not known, and what reads texts of its own is
    left out. Methods that learn have to be fitted. `studies` is all that need no data of their own, unless
    named. Nothing is recorded.

    >>> attnbench.look(model, batch, "prune80", tokenizer=tokenizer)  # a page in a notebook  # doctest: +SKIP

    Raises UserError for a method that is not fitted, an unknown study, an architecture that is not supported.
    """
    asked: dict[str, tuple[Method, ...]] = {}
    for each in split(methods) if isinstance(methods, str) else methods:
        one = spec.parse(each) if isinstance(each, str) else (each,)
        if one:
            asked[spec.format(one)] = one
    chosen: list[Study] = [spec.parse_study(text) for text in split(studies) or usual()]
    reading = Reading(model, tokenizer or Ids(), str(next(model.parameters()).device))
    taken = reading.taken({name: value for name, value in batch.items()})
    reading.given = taken.samples
    seen = conduct(model, chosen, reading, asked, batches=[taken])
    names = [DENSE, *asked]
    found = {each.name: tabled(each, type(study), names) for each, study in zip(seen, chosen, strict=True)}
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    settings = Settings(dtype=dtype if dtype in EAGER_TOLERANCE else "bfloat16")
    given = _Given(model, reading, asked, settings)
    return Looked(Look(type(model).__name__, "batch", "", tuple(names), found, {}, {}, given))
