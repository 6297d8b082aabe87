"""What the doors to other frameworks share: a model argument's name, and a command line handed over."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence

from attnbench.errors import unknown


def check_names(given: Iterable[str], known: Iterable[str]) -> None:
    """Raise UserError for a model argument that there is none of."""
    names = list(known)
    for name in given:
        if name not in names:
            raise unknown("model argument", name, names, f"Known: {', '.join(names)}.")


def handed_over(program: str, run: Callable[[], object], arguments: Sequence[str]) -> int:
    """Run another program's command line in this process and return its exit status."""
    before = sys.argv
    sys.argv = [program, *arguments]
    try:
        run()
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else int(left.code is not None)
    finally:
        sys.argv = before
    return 0
