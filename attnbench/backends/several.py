"""Labels of a text for a model that gives each of them or none: how the user's own files say them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence

from attnbench.backends.own_data import UNLABELLED, Item, shown
from attnbench.errors import UserError, near

FLAGS = {"0": 0, "0.0": 0, "false": 0, "1": 1, "1.0": 1, "true": 1}  # of a label that is there or not


def several_of(item: Item, labels: Sequence[str]) -> list[int] | None:
    """Return 1 for each label that an item has, else 0: (labels,). Raises UserError for anything else.

    They are given as a list of names, in a CSV as JSON, or as 0 or 1 for each label, in a list or in
    columns.
    """
    given = item.label
    if given is UNLABELLED:
        return None
    if isinstance(given, str) and given.startswith("["):
        with contextlib.suppress(ValueError):
            given = json.loads(given)
    if not isinstance(given, list):
        raise UserError(
            f"{item.place}: label {shown(item.label)} is no list: the model is multi-label (config.json: "
            f"problem_type). Give a list of names, as [{json.dumps(labels[0])}], or a column of 0 and 1 for "
            f"each of {shown(', '.join(labels))}."
        )
    said = [FLAGS.get(str(each).strip().lower()) for each in given]
    if given and None not in said:
        if len(given) != len(labels):
            raise UserError(f"{item.place}: {len(given)} labels of 0 and 1, the model has {len(labels)}")
        return [int(bool(each)) for each in said]
    for each in given:
        if each not in labels:
            raise UserError(
                f"{item.place}: label {shown(each)} is none of {', '.join(labels)}, nor 0 or 1 for each"
                f"{near(str(each), labels) and '.' + near(str(each), labels)}"
            )
    return [int(label in given) for label in labels]
