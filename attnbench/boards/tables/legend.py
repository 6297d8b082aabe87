"""What the marks and columns of a table mean, one clause for each that it has."""

from __future__ import annotations

from collections.abc import Container, Sequence

from attnbench.statistics.row import LEVEL, Row


def legend(rows: Sequence[Row], hidden: Container[str] = ()) -> list[str]:
    """Explain the marks and columns that a table has, in one line; none where nothing is compared.

    Columns named in `hidden` are not shown, so not explained.
    """
    compared = [row for row in rows if row.low is not None]
    if not compared:
        return []
    claims = sum(row.p_holm is not None for row in rows)
    points = " in points" if {row.unit for row in compared} == {" points"} else ""
    words = [
        f"Δ dense: difference{points} on the same samples, 95 % interval.",
        "▼ worse, ▲ better: the interval leaves out zero, uncorrected.",
    ]
    if claims:
        words.append(
            f"≈ not worse by {margins(compared)} or more: one-sided {100 * LEVEL:g} %, Holm over {claims} "
            f"claim{'' if claims == 1 else 's'}. ? undecided."
        )
    if "kept" not in hidden and any(row.kept is not None for row in rows):
        scale = " of log perplexity" if any(row.scale == "log" for row in compared) else ""
        words.append(
            f"kept: (score − uniform) / (dense − uniform){scale}: what survives of what attention adds."
        )
    words += _answers_legend(rows, hidden)
    words += _cost_legend(rows, hidden)
    if any(row.control_of for row in rows):
        words.append("└ a random control at the budget of the method above it.")
    if any(row.seeds > 1 for row in rows):
        words.append("Seeds: their mean (lowest–highest); errors and intervals cover seeds and samples.")
    return [" ".join(words)]


def marks(rows: Sequence[Row]) -> list[str]:
    """Explain the marks alone that a table has, in one short line."""
    compared = [row for row in rows if row.low is not None]
    found = "".join(row.mark for row in rows)
    meanings = {
        "≈": f"not worse than dense by {margins(compared)} or more",
        "▼": "worse", "▲": "better", "!": "better beyond chance", "?": "undecided",
    }  # fmt: skip
    told = [f"{mark} {meaning}" for mark, meaning in meanings.items() if mark in found]
    return [", ".join(told) + "."] if told else []


def _answers_legend(rows: Sequence[Row], hidden: Container[str]) -> list[str]:
    words = []
    if "flips" not in hidden and any(row.flips is not None for row in rows):
        words.append("flips: share of samples that turn from right to wrong or from wrong to right.")
    if "answers changed" not in hidden and any(row.answers_changed is not None for row in rows):
        words.append("answers changed: share whose class, choice, span or text is not dense's.")
    if "KL" not in hidden and any(row.kl is not None for row in rows):
        words.append(
            "KL: mean divergence KL(dense || method) of the answer's odds, in nats (of target tokens over "
            "dense's likeliest ones and all others as one)."
        )
    if words and "KL" not in hidden:
        words.append("In brackets their 95 % intervals.")
    return words


def _cost_legend(rows: Sequence[Row], hidden: Container[str]) -> list[str]:
    words, names = [], []
    filled = {"sparsity": [row.sparsity for row in rows], "bits": [row.bits for row in rows]}
    if any(value is not None for values in filled.values() for value in values):
        names = [name for name in filled if name not in hidden]
    if "sim. FLOPs" not in hidden and any(row.flops_simulated is not None for row in rows):
        names.append("sim. FLOPs (of dense, were zeros and hidden scores skipped)")
    if names:
        words.append(f"{', '.join(names)}: simulated, nothing runs faster for them.")
    if "sparsity" not in hidden and any((row.nominal or 0) - (row.sparsity or 0) > 0 for row in rows):
        words.append("sparsity: of visible values (of all, where causality hides some).")
    if "bits" not in hidden and any(row.entropy is not None for row in rows):
        words.append("bits: log2 of the levels (bits a value needs on average: their entropy).")
    if "heads" not in hidden and any(row.heads not in (None, 1.0) for row in rows):
        words.append("heads: share that is not silent.")
    if "divergence" not in hidden and any(row.divergence is not None for row in rows):
        words.append(
            "divergence: share of a query's attention that the method moves to other keys (total variation "
            "from dense), mean over queries, for the same input to the layer."
        )
    if "latency" not in hidden and any(row.latency is not None for row in rows):
        realised = ", ".join(name for name in ("FLOPs", "latency", "memory") if name not in hidden)
        held = "" if "memory" in hidden else ", memory the most that one attention module holds"
        words.append(
            f"{realised}: realised, of the model with that work really left out, empty where "
            "there is none; over dense SDPA: latency the median of interleaved rounds [its 95 % interval]"
            f"{_of_seeds(rows)}{held}."
        )
    return words


def _of_seeds(rows: Sequence[Row]) -> str:
    several = any(row.latency is not None and row.seeds > 1 for row in rows)
    return ", of several seeds the median of theirs (lowest–highest)" if several else ""


def margins(rows: Sequence[Row]) -> str:
    """Name the margins of some rows: "1 point or 1 %"."""
    said: dict[str, None] = {}
    for row in rows:
        value = 100 * (row.margin or 0) if row.scale in ("fraction", "log") else row.margin or 0
        unit = " point" if row.unit == " points" and value == 1 else row.unit
        said[f"{value:.3g}{unit}"] = None
    return " or ".join(said)
