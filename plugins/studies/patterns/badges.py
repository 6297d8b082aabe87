"""What a head is, by numbers: each role has a score and a bar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame

# role -> the column of the table of heads that scores it, and its bar
BARS = {
    "first": ("first_weight", 0.5),
    "separator": ("separator_weight", 0.5),
    "self": ("self_weight", 0.5),
    "previous": ("previous", 0.5),
    "duplicate": ("duplicate", 0.5),
    "induction": ("induction", 0.3),
    "retrieval": ("retrieval", 0.1),
}
POSITIONAL = 0.9  # of the queries, at one offset that is not 0
RARE = 0.5  # of the texts, and more than by chance or always at one place


def badges(tables: Mapping[str, DataFrame]) -> DataFrame:
    """Return a row a head and role from the other tables: `score`, `bar`, `has` 1 where it has the role.

    positional: .9 of the queries at an offset that is not 0 (Voita et al. 2019, section 5.1). rare: .5 of the
    texts (their section 5.3), more than by chance and than at one place. A relation in a direction: .1 above
    the best fixed offset, sure by Holm (5.2). retrieval: .1 (Wu et al. 2024). The other bars are ours: mean
    weights of .5 for first, separator, self, previous and duplicate, of .3 for induction.
    """
    import pandas as pd

    rows: list[tuple[Any, ...]] = []
    for at, row in tables["heads"].iterrows():
        if row.get("positional", float("nan")) >= 0:
            has = row["positional"] >= POSITIONAL and row["offset"] != 0
            rows.append((*at, "positional", row["positional"], POSITIONAL, has))
        for role, (column, bar) in BARS.items():
            if row.get(column, float("nan")) >= 0:
                rows.append((*at, role, row[column], bar, row[column] >= bar))
    if "rare" in tables:
        for at, row in tables["rare"].xs(1, level="target").iterrows():
            bar = max(RARE, row["chance"], row["at_place"])
            rows.append((*at, "rare", row["share"], bar, row["share"] >= RARE and row["share"] > bar - 1e-12))
    if "relations" in tables:
        for (*at, relation, direction), row in tables["relations"].iterrows():
            bar = row["by_offset"] + 0.1
            rows.append((*at, f"{relation} {direction}", row["share"], bar, row["beats"] == 1))
    names = ["kind", "layer", "head", "role"]
    found = pd.DataFrame(rows, columns=[*names, "score", "bar", "has"]).astype({"has": int})
    return found.set_index(names).sort_index()
