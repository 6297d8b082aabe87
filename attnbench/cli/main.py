"""The command line: parse, call one command, tell a mistake in one line."""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from importlib import metadata
from types import ModuleType
from typing import NoReturn

from attnbench.cli import (
    check,
    compare,
    export,
    heads,
    leaderboard,
    merge,
    methods,
    models,
    new_method,
    publish,
    run,
    status,
    tasks,
    verify,
)
from attnbench.cli.looking import look, studies
from attnbench.cli.parser import Parser
from attnbench.cli.parsing import add_plugins, add_shared, plugin_folders
from attnbench.cli.screen import stdout
from attnbench.errors import UserError, tell
from attnbench.methods import plugins
from attnbench.methods.staying import staying

EPILOG = """examples:
  attnbench run --models bert,roberta --methods logquant3,prune80
  attnbench run --models ./my-checkpoint --tasks my.csv --methods prune80
  attnbench leaderboard --records attnbench-records
  attnbench methods
  attnbench new-method my-method
  attnbench check my-method --plugin my_method.py
"""
COMMANDS: dict[str, ModuleType] = {
    "run": run,
    "leaderboard": leaderboard,
    "compare": compare,
    "verify": verify,
    "status": status,
    "merge": merge,
    "publish": publish,
    "methods": methods,
    "studies": studies,
    "look": look,
    "heads": heads,
    "export": export,
    "check": check,
    "new-method": new_method,
    "models": models,
    "tasks": tasks,
}
HANDED_OVER = {
    "lm-eval": "Hand over to lm-eval's own command line, with --model attnbench known to it.",
    "lighteval": "Hand over to lighteval's own command line, with attnbench known to it as a custom model.",
}


def parser() -> argparse.ArgumentParser:
    """Build the argument parser of every command."""
    top = Parser(
        prog="attnbench",
        description="Benchmark attention-compression methods over a matrix of models and tasks.",
        epilog=EPILOG,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="store_true", help="print the version and stop")
    shared = Parser(add_help=False, allow_abbrev=False)
    add_shared(shared)
    found = top.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for name, command in COMMANDS.items():
        text = (command.__doc__ or "").partition("\n")[0]
        each = found.add_parser(name, help=text, description=text, parents=[shared], allow_abbrev=False)
        command.add_arguments(each)
    for name, module in _backends().items():
        text = HANDED_OVER.get(name, f"Hand over to {name}: {module}.")
        whole = found.add_parser(name, help=text, add_help=False, prefix_chars="\0")
        whole.add_argument("rest", nargs=argparse.REMAINDER)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns 0; 1 where a cell failed, 2 for a mistake in the request, 130 for Ctrl-C, 143 for SIGTERM, 129 for
    SIGHUP.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    # a thread that spins long while it waits takes the core that another one waits for
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        with _ending_alike(), stdout.guarded():
            return _told(arguments)
        return 0  # the reader of our stdout has left
    except stdout.Unwritten as error:
        tell(error)
        return 2


def _told(arguments: list[str]) -> int:
    """Run one command; a mistake is one line on stderr."""
    try:
        return _dispatch(arguments)
    except stdout.Unwritten:
        raise
    except UserError as error:
        if "--debug" in arguments:
            raise
        tell(error)
        return 2
    except KeyboardInterrupt as stopped:
        with contextlib.suppress(OSError):  # a terminal that has been closed
            tell(f"stopped{_left(arguments)}")
        return 128 + getattr(stopped, "signal", signal.SIGINT)


class Stopped(KeyboardInterrupt):
    """A signal that ends a command as Ctrl-C does."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.signal = number


@contextlib.contextmanager
def _ending_alike() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does, unless somebody handles or ignores them."""

    def stop(number: int, frame: object) -> NoReturn:
        for each in known:
            signal.signal(each, signal.SIG_IGN)  # a second one would cut short what the first has begun
        raise Stopped(number)

    mine = threading.current_thread() is threading.main_thread()
    known = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) is signal.SIG_DFL]
    known = known if mine else []
    for each in known:
        signal.signal(each, stop)
        _handled.add(each)
    _watch_forks()
    try:
        yield
    finally:
        for each in known:
            _handled.discard(each)
            signal.signal(each, signal.SIG_DFL)


_handled: set[int] = set()  # signals that have a handler of ours


@functools.cache
def _watch_forks() -> None:
    """Let processes that others fork, as lighteval's pools do, end by a signal at once.

    Python drops what arrives between a fork and its child's first steps where it has a handler, so that who
    ends a young child would wait for it for ever: until the child has none, signals are held back.
    """

    def own() -> None:
        for each in _handled:
            signal.signal(each, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _handled)
        _handled.clear()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, _handled),
            after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, _handled),
            after_in_child=own,
        )


def _left(arguments: list[str]) -> str:
    """Say what a command that was stopped leaves behind."""
    command = COMMANDS.get(next((each for each in arguments if not each.startswith("-")), ""))
    if command is leaderboard and not any(each.startswith("--output") for each in arguments):
        command = None
    return getattr(command, "STOPPED", "; nothing was written")


def _backends() -> dict[str, str]:
    # a command of ours is nobody's to take over
    return {name: module for name, module in plugins.registry().backends.items() if name not in COMMANDS}


def _handed_over(name: str, arguments: list[str]) -> int:
    """Give another program its own arguments; those that load our plugins are ours."""
    ours = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add_plugins(ours)
    options, rest = ours.parse_known_args(arguments)
    with staying(), stdout.aside():
        plugins.load(options.plugin, options.plugins_dir)
    return int(plugins.registry().backend(name)(rest))


def _dispatch(arguments: list[str]) -> int:
    if arguments and not arguments[0].startswith("-"):
        with staying(), stdout.aside():
            plugins.load((), plugin_folders())
        if arguments[0] in _backends():
            return _handed_over(arguments[0], arguments[1:])
    options = parser().parse_args(arguments)
    if options.version:
        print(f"attnbench {metadata.version('attnbench')}")
        return 0
    if options.command is None:
        parser().print_help()
        return 0
    options.typed = arguments  # a command that is shown again is shown as it was typed
    with staying(), stdout.aside():
        plugins.load(options.plugin, options.plugins_dir)
    return int(COMMANDS[options.command].execute(options))
