"""Run docs/tutorial.md, and write into it what its commands print: python docs/tutorial.py

A block of Python or TOML is a file, whose name its first line has; a line of a block of bash is a command;
a block of text is what the commands before it print.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from attnbench.cli.main import main
from attnbench.methods import plugins

DOCUMENT = Path(__file__).with_name("tutorial.md")
PICTURES = {"tutorial.png": "near/score-sparsity.png"}  # here, and where the run writes it
BLOCK = re.compile(r"```(python|toml|bash|text)\n(.*?)```", re.DOTALL)


def command(line: str) -> str:
    """Run a command in this process, where it is ours, as if it were the first here; return its stdout.

    Raises RuntimeError where it fails.
    """
    program, *arguments = shlex.split(line, comments=True)
    if program != "attnbench":
        plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        done = subprocess.run(
            [sys.executable, "-m", program, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env=plain,
        )
        return re.sub(r" in [\d.]+s.*", "", done.stdout)  # how long a test took
    plugins._registry = None
    for name in [name for name in sys.modules if name.startswith("attnbench_plugin_")]:
        del sys.modules[name]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main(arguments)
    if code:
        raise RuntimeError(f"{line} ended with {code}: {out.getvalue()}")
    return out.getvalue()


def play(text: str) -> list[tuple[str, str]]:
    """Do in the current folder what a text says; return what each block shows, and what was printed."""
    shown, printed = [], ""
    for language, body in BLOCK.findall(text):
        if language == "bash":
            printed = "".join(map(command, body.splitlines()))
        elif language == "text":
            shown.append((body, printed))
        else:
            name, _, rest = body.removeprefix("# ").partition("\n")
            Path(name).write_text(rest.lstrip("\n"), encoding="utf-8")
    return shown


if __name__ == "__main__":
    text = DOCUMENT.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        os.mkdir("idea")
        os.chdir("idea")
        printed = iter([found for _, found in play(text)])
        for name, made in PICTURES.items():
            shutil.copy(made, DOCUMENT.with_name(name))
    whole = BLOCK.sub(lambda m: f"```text\n{next(printed)}```" if m[1] == "text" else m[0], text)
    DOCUMENT.write_text(whole, encoding="utf-8")
