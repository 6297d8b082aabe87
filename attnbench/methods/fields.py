"""What the fields of a method take: their annotations, read as what a spec may write there."""

from __future__ import annotations

import dataclasses
import inspect
import math
import sys
import types
import typing
from dataclasses import dataclass
from typing import Any, Literal

from attnbench.errors import UserError

SCALARS = (bool, int, float, str)
ACCEPTED = "str, int, float, bool, int | float, Literal[...], each also `| None`, and tuple[..., ...] of them"
SEEDS = 1 << 31  # what every generator tells apart: torch keeps 32 bits of one


@dataclass(frozen=True)
class Kind:
    """What one value of a field may be: scalar types, or the values listed. `many`: it may be given again."""

    scalars: tuple[type, ...] = ()
    choices: tuple[Any, ...] = ()
    many: bool = False

    @property
    def word(self) -> bool:
        """Whether the field's name alone stands for true."""
        return bool in self.scalars and not self.many

    @property
    def number(self) -> bool:
        """Whether digits can be its value, as an amount's are."""
        listed = all(type(choice) in (int, float) for choice in self.choices) and bool(self.choices)
        return not self.many and (listed or int in self.scalars or float in self.scalars)

    def read(self, text: str, name: str) -> Any:
        """Return the value that a text stands for. Raises ValueError with what is taken."""
        wanted = self._wanted
        try:
            if self.choices:
                return {str(choice): choice for choice in self.choices}[text]
            if bool in self.scalars:
                return {"true": True, "false": False}[text]
            if int in self.scalars and (float not in self.scalars or text.lstrip("-").isdecimal()):
                number = int(text)
                if name == "seed" and not 0 <= number < SEEDS:
                    wanted = f"a whole number from 0 to {SEEDS - 1}"
                    raise ValueError
                return number
            if float in self.scalars and not math.isfinite(float(text)):
                raise ValueError
            return float(text) if float in self.scalars else text
        except (ValueError, KeyError):
            raise ValueError(wanted) from None

    @property
    def _wanted(self) -> str:
        if self.choices:
            return " or ".join(map(str, self.choices))
        if bool in self.scalars:
            return "true or false"
        return "a whole number" if float not in self.scalars else "a number"


def kind_of(cls: type, field: dataclasses.Field[Any]) -> Kind:
    """Read a field's annotation. Raises UserError naming class and field for one that no spec can fill."""
    kind = _kind(_resolved(cls, field))
    if kind is None:
        raise UserError(
            f"{cls.__qualname__}.{field.name} is annotated {_shown(field)}, which no spec can write: a field "
            f"is one of {ACCEPTED}. What no spec sets is field(init=False)."
        )
    return kind


def require_fields(cls: type) -> None:
    """Raise UserError for a field of a method that no spec can fill, and an amount that is no number."""
    amount = amount_field(cls)
    for field in dataclasses.fields(cls):
        if field.init and not kind_of(cls, field).number and field is amount:
            raise UserError(
                f"{cls.__qualname__}.{field.name} is the amount in the spec, a number, but is annotated "
                f"{_shown(field)}: make it keyword-only, field(default=..., kw_only=True)"
            )


def amount_field(cls: type) -> dataclasses.Field[Any] | None:
    """Return the field that a spec's amount fills: the first that is not keyword-only."""
    return next((field for field in dataclasses.fields(cls) if field.init and not field.kw_only), None)


def texts(method: Any) -> list[str]:
    """List the values of a method that may be any text, as the path of a file is; one of a choice is none."""
    found = []
    for field in dataclasses.fields(method):
        if field.init and field.name not in ("on", "layers") and str in kind_of(type(method), field).scalars:
            value = getattr(method, field.name)
            found += [each for each in (value if isinstance(value, tuple) else (value,)) if each]
    return found


def required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _shown(field: dataclasses.Field[Any]) -> str:
    return field.type.__name__ if type(field.type) is type else str(field.type)


def _resolved(cls: type, field: dataclasses.Field[Any]) -> Any:
    """Return a field's annotation as an object: `from __future__ import annotations` makes it a text."""
    owner = next((base for base in cls.__mro__ if field.name in inspect.get_annotations(base)), cls)
    known = vars(sys.modules[owner.__module__]) if owner.__module__ in sys.modules else {}
    # one at a time: names that only a type checker imports may stand in other annotations of the class
    held = types.SimpleNamespace(__annotations__={field.name: field.type})
    try:
        return typing.get_type_hints(held, known, dict(vars(owner)))[field.name]
    except Exception as error:
        raise UserError(
            f"{cls.__qualname__}.{field.name} is annotated {_shown(field)}, which cannot be read ({error}): "
            "import its names at the top of the file, not under TYPE_CHECKING"
        ) from None


def _kind(annotation: Any) -> Kind | None:
    """Read an annotation, or return None for what is not in the table."""
    if annotation in SCALARS:
        return Kind((annotation,))
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        choices = tuple(part for part in parts if part is not None)
        return (
            Kind(choices=choices) if choices and all(type(part) in (str, int) for part in choices) else None
        )
    if origin in (typing.Union, types.UnionType):
        left = [part for part in parts if part is not type(None)]
        if len(left) == 1:
            return _kind(left[0])
        return Kind((int, float)) if set(left) == {int, float} else None
    if origin is tuple and len(parts) == 2 and parts[1] is Ellipsis:
        item = _kind(parts[0])
        return None if item is None or item.many else dataclasses.replace(item, many=True)
    return None
