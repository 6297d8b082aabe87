"""Write a new method: a plugin file that works as it stands, and its test."""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from pathlib import Path

from attnbench.errors import UserError, require_folder, unknown
from attnbench.methods.declared import NAME, RESERVED
from attnbench.methods.plugins import option, registry
from attnbench.methods.templates import HEAD, KINDS, OF_PROMPTS, PLAIN, TAIL, TEST

IMPORTED = (
    "Any",
    "Kept",
    "Method",
    "Prompt",
    "Site",
    "Tensor",
)  # no class of these names: it would hide them


def write(name: str, kind: str = "transform", folder: str | Path = ".") -> tuple[Path, Path]:
    """Write `<name>.py` and `test_<name>.py` into a folder and return their paths.

    They are `<name>_method.py` and its test where Python has a module `<name>`, which it would hide. Raises
    UserError for a name that is taken or malformed, an unknown kind, files that are there already, and a
    folder that cannot be written.
    """
    if not NAME.fullmatch(name):
        plain = re.sub(r"-*:+-*", ":", re.sub("-+", "-", re.sub("[^a-z:]", "-", name.lower()))).strip("-:")
        nearest = f" Did you mean {plain}?" if NAME.fullmatch(plain) else ""
        raise UserError(
            f"'{name}' is no name for a method: lower-case letters, single dashes, no digits.{nearest}"
        )
    if name.partition(":")[0] == RESERVED:
        raise UserError(f"'{name}' is no name for a method: dense is the unmodified model.")
    if kind not in KINDS:
        raise unknown("kind of method", kind, KINDS, f"--kind takes {', '.join(KINDS)}.")
    if name in registry().methods:
        shown = f"attnbench methods {name}{option(registry().methods[name])}"
        raise UserError(f"method '{name}' exists already. `{shown}` shows it.")
    require_folder("--output", folder)
    stem = re.sub(r"[-:]", "_", name)
    stem += "_method" if _hides(stem, Path(folder)) else ""
    method, test = Path(folder) / f"{stem}.py", Path(folder) / f"test_{stem}.py"
    for path in (method, test):
        if path.exists():
            raise UserError(f"{path} is there already: move it away or give another --output DIR.")
    title = "".join(map(str.capitalize, re.split("[-:]", name)))
    if title in IMPORTED or keyword.iskeyword(title):
        title += "Method"
    words = {"name": name, "file": method.name, "title": title}
    words |= OF_PROMPTS if kind == "cache" else PLAIN
    base, *variant = name.split(":")
    body, formula = KINDS[kind]
    written = (HEAD + body + TAIL).format(**words)
    tested = (TEST + formula).format(**words)
    if variant:  # the amount stands before the variant: heads50:mine
        pattern = re.compile(rf"{re.escape(name)}(\d[\d.]*)")
        written, tested = (pattern.sub(rf"{base}\1:{':'.join(variant)}", text) for text in (written, tested))
    try:
        method.parent.mkdir(parents=True, exist_ok=True)
        method.write_text(written, encoding="utf-8")
        test.write_text(tested, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output {folder}: cannot be written: {error.strerror or error}") from error
    return method, test


def _hides(stem: str, folder: Path) -> bool:
    """Tell whether a file of this name would stand before a module of another place."""
    if stem in sys.stdlib_module_names:
        return True
    found = importlib.util.find_spec(stem)
    return found is not None and found.origin is not None and Path(found.origin).parent != folder.resolve()
