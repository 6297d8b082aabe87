"""Write the last part of docs/plugins.md: every public name with its signature, from the code itself.

python docs/surface.py
"""

from __future__ import annotations

import inspect
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attnbench

DOCUMENT = Path(__file__).with_name("plugins.md")
MARK = "<!-- from here on written by: python docs/surface.py -->\n"
GROUPS = {
    "A method": ("Method", "Site", "Prompt", "Kept", "hookimpl", "NotApplicable", "UserError"),
    "A study": ("Study", "View", "by_head", "importance", "probing"),
    "Look at a model": ("look", "attention", "discover", "sites", "layer_of", "watch", "head_sensitivity"),
    "Pass relevance back": ("relevance", "contributions", "top_logit", "rank_agreement"),
    "Change probabilities": ("kernels",),
    "Train": ("train", "own_weights", "with_weights", "HardConcrete", "openness", "final_gate"),
    "Remove heads": ("Heads", "Removal", "without_heads"),
    "Use methods": (
        "apply",
        "prompts",
        "realize",
        "transform",
        "parse",
        "expand",
        "format",
        "plugins",
        "testing",
    ),
    "Measure": ("run", "checkpoint", "sidecar"),
}
WITHOUT = """
import sys

class Heavy:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "datasets", "lm_eval", "pandas"):
            raise ImportError(name)

sys.meta_path.insert(0, Heavy())
import attnbench
for name in attnbench.__all__:
    try:
        getattr(attnbench, name)
        print(name)
    except ImportError:
        pass
"""


class _Plain(str):
    """An annotation that a signature shows as it is written."""

    def __repr__(self) -> str:
        return str(self)


def light() -> list[str]:
    """List the names that can be had without torch."""
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    return done.stdout.split()


def render() -> str:
    """Return what stands after MARK."""
    first = ", ".join(f"`{name}`" for name in light())
    top = textwrap.fill(f"Without torch, and so at the top of a plugin's file, come {first}.", 125)
    parts = ["\n## Every public name\n", top, "Import the others inside the functions that use them."]
    for title, names in GROUPS.items():
        parts += [f"\n### {title}\n", *(line for name in names for line in _lines(name))]
    return "\n".join(parts) + "\n"


def _lines(name: str) -> Iterator[str]:
    thing = getattr(attnbench, name)
    if inspect.ismodule(thing):
        for inner in thing.__all__:
            yield _line(f"{name}.{inner}", getattr(thing, inner))
        return
    yield _line(name, thing)
    if inspect.isclass(thing):
        own_base = thing in (attnbench.Method, attnbench.Study)
        for inner, own in ({**vars(thing.__base__), **vars(thing)} if own_base else vars(thing)).items():
            inherited = not own_base and hasattr(attnbench.Method, inner)
            if not inner.startswith("_") and inspect.isfunction(own) and not inherited:
                yield _line(f"{name}.{inner}", own)


def _line(name: str, thing: Any) -> str:
    says = (inspect.getdoc(thing) or "").partition("\n")[0]
    return f"* `{_block(thing)}{name}{signature(thing)}`<br>\n  {says}"


def _block(thing: Any) -> str:
    """Return "with " for a function that is used as `with f(...):`."""
    returned = str(getattr(thing, "__annotations__", {}).get("return", ""))
    manager = "AbstractContextManager" in returned or inspect.isgeneratorfunction(inspect.unwrap(thing))
    return "with " if inspect.isfunction(thing) and manager else ""


def signature(thing: Any) -> str:
    """Write a function's or a class's signature with its annotations as the code has them."""
    if not (inspect.isroutine(thing) or inspect.isclass(thing)) or _is_error(thing):
        return ""
    found = inspect.signature(thing)
    known = [
        each.replace(annotation=_Plain(each.annotation)) if isinstance(each.annotation, str) else each
        for each in found.parameters.values()
    ]
    returned = found.return_annotation
    return str(
        found.replace(
            parameters=known,
            return_annotation=_Plain(returned) if isinstance(returned, str) else returned,
        )
    )


def _is_error(thing: Any) -> bool:
    return inspect.isclass(thing) and issubclass(thing, Exception)


if __name__ == "__main__":
    kept = DOCUMENT.read_text(encoding="utf-8").partition(MARK)[0]
    DOCUMENT.write_text(kept + MARK + render(), encoding="utf-8")
