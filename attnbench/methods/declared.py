"""What a method or a study has to declare: a name, fields that a spec can write, examples."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from typing import Any

from attnbench.errors import UserError
from attnbench.methods.fields import amount_field, require_fields, required
from attnbench.methods.protocol import Method, Term
from attnbench.methods.study import Study, alone, observed

NAME = re.compile(r"[a-z](-?[a-z])*(:[a-z](-?[a-z0-9])*)*")  # digits in a variant only: heads:l2
WORD = re.compile(r"[a-z](?:-?[a-z0-9])*")  # a modifier, or the key of one
RESERVED = "dense"  # the unmodified model's spec


def place(cls: type) -> str:
    """Say where a class was defined."""
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return f"{cls.__qualname__} in {file or cls.__module__}"


def require(cls: type[Method]) -> None:
    """Raise UserError, one line, for a class that no spec can stand for."""
    _require(cls, Method, "method")


def require_study(cls: type[Study]) -> None:
    """Raise UserError for a class that no spec can stand for, or that looks at nothing."""
    _require(cls, Study, "study")
    if not (observed(cls) or alone(cls)):
        raise UserError(f"{place(cls)} looks at nothing: override an observer, or run")


def _require(cls: type[Method | Study], base: type[Term], what: str) -> None:
    if not (isinstance(cls, type) and issubclass(cls, base)):
        found = place(cls) if isinstance(cls, type) else f"{place(type(cls))}, an instance,"
        raise UserError(
            f"{found} is no {what}: `register` takes a class that is a subclass of attnbench.{base.__name__}"
        )
    name = cls.__dict__.get("name", "")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise UserError(
            f"{place(cls)} has the name '{name}': lower-case letters, single dashes, ':' before "
            "a variant, digits in a variant only"
        )
    if name.partition(":")[0] == RESERVED:
        raise UserError(f"{place(cls)} has the name '{name}': dense is the unmodified model. Rename it.")
    fields = getattr(cls, "__dataclass_fields__", {})
    # a field that must be given calls for its variant, as every=8 for `evict:tova:every`
    clash = {word for word in name.split(":")[1:] if word in fields and not _called_for(fields[word])}
    if clash:
        raise UserError(
            f"{place(cls)}: '{clash.pop()}' is both a variant and a field of '{name}'. Rename one."
        )
    _require_dataclass(cls)
    require_fields(cls)
    _require_words(cls)
    _require_examples(cls)


def _called_for(field: dataclasses.Field[Any]) -> bool:
    return field.kw_only is True and required(field)


def _require_dataclass(cls: type[Term]) -> None:
    """Raise UserError for an annotation that is no field: @dataclass was forgotten."""
    for base in cls.__mro__:
        if issubclass(base, Term) and base not in (Term, Method, Study):
            bare = [key for key, kind in inspect.get_annotations(base).items() if "ClassVar" not in str(kind)]
            lost = [key for key in bare if key not in cls.__dataclass_fields__]
            if lost:
                raise UserError(
                    f"{place(base)} annotates {', '.join(lost)} but is no dataclass: put @dataclass above it"
                )


def _require_words(cls: type[Term]) -> None:
    """Raise UserError for a field whose name no spec can write; the amount's is never written."""
    for field in dataclasses.fields(cls):
        if field.init and field is not amount_field(cls) and not WORD.fullmatch(field.name.replace("_", "-")):
            raise UserError(
                f"{cls.__qualname__}.{field.name}: no spec can write this name: lower-case letters, digits, "
                "single underscores between them. What no spec sets is field(init=False)."
            )


def _require_examples(cls: type[Method | Study]) -> None:
    """Raise UserError for examples that are no specs of this method."""
    given = cls.__dict__.get("examples", ())
    if isinstance(given, str):
        raise UserError(f'{cls.__qualname__}.examples is one text: write examples = ("{given}",)')
    base, *variant = cls.name.split(":")
    for example in given:
        terms = example.split("+") if isinstance(example, str) else []
        if not any(
            re.fullmatch(rf"{base}\d*(\.\d+)?(:.*)?", term)
            and {*variant} <= {part.partition("=")[0] for part in term.split(":")[1:]}
            for term in terms
        ):
            wanted = "".join([base, *(f" and has :{word}" for word in variant)])
            raise UserError(
                f"{cls.__qualname__}.examples: {example!r} is no spec of {cls.name}: one begins with {wanted}"
            )
