"""The command line: parse, call one function, print."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from attnbench.cli import commands, reports, run, stdout
from attnbench.errors import UserError, near, unknown
from attnbench.matrix import export
from attnbench.methods import plugins
from attnbench.studies import importance

EPILOG = """examples:
  attnbench run --models bert,roberta --methods logquant3,prune80
  attnbench run --models ./my-checkpoint --tasks sst2 --methods heads50:entropy,mask90 --limit 200
  attnbench leaderboard --records attnbench-records
  attnbench methods
  attnbench new-method my-method
  attnbench check my-method --plugin my_method.py
"""
HANDED_OVER = {
    "lm-eval": "Hand over to lm-eval's own command line, with --model attnbench known to it.",
    "lighteval": "Hand over to lighteval's own command line, with attnbench known to it as a custom model.",
}
STOPPED = {
    "run": "; what is recorded stays, the same command goes on from there",
    "heads": "; the tables that were said to be written stay",
    "export": "; the folder, where it is there, is unfinished: delete it",
    "leaderboard": "; each file that is there is whole, the same command writes the rest",
    **dict.fromkeys(("check", "compare", "methods", "models", "tasks", "verify"), "; nothing was written"),
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}. {self._next()}")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            token = rest[0].partition("=")[0]
            nearest = near(token, self._option_string_actions, most=1)
            raise UserError(f"unknown argument '{token}'.{nearest} {self._next()}")
        return found, rest

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is not None and value not in action.choices:
            kind = (action.metavar or action.dest) if action.metavar != "COMMAND" else "command"
            raise unknown(str(kind), str(value), action.choices, self._next())

    def _next(self) -> str:
        return f"`{self.prog} --help` shows what there is."


def parser() -> argparse.ArgumentParser:
    """Build the argument parser of every command."""
    top = _Parser(
        prog="attnbench",
        description="Benchmark attention-compression methods over a matrix of models and tasks.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="store_true", help="print the version and stop")
    shared = _Parser(add_help=False, allow_abbrev=False)
    shared.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="FILE.py",
        help="a file with more methods (repeatable)",
    )
    shared.add_argument(
        "--plugins-dir",
        action="append",
        default=[],
        metavar="DIR",
        help="a folder of such files; $ATTNBENCH_PLUGINS_DIR too",
    )
    shared.add_argument("-v", "--verbose", action="store_true", help="let the libraries talk")
    shared.add_argument("--debug", action="store_true", help="show tracebacks")
    found = top.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return found.add_parser(name, help=text, description=text, parents=[shared], allow_abbrev=False)

    measured = command("run", "Measure models with methods on tasks and print the comparison.")
    run.add_run(measured, _positive)

    reports.add_leaderboard(command("leaderboard", "Render records as tables, pictures or a page."))
    reports.add_compare(command("compare", "Compare two recorded methods on the same samples."))
    verify = command("verify", "Measure a cell again and compare it with its record.")
    reports.add_verify(verify, _positive)

    methods = command("methods", "List the methods, or show one.")
    methods.add_argument("name", nargs="?", help="as in prune, heads:entropy or a spec, heads50:entropy")
    methods.add_argument(
        "--examples", action="store_true", help="print one comma-separated line of specs to try"
    )

    scores = command("heads", "Score every head by every criterion, as CSV and heat map.")
    importance.add_arguments(scores, _positive)

    smaller = command("export", "Write a model without the heads that a method removes.")
    export.add_arguments(smaller)

    check = command("check", "Check that methods keep their promises, on tiny models of five architectures.")
    check.add_argument("specs", nargs="+", metavar="SPEC", help="as in prune80; a name alone: its examples")
    check.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda (cpu)")

    new_method = command("new-method", "Write a plugin file with a method that works, and its test.")
    new_method.add_argument("name", help="as in my-method or heads:mine")
    new_method.add_argument(
        "--kind", default="transform", metavar="KIND", help="transform, calibrated or trained (transform)"
    )
    new_method.add_argument("--output", default=".", metavar="DIR", help="where to (the current folder)")

    models = command("models", "List the models that have a short name: size, licence, tasks, dense scores.")
    models.set_defaults(command="list_models")  # commands.models is the module

    tasks = command("tasks", "List the tasks and the models that fit.")
    for each in (measured, verify, scores, smaller, tasks):
        each.add_argument("--include-path", metavar="DIR", help="a folder with task YAML files of your own")

    for name, module in _backends().items():
        text = HANDED_OVER.get(name, f"Hand over to {name}: {module}.")
        whole = found.add_parser(name, help=text, add_help=False, prefix_chars="\0")
        whole.add_argument("rest", nargs=argparse.REMAINDER)
    return top


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0; 1 where a cell failed, 2 for a mistake in the request, 130 for Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # a thread that spins long while it waits takes the core that another one waits for
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        with stdout.guarded():
            return _dispatch(arguments)
        return 0  # the reader of our stdout has left
    except UserError as error:
        if "--debug" in arguments:
            raise
        print(f"attnbench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"attnbench: stopped{_left(arguments)}", file=sys.stderr)
        return 130


def _left(arguments: list[str]) -> str:
    """Say what a command that was stopped leaves behind."""
    command = next((each for each in arguments if not each.startswith("-")), "methods")
    if command == "leaderboard" and not any(each.startswith("--output") for each in arguments):
        command = "methods"
    return STOPPED.get(command, "")


def _backends() -> dict[str, str]:
    # a command of ours is nobody's to take over
    return {
        name: module
        for name, module in plugins.registry().backends.items()
        if not hasattr(commands, name.replace("-", "_"))
    }


def _dispatch(arguments: list[str]) -> int:
    if arguments and not arguments[0].startswith("-"):
        plugins.load((), filter(None, os.environ.get("ATTNBENCH_PLUGINS_DIR", "").split(os.pathsep)))
        if arguments[0] in _backends():
            return int(plugins.registry().backend(arguments[0])(arguments[1:]))
    options = parser().parse_args(arguments)
    if options.version:
        from attnbench import __version__

        print(f"attnbench {__version__}")
        return 0
    if options.command is None:
        parser().print_help()
        return 0
    plugins.load(options.plugin, options.plugins_dir)
    return getattr(commands, options.command.replace("-", "_"))(options)
