"""What a task does on a node of a cluster: it measures a column there and posts what it has, cell by cell."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

from attnbench.errors import UserError
from attnbench.matrix.console import Silent
from attnbench.matrix.sharing import travelling, workers
from attnbench.matrix.sharing.post import Began, Ended
from attnbench.methods import plugins
from attnbench.methods.staying import staying
from attnbench.records import record
from attnbench.records.record import Record


class _Posting(Silent):
    """Listen to a column on a node, and post its records and lines."""

    def __init__(self, post: Any, number: int) -> None:
        self._post, self._number = post, number

    def line(self, text: str) -> None:
        self.put(text, False)

    def finish(self, record: Record, reused: bool) -> None:
        self.put(record, reused)

    def put(self, item: str | Record | Began | Ended, reused: bool) -> None:
        import ray

        ray.get(self._post.put.remote(self._number, item, reused))  # it is there before the task ends


def measure(number: int, luggage: travelling.Luggage, asked: dict[str, Any], post: Any) -> None:
    """Measure a column on a node, and post its records as they come and that it has ended."""
    posting = _Posting(post, number)
    posting.put(Began(_node()), False)
    posting.put(Ended(_measured(luggage, asked, posting)), False)


def _node() -> str:
    """Name the node: its machine, and its number, as several nodes may be on one."""
    import ray

    return f"{socket.gethostname()} (node {ray.get_runtime_context().get_node_id()[:8]})"


def _measured(luggage: travelling.Luggage, asked: dict[str, Any], posting: _Posting) -> str | None:
    if (here := record.NUMERICS) != asked["numerics"]:
        return f"{socket.gethostname()} has another attnbench: numerics {here}, not {asked['numerics']}"
    os.environ["OMP_NUM_THREADS"] = str(asked["threads"])
    sys.argv = asked["argv"]  # records say by which command they were measured
    with staying(), tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            travelling.unpack(luggage, Path(folder))
            plugins.load(asked["plugins"], asked["folders"])
            workers.run(
                asked["cells"], travelling.settings_of(asked, asked["device"]), "records", 1,
                workers.Start(asked["plugins"], asked["folders"]), force=asked["force"], replace=True,
                cell_timeout=asked["cell_timeout"], debug=asked["strict"], listener=posting,
                alone=asked["alone"],
            )  # fmt: skip
        except UserError as error:
            return str(error)
    return None
