"""The pictures of a board of looks, each with a digest of the numbers that it shows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from attnbench.boards.findings.kept import Seen
from attnbench.errors import UserError, unknown
from attnbench.records.record import file_name
from attnbench.studies.compared import HEADS
from attnbench.studies.looking import Found
from attnbench.studies.looks import packed_table
from attnbench.studies.passes import DENSE

DRAWING = 2  # raise by hand when the drawing changes: pictures drawn before are then stale
FORMS = ("svg", "png")


@dataclass(frozen=True)
class Drawn:
    """One picture of a study's with one method: of a column of its heads, or one that it draws itself."""

    look: Seen
    study: str
    name: str
    method: str

    @property
    def file(self) -> str:
        """Return its file's name, without the ending."""
        model = self.look.asked.cell("", "")["model"]
        parts = f"{self.look.number}-{model}.{self.study}.{self.name}.{self.method}"
        return file_name(parts)

    @property
    def title(self) -> str:
        """Say what it shows."""
        cell = self.look.asked.cell("", "")
        change = " − dense" if self.is_map and self.method != DENSE and self._of_dense else ""
        return f"{cell['model']}, {cell['task']}: {self.study} {self.name}, {self.method}{change}"

    @property
    def is_map(self) -> bool:
        """Tell whether it is a map of heads."""
        return self.name in self._found.tables[self.method].get(HEADS, ())

    @property
    def _of_dense(self) -> bool:
        """Tell whether the dense model has this too: a study of differences has it of methods alone."""
        return HEADS in self._found.tables[DENSE]

    @property
    def _found(self) -> Found:
        return self.look.found[self.study]

    @property
    def digest(self) -> str:
        """Hash what it is drawn from."""
        tables = self._found.tables
        if self.is_map:
            methods = dict.fromkeys([*([DENSE] if self._of_dense else []), self.method])
            shown: Any = [packed_table(tables[each][HEADS][[self.name]]) for each in methods]
        else:
            kept = self.look.records[self.study, self.method]
            packed = {name: packed_table(table) for name, table in tables[self.method].items()}
            shown = [packed, kept.provenance["arrays"]]
        content = json.dumps([DRAWING, self.title, shown], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def draw(self) -> dict[str, bytes]:
        """Return its bytes by form. Raises UserError for a name that the study neither has nor draws."""
        from attnbench.boards.pictures import looks as figures
        from attnbench.methods import spec

        if self.is_map:
            return figures.map_of(self._found, self.name, self.method, self.title, FORMS, self.digest)
        study = spec.parse_study(self._found.study)
        drawn = study.draw(self._found.tables[self.method], self._found.arrays[self.method])
        if self.name not in drawn:
            known = [*self._found.tables[self.method].get(HEADS, ()), *drawn]
            raise unknown("picture", self.name, known, f"{self.study} has {', '.join(known)}.")
        drawn[self.name].suptitle(self.title, fontsize=9)
        return figures.saved(drawn[self.name], self.title, self.digest)


def pictures(looks: Iterable[Seen]) -> Iterator[Drawn]:
    """Yield the pictures that looks name, of what is recorded: the dense one, then those of methods."""
    for look in looks:
        for each in look.asked.pictures:
            study, _, name = each.partition(".")
            if not name:
                raise UserError(f"picture '{each}': is STUDY.NAME, as in sparsity.zeros")
            if study in look.found:
                for method in look.found[study].tables:
                    if look.found[study].tables[method]:
                        yield Drawn(look, study, name, method)
