"""lighteval's own command line with attnbench's model known to it: `attnbench lighteval custom …`."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from attnbench.doors.frameworks import handed_over
from attnbench.errors import UserError

NAME = "attnbench"
MODEL = Path(__file__).with_name("lighteval_model.py")


def main(argv: Sequence[str]) -> int:
    """Run lighteval's command line and return its exit status.

    Where it asks for a model's file, `attnbench` is ours: the model's name before it says which checkpoint
    and method. Raises UserError for a mistake there, without lighteval, and for a task that does not exist.
    """
    if importlib.util.find_spec("lighteval") is None:
        raise UserError('lighteval is not installed. Next: pip install "attnbench[lighteval]"')
    arguments = list(argv)
    for place, (before, argument) in enumerate(itertools.pairwise(arguments), 1):
        if arguments[0] == "custom" and argument == NAME and not before.startswith("-"):
            from attnbench.doors.causal_server import CausalServer

            CausalServer.of(before)  # importing lighteval takes long: what is wrong is said before
            arguments[place] = str(MODEL)
            break
    with _tasks_that_load():
        return _handed_over(arguments)


@contextlib.contextmanager
def _tasks_that_load() -> Iterator[None]:
    """Let lighteval leave out those of its own tasks that cannot be imported.

    It imports all of them whatever is asked for. One downloads a file at that, one calls huggingface_hub as
    its version 2 no longer lets it, so that without this not even a user's own task would run.
    """
    from lighteval.tasks.registry import Registry

    before = {name: getattr(Registry, name) for name in ("_load_from_files", "_load_from_subdirs")}
    for name, whole in before.items():
        setattr(Registry, name, staticmethod(functools.partial(_one_by_one, whole)))
    try:
        yield
    finally:
        for name, whole in before.items():
            setattr(Registry, name, staticmethod(whole))


def _one_by_one(load: Callable[..., dict[str, Any]], places: Sequence[Path], *options: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for place in places:
        try:
            found |= load([place], *options)
        except Exception as error:  # whatever their module does when it is imported
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            logging.getLogger(__name__).warning("lighteval's %s is left out: %.200s", place.name, reason)
    return found


def _handed_over(arguments: Sequence[str]) -> int:
    from lighteval.__main__ import app

    try:
        return handed_over("lighteval", app, arguments)
    except ValueError as error:
        if not str(error).startswith("Cannot find task"):
            raise
        raise UserError(f"{error}. `attnbench lighteval tasks list` lists them.") from error
    except (ConnectionError, FileNotFoundError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"lighteval: {reason}. Set HF_HOME to a home that has the data (with HF_HUB_OFFLINE=1)."
        ) from error
    except ModuleNotFoundError as error:
        raise UserError(f"lighteval: {error}. --custom-tasks takes the path of a Python file.") from error
