"""Read and write method specs: `prune80+logquant3` is (Prune(80), LogQuant(3))."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from attnbench.errors import UserError, unknown
from attnbench.method import KINDS, Method, layer_range
from attnbench.plugins import registry

TERM = re.compile(r"(?P<name>[a-z](?:-?[a-z])*)(?P<amount>\d+(?:\.\d+)?)?(?P<modifiers>(?::[^:]+)*)")
WORD = re.compile(r"[a-z](?:-?[a-z0-9])*")
VALUE = re.compile(r"[A-Za-z0-9._/~-]+")
HINT = "`attnbench methods` lists them."


def parse(text: str) -> tuple[Method, ...]:
    """Read a spec. `parse("dense")` is (). Raises UserError naming the term that is wrong.

    >>> parse("prune80")
    (Prune(on=(), layers=(), percent=80.0),)
    """
    terms = text.strip().split("+")
    if terms == ["dense"]:
        return ()
    if "dense" in terms:
        raise UserError(f"'{text}': dense is the unmodified model and combines with nothing. Leave it out.")
    return tuple(_term(term) for term in terms)


def format(methods: Sequence[Method]) -> str:
    """Write methods as their canonical spec: variants first, no defaults, keys sorted, plain decimals."""
    return "+".join(_format_term(method) for method in methods) or "dense"


def _term(term: str) -> Method:
    match = TERM.fullmatch(term)
    if not match:
        raise UserError(f"'{term}' is not a method spec such as prune80 or heads50:entropy. {HINT}")
    words, pairs = [], []
    for modifier in match["modifiers"].split(":")[1:]:
        key, equals, value = modifier.partition("=")
        if not WORD.fullmatch(key) or (equals and not VALUE.fullmatch(value)):
            raise UserError(f"'{term}': '{modifier}' is neither a word nor key=value. {HINT}")
        if equals:
            pairs.append((key, value))
        elif key in words:
            raise UserError(f"'{term}': '{key}' is given twice")
        else:
            words.append(key)
    cls = _class(term, match["name"], words)
    flags = [word for word in words if word not in cls.name.split(":")[1:]]
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    arguments: dict[str, Any] = {}
    amount = amount_field(cls)
    if match["amount"]:
        if amount is None:
            raise UserError(
                f"'{term}': {cls.name} takes no amount. `attnbench methods {cls.name}` shows its fields."
            )
        arguments[amount.name] = _value(term, amount, match["amount"])
    elif amount is not None and _default(amount) is dataclasses.MISSING:
        raise UserError(f"'{term}': the amount ({amount.name}) is missing, as in {_example(cls)}")
    for flag in flags:
        field = fields.get(flag.replace("-", "_"))
        if field is None or _type(field) != "bool":
            raise _unknown_modifier(term, flag, cls, fields)
        arguments[field.name] = True
    for key, value in pairs:
        field = fields.get(key.replace("-", "_"))
        if field is None or field is amount:
            raise _unknown_modifier(term, key, cls, fields)
        if _type(field).startswith("tuple"):
            arguments[field.name] = (*arguments.get(field.name, ()), _value(term, field, value))
        elif field.name in arguments:
            raise UserError(f"'{term}': '{key}' is given twice")
        else:
            arguments[field.name] = _value(term, field, value)
    try:
        method = cls(**arguments)
        for text in method.layers:
            layer_range(text)
    except ValueError as error:
        raise UserError(f"'{term}': {error}. `attnbench methods {cls.name}` shows its fields.") from None
    for kind in method.on:
        if kind not in KINDS:
            raise unknown("kind of attention", kind, KINDS, f"'{term}' takes on={'|'.join(KINDS)}.")
    return method


def _class(term: str, name: str, words: list[str]) -> type[Method]:
    methods = registry().methods
    variants = {known: set(known.split(":")[1:]) for known in methods if known.split(":")[0] == name}
    if not variants:
        raise unknown("method", name, {known.split(":")[0] for known in methods} | {"dense"}, HINT)
    fitting = [known for known, needed in variants.items() if needed <= set(words)]
    if not fitting:
        choices = ", ".join(sorted(":".join(known.split(":")[1:]) for known in variants))
        if words:
            raise unknown(f"{name} variant", words[0], choices.split(", "), f"{name} takes one of {choices}.")
        raise UserError(
            f"'{term}': {name} needs one of {choices}, as in {_example(methods[sorted(variants)[0]])}"
        )
    return methods[max(fitting, key=lambda known: len(variants[known]))]


def amount_field(cls: type[Method]) -> dataclasses.Field[Any] | None:
    """Return the field that a spec's amount fills: the first that is not keyword-only."""
    return next((field for field in dataclasses.fields(cls) if field.init and not field.kw_only), None)


def _unknown_modifier(term: str, token: str, cls: type[Method], fields: dict[str, Any]) -> UserError:
    known = sorted(name.replace("_", "-") for name in fields if fields[name] is not amount_field(cls))
    base = cls.name.split(":")[0]
    known += [":".join(name.split(":")[1:]) for name in registry().methods if name.startswith(base + ":")]
    return unknown(f"modifier of {cls.name}", token, known, f"'{term}' may use {', '.join(known)}.")


def _type(field: dataclasses.Field[Any]) -> str:
    return field.type.__name__ if isinstance(field.type, type) else str(field.type)


def _value(term: str, field: dataclasses.Field[Any], text: str) -> Any:
    kind = _type(field)
    try:
        if "bool" in kind:
            return {"true": True, "false": False}[text]
        if "int" in kind:
            return int(text)
        if "float" in kind and not math.isfinite(float(text)):
            raise ValueError
        return float(text) if "float" in kind else text
    except (ValueError, KeyError):
        words = {"bool": "true or false", "int": "a whole number", "float": "a number"}
        wanted = next(word for name, word in words.items() if name in kind)
        raise UserError(f"'{term}': {field.name.replace('_', '-')} takes {wanted}, not '{text}'") from None


def _example(cls: type[Method]) -> str:
    return cls.examples[0] if cls.examples else cls.name


def _plain(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value).lower() if isinstance(value, bool) else str(value)
    text = f"{Decimal(repr(value)):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _default(field: dataclasses.Field[Any]) -> Any:
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()


def _format_term(method: Method) -> str:
    name, *variants = type(method).name.split(":")
    amount = amount_field(type(method))
    modifiers = []
    for field in sorted(dataclasses.fields(method), key=lambda field: field.name):
        value = getattr(method, field.name)
        if not field.init or field is amount or value == _default(field):
            continue
        key = field.name.replace("_", "-")
        if value is True:
            modifiers.append(key)
        else:
            modifiers += [
                f"{key}={_plain(item)}" for item in (value if isinstance(value, tuple) else (value,))
            ]
    if amount is not None and getattr(method, amount.name) != _default(amount):
        name += _plain(getattr(method, amount.name))
    return ":".join([name, *variants, *modifiers])
