"""Rows to a table that reads in a terminal and on a code host: marks, resolution, verdict, settings. Pure."""

from __future__ import annotations

import dataclasses
import html
import math
import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from attnbench import compare
from attnbench.compare import CONTROLS, LEVEL, MARGIN, Row
from attnbench.errors import UserError

if TYPE_CHECKING:
    from attnbench.record import Record

WIDTH = 118
LONGEST = 60
POCKET = "pocket-"
TITLES = {
    False: "Published models",
    True: "Pocket models (generated text: a smoke test, not evidence)",
}
HARDWARE = ("processor", "cores", "threads", "accelerator", "system", "python")


def render(records: Iterable[Record], format: str = "md", margin: float = MARGIN) -> str:
    """Render records as text for a terminal ("text") or as markdown ("md"), pocket models in a table of their own.

    Raises UserError where records contradict each other: see compare.rows.
    """
    if format not in ("md", "text"):
        raise UserError(f"unknown format '{format}'. Tables are md or text.")
    records = list(records)
    parts = []
    for pocket in (False, True):
        mine = [item for item in records if item.cell["model"].startswith(POCKET) == pocket]
        if mine:
            parts.append(_board(TITLES[pocket], mine, format == "md", margin))
    return "\n\n".join(parts) or "No records."


def to_json(records: Iterable[Record], margin: float = MARGIN) -> list[dict[str, Any]]:
    """Return the records as plain dicts, each with `comparison`: metric -> its row of the table."""
    records = list(records)
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for pocket in (False, True):
        for row in compare.rows([r for r in records if r.cell["model"].startswith(POCKET) == pocket], margin):
            found.setdefault((row.model, row.task, row.method), {})[row.metric] = compare.to_dict(row)
    out = []
    for item in records:
        body = {field.name: getattr(item, field.name) for field in dataclasses.fields(item)}
        body.pop("scores", None)
        model, task, method = (item.cell[key] for key in ("model", "task", "method"))
        rows = found.get((model, task, method)) or found.get(
            (model, task, compare.name_without_seed(method)), {}
        )
        out.append(_plain({**body, "comparison": {metric: row for metric, row in rows.items() if metric}}))
    return out


def _board(title: str, records: Sequence[Record], markdown: bool, margin: float) -> str:
    rows = compare.rows(records, margin)
    show = _escape if markdown else _clean
    header, lines = _table(rows, show)
    table = tabulate(
        lines, header, tablefmt="github" if markdown else "simple", disable_numparse=True,
        colalign=["left" if name in LEFT else "right" for name in header],
    )  # fmt: skip
    verdicts = [show(line, 2000) for line in _verdicts(rows, margin)]
    notes = [
        show(line, 2000)
        for line in [*_legend(rows, margin), *_resolution(rows), *_notes(rows), *_setting(records)]
    ]
    if markdown:
        bullets = [f"- {line}" for line in verdicts]
        return "\n".join(
            [f"## {title}", "", table, "", *bullets, "", *(f"<sub>{line}</sub><br>" for line in notes)]
        ).rstrip()
    wrapped = [textwrap.fill(line, WIDTH, subsequent_indent="  ") for line in [*verdicts, "", *notes]]
    return "\n".join([title, "", table, "", *wrapped])


LEFT = ("model", "task", "method", "metric", "")


def _table(rows: Sequence[Row], show: Any) -> tuple[list[str], list[list[str]]]:
    """Lay the rows out: columns that nobody fills are left out, names that repeat are written once."""
    metrics = {row.metric for row in rows if row.metric}
    scales = {row.scale for row in rows if row.metric}
    only = metrics.pop() if len(metrics) == 1 else None
    percent = " %" if scales == {"fraction"} else ""
    columns: dict[str, list[str]] = {name: [] for name in ("model", "task", "method")}
    columns |= {"metric": []} if only is None and metrics else {}
    score = f"{show(only) if only else 'score'}{percent}"
    columns |= {
        score: [],
        "Δ dense [95 %]": [],
        "": [],
        "kept": [],
        "sparsity": [],
        "bits": [],
        "seconds": [],
    }
    before: tuple[str, ...] = ()
    for row in rows:
        here = (row.model, row.task, row.method)
        same = [here[: k + 1] == before[: k + 1] for k in range(3)]
        before = here
        task = row.task + (f" ({row.samples:,})" if row.samples else "")
        name = row.method + (f" ({row.seeds} seeds)" if row.seeds > 1 else "")
        cells = [
            *("" if hide else show(text) for hide, text in zip(same, (row.model, task, name), strict=True)),
            show(row.metric), *_numbers(row, show), *([""] * 4 if not row.primary else _costs(row)),
        ]  # fmt: skip
        names = [
            "model",
            "task",
            "method",
            "metric",
            score,
            "Δ dense [95 %]",
            "",
            "kept",
            "sparsity",
            "bits",
            "seconds",
        ]
        for column, cell in zip(names, cells, strict=True):
            if column in columns:
                columns[column].append(cell)
    optional = ("", "kept", "sparsity", "bits", "seconds")
    used = [name for name in columns if name not in optional or any(columns[name])]
    return used, [list(line) for line in zip(*(columns[name] for name in used), strict=True)]


def _numbers(row: Row, show: Any) -> list[str]:
    """Return score, difference, mark."""
    if row.status != "measured":
        reason = {"failed": "failed", "not applicable": "n/a"}[row.status]
        return ["–", show(f"{reason}: {row.error}", 48), ""]
    score = _amount(row.score, row.scale)
    if row.stderr is not None and math.isfinite(row.stderr):
        score += f" ± {_amount(row.stderr, row.scale)}"
    if row.seed_low is not None:
        score += f" ({_amount(row.seed_low, row.scale)}–{_amount(row.seed_high, row.scale)})"
    if row.low is None:
        return [score, "", row.effect or ""]
    change = f"{_signed(row.difference, row.scale)} [{_signed(row.low, row.scale)}, {_signed(row.high, row.scale)}]"
    return [score, change, " ".join(filter(None, (row.mark, row.effect)))]


def _costs(row: Row) -> list[str]:
    """Return kept, sparsity, bits, seconds."""
    if row.status != "measured":
        return ["", "", "", ""]
    kept = "–" if row.kept is None else f"{100 * row.kept:.0f} %"
    sparsity = "" if row.sparsity is None else f"{100 * row.sparsity:.1f} %"
    bits = "" if row.bits is None else f"{row.bits:.3g}"
    return [kept, sparsity, bits, "" if row.seconds is None else f"{row.seconds:.1f}"]


def _amount(value: float | None, scale: str) -> str:
    if value is None:
        return "–"
    if scale == "fraction":
        return f"{100 * value:.1f}"
    return f"{value:.1f}" if scale == "score" else f"{value:.4g}"


def _signed(value: float | None, scale: str) -> str:
    """Return a difference in points, or in percent for a perplexity."""
    value = value or 0.0
    number = {"fraction": 100 * value, "score": value, "log": 100 * math.expm1(min(value, 20))}.get(scale)
    text = f"{value:+.3g}" if number is None else f"{number:+.1f}" if abs(number) < 1000 else f"{number:+.2g}"
    text = "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")
    return text + (" %" if scale == "log" else "")


def _verdicts(rows: Sequence[Row], margin: float) -> list[str]:
    """Write one line a method over all its cells."""
    several = len({row.model for row in rows}) > 1
    metrics = len({row.metric for row in rows if row.metric}) > 1
    out = []
    for method in dict.fromkeys(row.method for row in rows if row.method not in CONTROLS):
        mine = [row for row in rows if row.method == method]
        tasks = len({(row.model, row.task) for row in mine})

        def place(row: Row) -> str:
            names = [row.model if several else "", row.task, row.metric if metrics else ""]
            return " ".join(name for name in names if name)

        said = []
        within = [row for row in mine if row.verdict == "within"]
        worse = [f"{place(row)} {_interval(row)}" for row in mine if row.verdict == "worse"]
        undecided = [
            f"{place(row)} {_interval(row)}{_more(row)}" for row in mine if row.verdict == "undecided"
        ]
        if within and len(within) == len(mine):
            said.append(
                f"within {_margin(mine, margin)} of dense on {'every task' if tasks > 1 else mine[0].task}"
            )
        elif within:
            said.append(
                f"within {_margin(within, margin)} of dense on {', '.join(place(row) for row in within)}"
            )
        said += [f"worse on {', '.join(worse)}"] if worse else []
        said += [f"undecided on {', '.join(undecided)}"] if undecided else []
        for status in ("failed", "not applicable"):
            places = [place(row) for row in mine if row.status == status]
            said += [f"{status} on {', '.join(places)}"] if places else []
        alone = [place(row) for row in mine if row.status == "measured" and not row.verdict]
        said += [f"nothing to compare with on {', '.join(alone)}"] if alone else []
        if any(row.effect for row in mine):
            said.append("without any effect somewhere: see the table")
        out.append(f"{method}: {'; '.join(said)}.")
    return out


def _interval(row: Row) -> str:
    return f"({_signed(row.difference, row.scale)} [{_signed(row.low, row.scale)}, {_signed(row.high, row.scale)}])"


def _more(row: Row) -> str:
    if row.needed is None or not row.needed < 1e7:
        return ", too close to the margin for any number of samples"
    digits = 1 - math.floor(math.log10(row.needed))
    return f", about {math.ceil(row.needed * 10**digits) * 10**-digits:,.0f} samples would decide"


def _margin(rows: Sequence[Row], margin: float) -> str:
    scales = {row.scale for row in rows}
    if scales <= {"fraction", "score"}:
        return f"{100 * margin:g} point{'' if margin == 0.01 else 's'}"
    return f"{100 * margin:g} %" if not scales & {"fraction", "score"} else "the margin"


def _legend(rows: Sequence[Row], margin: float) -> list[str]:
    claims = sum(row.p_holm is not None for row in rows)
    if not any(row.low is not None for row in rows):
        return []
    units = "percent" if {row.scale for row in rows if row.low is not None} == {"log"} else "points"
    amounts = dict.fromkeys(_margin([row], margin) for row in rows if row.low is not None)
    lines = [
        f"Δ dense: {units} of difference on the same samples, 95 % interval. ▼ worse, ▲ better: the interval leaves out "
        f"zero (not corrected). ≈ worse by less than {' or '.join(amounts)} (one-sided {100 * LEVEL:g} %, Holm over "
        f"{claims} claim{'' if claims == 1 else 's'}). ? undecided."
    ]
    if any(row.kept is not None for row in rows):
        scale = ", of log perplexity" if any(row.scale == "log" for row in rows) else ""
        lines[0] += (
            f" kept: (score − uniform) / (dense − uniform){scale}, what survives of what attention contributes."
        )
    if any(row.sparsity is not None for row in rows):
        lines[0] += " sparsity, bits: simulated, nothing runs faster for them."
    if any(row.seeds > 1 for row in rows):
        lines[0] += (
            " Seeds: mean ± standard error (lowest–highest); intervals cover the draw of seeds and of samples."
        )
    return lines


def _resolution(rows: Sequence[Row]) -> list[str]:
    """State what each task can tell apart: the median half-width of its methods' intervals in this table."""
    widths: dict[tuple[str, int, str, str], list[float]] = {}
    for row in rows:
        if row.p_margin is not None and row.low is not None and row.high is not None:
            widths.setdefault((row.task, row.samples, row.metric, row.scale), []).append(
                (row.high - row.low) / 2
            )
    said = []
    for (task, samples, metric, scale), found in widths.items():
        middle = sorted(found)[len(found) // 2]
        amount = _signed(middle, scale).lstrip("+") + ("" if scale in ("log", "raw") else " points")
        said.append(f"{task}: {samples:,} samples resolve ±{amount} of {metric}")
    return [f"Resolution (median half-width of the methods' intervals): {'; '.join(said)}."] if said else []


def _notes(rows: Sequence[Row]) -> list[str]:
    out = []
    for row in rows:
        if row.method == "uniform" and row.low is not None and not row.worse:
            out.append(f"{row.model} {row.task} {row.metric}: uniform attention is not worse than dense, "
                       "so this task tells nothing about attention.")  # fmt: skip
        if row.status != "measured" and len(row.error or "") > 30:
            out.append(f"{row.model} {row.task} {row.method} {row.status}: {row.error}")
    lonely = dict.fromkeys(f"{row.model} {row.task}" for row in rows if row.status == "measured")
    for row in rows:
        if row.method == "dense" and row.status == "measured":
            lonely.pop(f"{row.model} {row.task}", None)
    return out + [f"{name}: no dense cell, so nothing to compare with." for name in lonely]


def _setting(records: Sequence[Record]) -> list[str]:
    """Write settings, versions and hardware, each value once; several where the cells differ."""
    settings = _gathered([item.settings for item in records])
    environments = [item.environment for item in records if item.environment]
    versions = _gathered([env["versions"] for env in environments if isinstance(env.get("versions"), dict)])
    hardware = _gathered([{key: env.get(key) for key in HARDWARE} for env in environments])
    days = sorted({item.date[:10] for item in records if item.date})
    dates = {"measured": [days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"]} if days else {}
    lines = (("Settings", settings), ("Versions", versions), ("Hardware", hardware | dates))
    return [
        f"{name}: {', '.join(f'{key} {chr(47).join(values)}' for key, values in found.items())}."
        for name, found in lines if found
    ]  # fmt: skip


def _gathered(dicts: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for each in dicts:
        for key, value in each.items():
            if value is not None and value is not False and str(value) not in found.setdefault(key, []):
                found[key].append(str(value))
    return {key: values for key, values in found.items() if values}


def _clean(text: str, longest: int = LONGEST) -> str:
    """Put any text on one line without control characters, cut at `longest`."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def _escape(text: str, longest: int = LONGEST) -> str:
    """Make any text inert in a markdown table cell."""
    line = html.escape(_clean(text, longest), quote=False)
    return re.sub(r"([\\`*\[\]|~]|(?<!\w)_|_(?!\w))", r"\\\1", line)


def _plain(value: Any) -> Any:
    """Return JSON's types only: no NaN, no tuple, no numpy."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
