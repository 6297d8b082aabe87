"""Load one split of a Hub dataset; where there is no network, say so at once."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from attnbench.errors import TaskMistake, UserError
from attnbench.inputs import hub

SAMPLES = 512  # of a calibration split, where a task names no number


def load(
    path: str,
    name: str | None,
    split: str,
    columns: Sequence[str] | Callable[[Sequence[str]], Sequence[str]],
    **options: Any,
) -> list[dict[str, Any]]:
    """Return the documents of a split with the columns named, or chosen of those there are.

    `HF_HOME` and `HF_HUB_OFFLINE` are the libraries' own; with no network, what their cache holds is used.
    Raises UserError.
    """
    import datasets

    shown = "/".join(filter(None, (path, name)))
    with offline_if_unreachable():
        try:
            loaded = datasets.load_dataset(path, name, split=split, **options)
        except (ConnectionError, FileNotFoundError) as error:
            if "data_files" in options and "/" not in path:  # csv, json, …: files of the user's
                raise TaskMistake(f"data cannot be read: {_line(error)}", "dataset_kwargs") from error
            raise UserError(
                f"dataset '{shown}' is neither in the cache nor to be had: {_line(error)}. Set HF_HOME to a "
                "home that has it (with HF_HUB_OFFLINE=1), or use pocket-sentiment, pocket-qa."
            ) from error
        except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
            raise TaskMistake(f"dataset '{shown}', split '{split}': {_line(error)}", split) from error
    wanted = list(columns(loaded.column_names) if callable(columns) else columns)
    check_columns(shown, wanted, loaded.column_names)
    return loaded.select_columns(wanted).to_list()


def check_columns(shown: str, wanted: Sequence[str], there: Sequence[str]) -> None:
    """Raise UserError where a column is missing, naming those there are."""
    missing = [column for column in wanted if column not in there]
    if missing:
        raise TaskMistake(
            f"dataset '{shown}' has no column '{missing[0]}'. It has {', '.join(there)}.", missing[0]
        )


@contextlib.contextmanager
def offline_if_unreachable() -> Iterator[None]:
    """Switch the Hub libraries offline where the Hub does not answer: they would retry for 23 seconds."""
    import datasets
    from huggingface_hub import constants

    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    if not before[0] and not _hub_answers():
        datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


@functools.cache
def _hub_answers() -> bool:
    from huggingface_hub import constants

    return hub.reachable(constants.ENDPOINT)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
