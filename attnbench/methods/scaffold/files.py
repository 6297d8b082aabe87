"""Write a new method, or a study: a plugin file that works as it stands, and its test."""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from pathlib import Path

from attnbench.errors import UserError, require_folder, unknown
from attnbench.methods.controls import DRAWN
from attnbench.methods.declared import NAME, RESERVED
from attnbench.methods.plugins import option, registry
from attnbench.methods.scaffold.kinds import KINDS, Kind


def write(name: str, kind: str = "transform", folder: str | Path = ".") -> tuple[Path, Path]:
    """Write `<name>.py` and `test_<name>.py` into a folder and return their paths.

    They are `<name>_method.py` and its test where Python has a module `<name>`, which it would hide. Raises
    UserError for a name that is taken or malformed, an unknown kind, files that are there already, and a
    folder that cannot be written.
    """
    chosen = asked(name, kind)
    require_folder("--output", folder)
    stem = module(re.sub(r"[-:]", "_", name), Path(folder))
    method, test = Path(folder) / f"{stem}.py", Path(folder) / f"test_{stem}.py"
    for path in (method, test):
        if path.exists():
            raise UserError(f"{path} is there already: move it away or give another --output DIR.")
    words = {"name": name, "title": title(name, chosen)}
    texts = {
        method: chosen.written(f"attnbench check {name} --plugin {method.name}", **words),
        test: chosen.tested(method.name, **words),
    }
    save({path: spelt(text, name) for path, text in texts.items()}, folder)
    return method, test


def asked(name: str, kind: str) -> Kind:
    """Return a kind. Raises UserError for an unknown one, and for a name that it cannot have."""
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
    if kind == "random-control" and DRAWN not in name.split(":")[1:]:
        raise UserError(
            f"'{name}' is no name for a control: tables know it by :{DRAWN}, after the method it belongs to. "
            f"`attnbench new-method {name}:{DRAWN} --kind {kind}`"
        )
    for command, taken in (("methods", registry().methods), ("studies", registry().studies)):
        if name in taken:
            what = "method" if command == "methods" else "study"
            shown = f"attnbench {command} {name}{option(taken[name])}"
            raise UserError(f"{what} '{name}' exists already. `{shown}` shows it.")
    return KINDS[kind]


def module(stem: str, folder: Path) -> str:
    """Return a name for a module which hides none of another place."""
    return f"{stem}_method" if _hides(stem, folder) else stem


def title(name: str, kind: Kind) -> str:
    """Name the class: one that its file imports would be hidden."""
    title = "".join(map(str.capitalize, re.split("[-:]", name)))
    imported = {"Any", "Tensor", *kind.public, *kind.shown}
    return f"{title}Method" if title in imported or keyword.iskeyword(title) else title


def spelt(text: str, name: str) -> str:
    """Write specs of a variant as they are read, the amount before it: heads50:mine."""
    base, *variant = name.split(":")
    if not variant:
        return text
    return re.sub(rf"{re.escape(name)}(\d[\d.]*)", rf"{base}\1:{':'.join(variant)}", text)


def save(texts: dict[Path, str], folder: str | Path) -> None:
    """Write new files and their folders. Raises UserError, naming `folder`, where that is not possible."""
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output {folder}: cannot be written: {error.strerror or error}") from error


def _hides(stem: str, folder: Path) -> bool:
    """Tell whether a file of this name would stand before a module of another place."""
    if stem in sys.stdlib_module_names:
        return True
    found = importlib.util.find_spec(stem)
    return found is not None and found.origin is not None and Path(found.origin).parent != folder.resolve()
