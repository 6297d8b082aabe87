"""Read and write specs, of methods and of studies: `prune80+logquant3` is (Prune(80), LogQuant(3))."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from attnbench.errors import UserError, described, near, said, unknown
from attnbench.methods.declared import WORD
from attnbench.methods.fields import amount_field, kind_of, required
from attnbench.methods.plugins import option, registry
from attnbench.methods.protocol import KINDS, Method, Term, layer_range, overridden
from attnbench.methods.study import Study

TERM = re.compile(r"(?P<name>[a-z](?:-?[a-z])*)(?P<amount>\d+(?:\.\d+)?)?(?P<modifiers>(?::[^:]+)*)")
VALUE = re.compile(r"[A-Za-z0-9._/~-]+")


@dataclass(frozen=True)
class Kind:
    """What a term may name: methods or studies, and the command that lists them."""

    word: str
    known: Callable[[], Mapping[str, type[Any]]]
    example: str
    others: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        return f"attnbench {'studies' if self.word == 'study' else 'methods'}"

    @property
    def hint(self) -> str:
        return f"`{self.command}` lists them."


METHOD = Kind("method", lambda: registry().methods, "prune80 or heads50:entropy", ("dense",))
STUDY = Kind("study", lambda: registry().studies, "sparsity or clamp4")


def parse_study(text: str) -> Study:
    """Read the spec of one study. Raises UserError naming what is wrong.

    >>> parse_study("sparsity").name
    'sparsity'
    """
    found: Study = _term(text.strip(), STUDY)
    return found


def parse(text: str) -> tuple[Method, ...]:
    """Read a spec. `parse("dense")` is (). Raises UserError naming the term that is wrong.

    >>> parse("prune80")
    (Prune(on=(), layers=(), percent=80.0),)
    """
    terms = text.strip().split("+")
    if "" in terms and len(terms) > 1:
        raise UserError(f"'{text}': no method on one side of +. Write a + b as a+b, without blanks.")
    if terms == ["dense"]:
        return ()
    if "dense" in terms:
        raise UserError(f"'{text}': dense is the unmodified model and combines with nothing. Leave it out.")
    methods: tuple[Method, ...] = tuple(_term(term, METHOD) for term in terms)
    for place, method in enumerate(methods):
        for other in methods[:place]:
            if all("normalize" in overridden(each) for each in (method, other)) and _meet(method, other):
                raise UserError(
                    f"'{text}': {other.name} and {method.name} each replace the softmax. Leave one out, or "
                    "part them by on= or layers=."
                )
    return methods


def format(methods: Sequence[Term]) -> str:
    """Write methods, or one study, as a canonical spec: variants first, no defaults, keys sorted."""
    return "+".join(_format_term(method) for method in methods) or "dense"


def _meet(a: Method, b: Method) -> bool:
    """Tell whether `on=` and `layers=` of two methods leave them a site in common."""
    layers = [[layer_range(text) for text in method.layers] or [range(sys.maxsize)] for method in (a, b)]
    return bool(set(a.on or KINDS) & set(b.on or KINDS)) and any(
        max(one.start, two.start) < min(one.stop, two.stop) for one in layers[0] for two in layers[1]
    )


def _term(term: str, kind: Kind) -> Any:
    match = TERM.fullmatch(term)
    if match and match["name"] == "dense" and kind is METHOD:
        raise UserError(f"'{term}': dense is the unmodified model and takes nothing. Write dense.")
    if "{" in term or "}" in term:
        raise UserError(f"'{term}': braces stand for several specs, and this is about one. Write it out.")
    if not match and TERM.fullmatch(term.strip()):
        raise UserError(f"'{term}' has blanks around it: write a + b as a+b.")
    if not match:
        name, colon, rest = term.partition(":")
        lower = TERM.fullmatch(name.lower() + colon + rest)
        known = {each.split(":")[0] for each in kind.known()}
        meant = f" Did you mean {lower[0]}?" if lower and lower["name"] in known else ""
        raise UserError(f"'{term}' is not a {kind.word} spec such as {kind.example}.{meant} {kind.hint}")
    words, pairs = [], []
    for modifier in match["modifiers"].split(":")[1:]:
        key, equals, value = modifier.partition("=")
        if not WORD.fullmatch(key) or (equals and not VALUE.fullmatch(value)):
            raise UserError(f"'{term}': '{modifier}' is neither a word nor key=value. {kind.hint}")
        if equals:
            pairs.append((key, value))
        elif key in words:
            raise UserError(f"'{term}': '{key}' is given twice")
        else:
            words.append(key)
    cls = _class(term, match["name"], words, [key for key, _ in pairs], kind)
    flags = [word for word in words if word not in cls.name.split(":")[1:]]
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    arguments: dict[str, Any] = {}
    amount = amount_field(cls)
    if match["amount"]:
        if amount is None:
            raise UserError(f"'{term}': {cls.name} takes no amount. {_shown(cls, kind)}")
        arguments[amount.name] = _value(term, cls, amount, match["amount"])
    elif amount is not None and required(amount):
        raise UserError(f"'{term}': the amount ({amount.name}) is missing, as in {_example(cls)}")
    for flag in flags:
        field = fields.get(flag.replace("-", "_"))
        if field is None or not kind_of(cls, field).word:
            raise _unknown_modifier(term, flag, cls, fields, kind)
        arguments[field.name] = True
    for key, value in pairs:
        field = fields.get(key.replace("-", "_"))
        if field is None or field is amount:
            raise _unknown_modifier(term, key, cls, fields, kind)
        if kind_of(cls, field).many:
            arguments[field.name] = (*arguments.get(field.name, ()), _value(term, cls, field, value))
        elif field.name in arguments:
            raise UserError(f"'{term}': '{key}' is given twice")
        else:
            arguments[field.name] = _value(term, cls, field, value)
    missing = next((name for name in fields if required(fields[name]) and name not in arguments), None)
    if missing is not None:
        key = missing.replace("_", "-")
        raise UserError(f"'{term}': {key} is missing, as in {key}=... {_shown(cls, kind)}")
    try:
        found = cls(**arguments)
        for text in found.layers:
            layer_range(text)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"'{term}': {said(error)}. {_shown(cls, kind)}") from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise UserError(
            f"'{term}': {cls.__name__} cannot be made: {described(error)}. {_shown(cls, kind)}"
        ) from error
    for place in found.on:
        if place not in KINDS:
            raise unknown("kind of attention", place, KINDS, f"'{term}' takes on={'|'.join(KINDS)}.")
    return found


def _class(term: str, name: str, words: list[str], keys: list[str], kind: Kind) -> type[Any]:
    methods = kind.known()
    variants = {known: set(known.split(":")[1:]) for known in methods if known.split(":")[0] == name}
    if not variants:
        raise unknown_name(name, kind)
    fitting = [
        known for known, needed in variants.items() if needed <= {*words, *(_keys(methods[known]) & {*keys})}
    ]
    if not fitting:
        choices = ", ".join(sorted(":".join(known.split(":")[1:]) for known in variants))
        if words:
            raise unknown(f"{name} variant", words[0], choices.split(", "), f"{name} takes one of {choices}.")
        raise UserError(
            f"'{term}': {name} needs one of {choices}, as in {_example(methods[sorted(variants)[0]])}"
        )
    return methods[max(fitting, key=lambda known: len(variants[known]))]


def _keys(cls: type[Any]) -> set[str]:
    """Return the words of a variant's name that are fields too: `every=8` calls for `evict:tova:every`."""
    return {field.name for field in dataclasses.fields(cls) if field.init} & {*cls.name.split(":")[1:]}


def unknown_name(name: str, kind: Kind = METHOD) -> UserError:
    """Build the error for a name that no method, or no study, has."""
    known = {each.split(":")[0] for each in kind.known()} | {*kind.others}
    own = "" if near(name, known) else f" A {kind.word} of your own: --plugin FILE.py."
    return unknown(kind.word, name, known, kind.hint + own)


def _unknown_modifier(term: str, token: str, cls: type[Any], fields: dict[str, Any], kind: Kind) -> UserError:
    base, *own = cls.name.split(":")
    variants = [name.split(":")[1:] for name in kind.known() if name.startswith(base + ":")]
    known = sorted(name.replace("_", "-") for name in fields if fields[name] is not amount_field(cls))
    if f":{token}=" in term and (token in own or [token] in variants):
        return UserError(f"'{term}': {token} takes no value: it is a variant, as in {base}:{token}")
    if f":{token}=" not in term and token in known:
        return UserError(f"'{term}': {token} takes a value, as in {token}=... {_shown(cls, kind)}")
    choices = [":".join(words) for words in variants]
    if any(token in words for words in variants):
        told = f"{' and '.join([*own, token])} do not combine" if own else f"{token} does not stand alone"
        return UserError(f"'{term}': {told}. Variants of {base} are {', '.join(choices)}.")
    known += choices
    return unknown(f"modifier of {cls.name}", token, known, f"'{term}' may use {', '.join(known)}.")


def _shown(cls: type[Any], kind: Kind) -> str:
    return f"`{kind.command} {cls.name}{option(cls)}` shows its fields."


def _value(term: str, cls: type[Any], field: dataclasses.Field[Any], text: str) -> Any:
    try:
        return kind_of(cls, field).read(text, field.name)
    except ValueError as wanted:
        name = field.name.replace("_", "-")
        raise UserError(f"'{term}': {name} takes {wanted}, not '{text}'") from None


def _example(cls: type[Any]) -> str:
    return cls.examples[0] if cls.examples else cls.name


def _plain(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value).lower() if isinstance(value, bool) else str(value)
    text = f"{Decimal(repr(value)):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _default(field: dataclasses.Field[Any]) -> Any:
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()


def _format_term(method: Any) -> str:
    name, *variants = type(method).name.split(":")
    variants = [word for word in variants if word not in _keys(type(method))]
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
