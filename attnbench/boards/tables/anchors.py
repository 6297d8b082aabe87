"""The name under which a row can be linked to: the path of its record, which is its identity."""

from __future__ import annotations

from urllib.parse import quote

from attnbench.records.record import file_name
from attnbench.statistics.row import Row


def of(row: Row) -> str:
    """Return a row's anchor: of a method of several seeds without the seed, of further metrics empty.

    It holds ASCII alone and nothing that HTML or a link would act on.
    """
    if not row.primary:
        return ""
    return "/".join(quote(file_name(part), safe=",=+") for part in (row.model, row.task, row.method))
