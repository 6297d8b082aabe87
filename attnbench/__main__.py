"""`attnbench` and `python -m attnbench`: the command line, and Ctrl-C while it is still being imported."""

from __future__ import annotations

import sys

STOPPED = 130  # what a shell gives a command that Ctrl-C ended


def main() -> int:
    """Run one command. Returns its exit status."""
    try:
        from attnbench.cli import main

        return main.main()
    except KeyboardInterrupt:
        print("attnbench: stopped; nothing was written", file=sys.stderr)
        return STOPPED


if __name__ == "__main__":
    sys.exit(main())
