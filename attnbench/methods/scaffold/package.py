"""Write a package around a new method, or a study: found wherever it is installed, tested by its own CI."""

from __future__ import annotations

import re
from pathlib import Path

from attnbench.errors import UserError, require_folder
from attnbench.methods.scaffold import files


def write(name: str, kind: str = "transform", folder: str | Path = ".") -> Path:
    """Write the folder `attnbench-<name>` and return its path.

    In it lie a pyproject.toml with an entry point in the group `attnbench`, the module, its test, a workflow
    for GitHub and a README. Raises UserError as `files.write` does, and for a folder that is there already.
    """
    chosen = files.asked(name, kind)
    require_folder("--output", folder)
    short = re.sub("[-:]", "-", name)
    home = Path(folder) / f"attnbench-{short}"
    if home.exists():
        raise UserError(f"{home} is there already: move it away or give another --output DIR.")
    package, stem = files.module(f"attnbench_{short.replace('-', '_')}", home), short.replace("-", "_")
    words = {"name": name, "title": files.title(name, chosen)}
    method = files.spelt(chosen.written(f"attnbench check {name}", **words), name)
    (example,) = re.findall(r'^    examples = \("([^"]+)"', method, re.MULTILINE)
    trial = TRIAL["study" if chosen.is_study else "method"].format(example=example)
    around = {"home": home.name, "package": package, "stem": stem, "short": short, "trial": trial, **words}
    texts = {
        f"{package}/__init__.py": '"""{title}, for attnbench."""\n'.format(**words),
        f"{package}/{stem}.py": method,
        f"tests/test_{stem}.py": files.spelt(chosen.tested(**words), name),
        "pyproject.toml": PYPROJECT.format(**around),
        "README.md": README.format(**around),
        ".github/workflows/test.yml": WORKFLOW.format(**around),
        ".gitignore": "__pycache__/\n*.egg-info/\nbuild/\nattnbench-records/\n",
    }
    files.save({home / path: text for path, text in texts.items()}, folder)
    return home


TRIAL = {
    "method": "attnbench run --models bert,gpt --methods {example}",
    "study": 'attnbench look --models bert --text "the soup was not good" --studies {example}',
}

PYPROJECT = """[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "{home}"
version = "0.1.0"
description = "{title}, for attnbench."  # <- what it does
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["attnbench>=0.1"]  # <- or "attnbench @ git+https://...", from where you have it

[project.optional-dependencies]
test = ["pytest>=8", "ruff>=0.9"]

[project.entry-points.attnbench]
{short} = "{package}.{stem}"

[tool.setuptools]
packages = ["{package}"]

[tool.pytest.ini_options]
testpaths = ["tests"]

[tool.ruff]
line-length = 110

[tool.ruff.lint.isort]
known-first-party = ["attnbench", "{package}"]
"""

README = """# {home}

<!-- one sentence: what it does, where it comes from -->

```bash
pip install -e ".[test]"
attnbench check {name}
{trial}
pytest
```

`attnbench` finds `{name}` wherever this package is installed, by the entry point in `pyproject.toml`: no
`--plugin`. `{package}/{stem}.py` has an arrow where it is to be edited, `tests/` holds its promises and its
formula, and `.github/workflows/test.yml` runs them on every push.

Its code is part of the identity of what is measured with it: whatever of it changes, comments and layout
aside, its cells are measured again.
"""

WORKFLOW = """name: test
on: [push, pull_request]

jobs:
  test:
    runs-on: ubuntu-latest
    timeout-minutes: 20
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with:
          python-version: "3.12"
          cache: pip
          cache-dependency-path: pyproject.toml
      - run: pip install ".[test]"
      - run: ruff check .
      - run: pytest
      - run: {trial}
"""
