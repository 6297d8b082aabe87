"""What the marks and columns of a table mean, one clause for each that it has."""

from __future__ import annotations

from collections.abc import Container, Sequence

from attnbench.inputs.listing import METRICS
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
        f"Δ dense: the difference{points} to the dense model on the same samples, with its 95 % interval.",
        "▼ is worse and ▲ better than dense: the interval excludes zero, without a correction for how many "
        "are compared.",
    ]
    if claims:
        words.append(
            f"≈ is shown not to be worse by {margins(compared)} or more (one-sided {100 * LEVEL:g} %, "
            f"Holm-corrected over {claims} comparison{'' if claims == 1 else 's'}), ? is undecided."
        )
    if any(row.needed is not None for row in compared):
        words.append("About N samples would decide if the differences so far are the true ones.")
    words += _metrics_legend(rows)
    if "kept" not in hidden and any(row.kept is not None for row in rows):
        scale = " of the log perplexity" if any(row.scale == "log" for row in compared) else ""
        words.append(
            f"kept: (score − uniform) / (dense − uniform){scale}, the share that is left of what attention "
            "adds over the uniform-attention baseline."
        )
    words += _answers_legend(rows, hidden)
    words += _cost_legend(rows, hidden)
    if any(row.control_of for row in rows):
        words.append(
            "└ marks a random baseline: it draws what the method above it chooses, at the same amount."
        )
    if any(row.seeds > 1 for row in rows):
        words.append(
            "A method measured with several seeds has their mean (lowest–highest); its errors and intervals "
            "cover seeds and samples."
        )
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


def _metrics_legend(rows: Sequence[Row]) -> list[str]:
    """Write out the names of metrics, where a table has several."""
    names = dict.fromkeys(row.metric for row in rows if row.metric)
    told = [f"{name} is {METRICS[name]}" for name in names if METRICS.get(name, name).lower() != name]
    return [f"{', '.join(told)}."] if told and len(names) > 1 else []


def _answers_legend(rows: Sequence[Row], hidden: Container[str]) -> list[str]:
    words = []
    if "flips" not in hidden and any(row.flips is not None for row in rows):
        words.append("flips: the share of samples that turn from right to wrong or from wrong to right.")
    if "answers changed" not in hidden and any(row.answers_changed is not None for row in rows):
        words.append(
            "answers changed: the share of samples whose class, choice, span or text is not that of dense."
        )
    if "KL" not in hidden and any(row.kl is not None for row in rows):
        words.append(
            "KL: the mean divergence KL(dense || method) of the answer's distribution, in nats; of a text's "
            "tokens, over the likeliest ones of dense and all others taken together."
        )
    if words and "KL" not in hidden:
        words.append("Square brackets behind them are 95 % intervals.")
    return words


def _cost_legend(rows: Sequence[Row], hidden: Container[str]) -> list[str]:
    words = []
    filled = {"sparsity": [row.sparsity for row in rows], "bits": [row.bits for row in rows]}
    names = [
        name
        for name, values in filled.items()
        if name not in hidden and any(value is not None for value in values)
    ]
    if "sim. FLOPs" not in hidden and any(row.flops_simulated is not None for row in rows):
        names.append(
            "sim. FLOPs (the share of dense that would be left if zeros and hidden scores were skipped)"
        )
    if "sparsity" not in hidden and any(row.sparsity is not None for row in rows):
        causal = any((row.nominal or 0) - (row.sparsity or 0) > 0 for row in rows)
        words.append(
            "sparsity: the share of zeros among the attention probabilities that a query may see"
            + ("; in brackets among all, with those that the causal mask hides." if causal else ".")
        )
    if "bits" not in hidden and any(row.entropy is not None for row in rows):
        words.append(
            "bits: log2 of the number of different probabilities; in brackets their entropy, the bits that a "
            "value needs on average."
        )
    if names:
        words.append(f"Simulated, so nothing runs faster: {', '.join(names)}.")
    if "heads" not in hidden and any(row.heads not in (None, 1.0) for row in rows):
        words.append("heads: the share of heads whose context is not all zero.")
    if "divergence" not in hidden and any(row.divergence is not None for row in rows):
        words.append(
            "divergence: the share of a query's attention that the method moves to other keys (total "
            "variation distance to dense), the mean over queries, for the same input to the layer."
        )
    if "latency" not in hidden and any(row.latency is not None for row in rows):
        realised = ", ".join(name for name in ("FLOPs", "latency", "memory") if name not in hidden)
        held = "" if "memory" in hidden else "; memory is the most that one attention module holds"
        words.append(
            f"Realised, so measured on the model with that work really left out, as a share of dense with "
            f"SDPA, and empty where no work can be left out: {realised}. Latency is the median of "
            f"interleaved rounds [its 95 % interval]{_of_seeds(rows)}{held}."
        )
    caches = {
        "cache": "cache: the share of a prompt's tokens that is kept (simulated).",
        "kv": "kv: the bits kept of its keys and values, as a share of 16 bits a value (simulated).",
    }
    if any(row.kv is not None for row in rows):
        words += [told for name, told in caches.items() if name not in hidden]
    if any(row.kv_bytes is not None for row in rows):
        columns = {
            "latency": "is that of a token after a prompt",
            "memory": "the most that the prompt and the tokens after it hold",
            "KV bytes": "what its cache holds, every head filled up to the one that keeps most",
        }
        told = ", ".join(f"{name} {what}" for name, what in columns.items() if name not in hidden)
        words.append(f"For a cache method {told}.")
    return words


def _of_seeds(rows: Sequence[Row]) -> str:
    several = any(row.latency is not None and row.seeds > 1 for row in rows)
    return ", with several seeds the median of theirs (lowest–highest)" if several else ""


def margins(rows: Sequence[Row]) -> str:
    """Name the margins of some rows: "1 point or 1 %"."""
    said: dict[str, None] = {}
    for row in rows:
        value = 100 * (row.margin or 0) if row.scale in ("fraction", "log") else row.margin or 0
        unit = " point" if row.unit == " points" and value == 1 else row.unit
        said[f"{value:.3g}{unit}"] = None
    return " or ".join(said)
