"""What a head is, by numbers: each role has a score and a bar."""

from __future__ import annotations

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


def badges(heads: DataFrame, rare: DataFrame | None, relations: DataFrame | None) -> DataFrame:
    """Return one row a head and role: its `score`, the `bar` for it, `has` 1 where the head has the role.

    positional .9 of queries at one offset that is not 0 (Voita et al. 2019, section 5.1); first, separator,
    self: mean weight .5; rare: .5 of the texts (their section 5.3), and above chance and above always the same
    place; a relation in a direction: .1 above the best fixed offset, sure by Holm (5.2); retrieval .1 (Wu et
    al. 2024). The bars of previous, duplicate and induction are ours: mean weights of .5, .5 and .3.
    """
    import pandas as pd

    rows: list[tuple[Any, ...]] = []
    for at, row in heads.iterrows():
        if row.get("positional", float("nan")) >= 0:
            has = row["positional"] >= POSITIONAL and row["offset"] != 0
            rows.append((*at, "positional", row["positional"], POSITIONAL, has))
        for role, (column, bar) in BARS.items():
            if row.get(column, float("nan")) >= 0:
                rows.append((*at, role, row[column], bar, row[column] >= bar))
    if rare is not None and len(rare):
        for at, row in rare.xs(1, level="target").iterrows():
            bar = max(RARE, row["chance"], row["at_place"])
            rows.append((*at, "rare", row["share"], bar, row["share"] >= RARE and row["share"] > bar - 1e-12))
    if relations is not None:
        for (*at, relation, direction), row in relations.iterrows():
            bar = row["by_offset"] + 0.1
            rows.append((*at, f"{relation} {direction}", row["share"], bar, row["beats"] == 1))
    names = ["kind", "layer", "head", "role"]
    found = pd.DataFrame(rows, columns=[*names, "score", "bar", "has"]).astype({"has": int})
    return found.set_index(names).sort_index()
