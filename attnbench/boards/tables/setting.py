"""Where the numbers of a table come from: command, settings, versions, hardware, days."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from attnbench.records import provenance
from attnbench.records.inert import Show, clean, command_lines, escape

if TYPE_CHECKING:
    from attnbench.records.record import Record

HARDWARE = ("processor", "cores", "threads", "accelerator", "system", "python")
BRIEF = ("limit", "seed", "dtype", "device")  # of the settings
USED = ("attnbench", "torch", "transformers")  # of the versions


def commands(records: Sequence[Record]) -> list[str]:
    """Return the commands that measured records, as one types them, each once."""
    told = (item.provenance.get("command") for item in records)
    return list(dict.fromkeys(clean(provenance.written(each), 2000) for each in told if each))


def whole(made_by: Sequence[str], records: Sequence[Record], show: Show) -> list[str]:
    """Write settings, versions and hardware, each value once; all of them where cells differ."""
    # escaped, a command could not be pasted: in markdown it is code
    told = [f"`{each.replace('`', '')}`" if show is escape else each for each in made_by]
    return [*([f"Made by: {', '.join(told)}"] if told else []), *_facts(records, show)]


def on_screen(made_by: Sequence[str], records: Sequence[Record], width: int) -> list[str]:
    """Write the same for a terminal: commands can be pasted, each begins a line of its own."""
    told = [line for each in made_by for line in command_lines(each, width)]
    return [*(["Made by:", *told] if told else []), *_facts(records, clean)]


def in_short(records: Sequence[Record], width: int, more: str) -> str:
    """Write what matters of it in one line, as much as there is room for, and how all of it is told."""
    settings = _values([item.settings for item in records])
    versions = _values([item.environment.get("versions") or {} for item in records])
    told = [f"{name} {settings[name]}" for name in BRIEF if name in settings]
    told += [f"{name} {versions[name]}" for name in USED if name in versions]
    told += _days(records)
    while told and len("; ".join([*told, more])) > width:
        told.pop()
    return "; ".join([*told, more])


def _facts(records: Sequence[Record], show: Show) -> list[str]:
    environments = [item.environment for item in records]
    versions = [env["versions"] for env in environments if isinstance(env.get("versions"), dict)]
    hardware = [{key: env.get(key) for key in HARDWARE} for env in environments]
    found = {
        "Settings": _gathered([{**item.settings, "measure": None} for item in records], show),
        "Versions": _gathered(versions, show),
        "Hardware": _gathered(hardware, show),
        "Measured": [show(day) for day in _days(records)],
        "Costs measured after the scores": _later(records, show),
    }
    return [f"{name}: {', '.join(values)}." for name, values in found.items() if values]


def _later(records: Sequence[Record], show: Show) -> list[str]:
    """Say when and where costs were measured of records whose scores were there before."""
    added = [costs for item in records if isinstance(costs := item.measured.get("costs"), dict)]
    days = sorted({str(costs.get("date"))[:10] for costs in added})
    machines = [each for costs in added if isinstance(each := costs.get("environment"), dict)]
    hardware = [{key: each.get(key) for key in ("processor", "threads", "accelerator")} for each in machines]
    return [show(day) for day in dict.fromkeys((*days[:1], *days[-1:]))] + _gathered(hardware, show)


def _days(records: Sequence[Record]) -> list[str]:
    days = sorted({item.date[:10] for item in records if item.date})
    return [" to ".join(dict.fromkeys((days[0], days[-1])))] if days else []


def _values(dicts: Sequence[dict[str, Any]], show: Show = clean) -> dict[str, str]:
    found: dict[str, dict[str, None]] = {}
    for each in dicts:
        for key, value in each.items():
            if value is not None and value is not False:
                found.setdefault(key, {})[show(str(value))] = None
    return {key: " or ".join(values) for key, values in found.items()}


def _gathered(dicts: Sequence[dict[str, Any]], show: Show) -> list[str]:
    return [f"{show(key.replace('_', ' '))} {value}" for key, value in _values(dicts, show).items()]
