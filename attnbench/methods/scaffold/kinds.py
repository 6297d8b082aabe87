"""The kinds of file that `attnbench new-method` writes, and what all of them have around their class."""

from __future__ import annotations

from dataclasses import dataclass

from attnbench.methods.scaffold import (
    cache,
    calibrated,
    criterion,
    random_control,
    study,
    trained,
    transform,
)


@dataclass(frozen=True)
class Kind:
    """A kind's class and its formula's test, what its file imports, by which hook it is registered."""

    body: str
    formula: str
    public: tuple[str, ...] = ("Method", "hookimpl")
    shown: tuple[str, ...] = ("Site",)  # of attnbench, for annotations alone
    fields: str = "dataclass"
    hook: str = "register_methods"
    check: str = "check_method"
    listed: str = 'expand("{name}")'

    @property
    def is_study(self) -> bool:
        return self.hook == "register_studies"

    def written(self, check: str, **words: str) -> str:
        """Fill in the plugin's file; `check` is the command that its docstring shows."""
        torch = "    from torch import Tensor\n\n" if ": Tensor" in self.body else ""
        shown = f"{torch}    from attnbench import {', '.join(self.shown)}"
        around = {"public": ", ".join(self.public), "shown": shown, "fields": self.fields, "hook": self.hook}
        return (HEAD + self.body + TAIL).format(command=check, **around, **words)

    def tested(self, file: str = "", **words: str) -> str:
        """Fill in its test, which loads the file beside it, or nothing of a package that is installed."""
        uses = ", ".join([self.check, *(["expand"] if "expand" in self.listed else [])])
        around = {"check": self.check, "uses": uses, "specs": self.listed.format(**words)}
        loading = dict.fromkeys(LOADING, "") | (LOADING if file else {})
        around |= {key: text.format(file=file) for key, text in loading.items()}
        return (TEST + self.formula).format(**around, **words)


KINDS = {
    "transform": Kind(transform.BODY, transform.FORMULA),
    "calibrated": Kind(calibrated.BODY, calibrated.FORMULA),
    "trained": Kind(trained.BODY, trained.FORMULA),
    "criterion": Kind(criterion.BODY, criterion.FORMULA, public=("Heads", "hookimpl")),
    "random-control": Kind(
        random_control.BODY,
        random_control.FORMULA,
        public=("Method", "hookimpl", "kernels"),
        fields="dataclass, field",
    ),
    "cache": Kind(cache.BODY, cache.FORMULA, public=("Kept", "Method", "hookimpl"), shown=("Prompt", "Site")),
    "study": Kind(
        study.BODY,
        study.FORMULA,
        public=("Study", "by_head", "hookimpl"),
        shown=("Site", "View"),
        hook="register_studies",
        check="check_study",
        listed='["{name}"]',
    ),
}

HEAD = '''"""{title}: edit what has an arrow, then see whether it keeps its promises.

`{command}`
"""

from __future__ import annotations

from dataclasses import {fields}
from typing import TYPE_CHECKING, Any

from attnbench import {public}

if TYPE_CHECKING:
{shown}


'''

TAIL = """

@hookimpl
def {hook}(register: Any) -> None:
    register({title})
"""

TEST = '''"""{title} keeps every promise that `attnbench check` knows of, and computes its formula."""

from __future__ import annotations

{path}import pytest

{plugins}from attnbench.testing import {uses}
{load}

@pytest.mark.parametrize("spec", {specs})
def test_it_keeps_its_promises(spec):
    report = {check}(spec)
    assert report.ok, str(report)
'''

LOADING = {
    "path": "from pathlib import Path\n\n",
    "plugins": "from attnbench import plugins\n",
    "load": '\nplugins.load([str(Path(__file__).with_name("{file}"))])\n',
}
