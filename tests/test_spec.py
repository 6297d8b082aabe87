"""The grammar: what is read, how it is written back, what each mistake says."""

from __future__ import annotations

import dataclasses
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnbench import Method, format, parse
from attnbench.errors import UserError
from attnbench.plugins import registry
from attnbench.spec import amount_field

CANONICAL = {
    "dense": "dense",
    " prune80 ": "prune80",
    "prune80.0": "prune80",
    "prune080.50": "prune80.5",
    "threshold0.00001": "threshold0.00001",
    "logquant3+prune80": "logquant3+prune80",
    "prune80:random:seed=0": "prune80:random",
    "prune80:seed=7:random": "prune80:random:seed=7",
    "prune80:on=encoder:layers=0-5": "prune80:layers=0-5:on=encoder",
    "prune80:layers=3:layers=0-1": "prune80:layers=3:layers=0-1",
    "heads50:entropy:steps=2:per-layer:min-per-layer=1": "heads50:entropy:min-per-layer=1:per-layer:steps=2",
    "heads50:entropy:per-layer=false": "heads50:entropy",
    "linquant3:pruned:mid": "linquant3:mid:pruned",
    "uniform": "uniform",
    "mask50:random:seed=9223372036854775807": "mask50:random:seed=9223372036854775807",
    "entmax:on=encoder+uniform:on=decoder:on=cross": "entmax:on=encoder+uniform:on=decoder:on=cross",
    "entmax:layers=0-2+uniform:layers=3": "entmax:layers=0-2+uniform:layers=3",
}

MISTAKES = {
    "": "not a method spec",
    "prune80+": "not a method spec",
    "Prune80": "not a method spec",
    "prune-80": "not a method spec",
    "prune1e-3": "not a method spec",
    "prune80:": "not a method spec",
    "prune80:se ed=1": "neither a word nor key=value",
    "prone80": "Did you mean prune",
    "dense+prune80": "dense is the unmodified model",
    "dense:on=encoder": "'dense:on=encoder': dense is the unmodified model and takes nothing. Write dense.",
    "dense50": "takes nothing",
    "prune": "amount (percent) is missing",
    "uniform3": "takes no amount",
    "prune180": "'prune180': ",
    "prune80:radom": "Did you mean random",
    "prune80:seed=1": "unknown modifier",
    "prune80:percent=3": "unknown modifier",
    "prune80:random:seed=x": "takes a whole number",
    "prune80:random:seed=1:seed=2": "given twice",
    "prune80:random:random": "given twice",
    "prune80:on=nowhere": "unknown kind of attention 'nowhere'",
    "prune80:layers=5-0": "layers=5-0",
    "heads50": "heads needs one of",
    "heads50:entorpy": "Did you mean entropy",
    "heads50:entropy:steps=0": "steps is at least 1",
    "logquant2.5": "takes a whole number",
    "finetune5:lr=inf": "takes a number, not 'inf'",
    "gates:l0:penalty=nan": "takes a number, not 'nan'",
    "mask50:random:block": "random and block do not combine. Variants of mask are ",
    "heads50:gradient:entropy": "gradient and entropy do not combine",
    "quantile3:unpruned": "unpruned does not stand alone. Variants of quantile are halving, halving:unpruned",
    "mask50:block=3": "block takes no value",
    "mask50:block:block=3": "block takes no value",
    "prune80:random:seed": "seed takes a value, as in seed=...",
    "heads50:random:seed=9223372036854775808": "seed takes a whole number from 0 to 9223372036854775807",
    "prune80:random:seed=-1": "seed takes a whole number from 0",
    "entmax+uniform": "'entmax+uniform': entmax and uniform each replace the softmax",
    "uniform:layers=0-3+prune80+entmax:layers=3:layers=9": "uniform and entmax each replace",
}


@pytest.mark.parametrize(("text", "canonical"), CANONICAL.items())
def test_canonical_form(text, canonical):
    assert format(parse(text)) == canonical
    assert parse(canonical) == parse(text)


@pytest.mark.parametrize(("text", "says"), MISTAKES.items())
def test_mistakes_are_named(text, says):
    with pytest.raises(UserError) as caught:
        parse(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_dense_is_no_method():
    assert parse("dense") == ()
    assert format(()) == "dense"


def test_every_example_is_canonical():
    for name, cls in registry().methods.items():
        assert cls.examples, f"{name} gives no example"
        for example in cls.examples:
            assert format(parse(example)) == example
            assert cls in map(type, parse(example))


def _values(field):
    kind = str(field.type)
    if field.name == "on":
        return st.lists(st.sampled_from(["encoder", "decoder", "cross"]), max_size=3).map(tuple)
    if field.name == "layers":
        return st.lists(st.sampled_from(["0", "3", "0-5", "11-12"]), max_size=3).map(tuple)
    if field.name == "off":
        return st.lists(st.sampled_from(["0.1", "3.5", "4"]), min_size=1, max_size=3).map(tuple)
    if "bool" in kind:
        return st.booleans()
    if "int" in kind:
        return st.integers(1, 8)
    return st.floats(0.00001, 99, allow_nan=False)


@st.composite
def terms(draw):
    cls = draw(st.sampled_from(sorted(registry().methods.values(), key=lambda cls: cls.name)))
    amount = amount_field(cls)
    values = {f.name: draw(_values(f)) for f in dataclasses.fields(cls) if f is amount or draw(st.booleans())}
    try:
        return cls(**values)
    except ValueError:
        return cls(**_first(cls))


def _first(cls):
    return {f.name: getattr(parse(cls.examples[0])[-1], f.name) for f in dataclasses.fields(cls)}


def _one_softmax(methods):
    # that two cannot both replace it is tested by hand
    return sum(type(method).name in ("entmax", "uniform") for method in methods) < 2


@given(st.lists(terms(), min_size=1, max_size=3).map(tuple).filter(_one_softmax))
def test_what_is_written_is_read_back(methods):
    text = format(methods)
    assert parse(text) == methods
    assert format(parse(text)) == text


def test_a_list_of_numbers_says_what_it_takes(fresh_registry):
    from attnbench import plugins

    @dataclasses.dataclass
    class Several(Method):
        name = "several"
        taken: tuple[int, ...] = dataclasses.field(default=(), kw_only=True)

    plugins.registry().methods["several"] = Several
    for kind in ("tuple[int, ...]", tuple[int, ...]):  # as with and without the import from __future__
        Several.__dataclass_fields__["taken"].type = kind
        assert parse("several:taken=1:taken=2")[0].taken == (1, 2)
    with pytest.raises(UserError, match="taken takes a whole number, not 'x'"):
        parse("several:taken=x")


@pytest.mark.parametrize(
    "kind", ["Literal['point', 'int']", Literal["point", "int"], "typing.Literal['point', 'int'] | None"]
)
def test_a_choice_of_words_is_no_number(kind, fresh_registry):
    from attnbench import plugins

    @dataclasses.dataclass
    class Chosen(Method):
        name = "chosen"
        unit: str = dataclasses.field(default="point", kw_only=True)
        printed: str = dataclasses.field(default="", kw_only=True)

    plugins.registry().methods["chosen"] = Chosen
    Chosen.__dataclass_fields__["unit"].type = kind
    Chosen.__dataclass_fields__["printed"].type = "Fingerprint | str"
    assert parse("chosen:unit=int")[0].unit == "int" and parse("chosen:printed=x")[0].printed == "x"
    with pytest.raises(UserError, match="unit takes point or int, not '3'"):
        parse("chosen:unit=3")
    Chosen.__dataclass_fields__["unit"].type = "Literal[2, 4] | None"
    assert parse("chosen:unit=4")[0].unit == 4


def test_a_default_that_is_made_is_not_written():
    @dataclasses.dataclass
    class Listed(Method):
        name = "listed"
        parts: tuple[str, ...] = dataclasses.field(default_factory=lambda: ("a",), kw_only=True)

    assert format([Listed()]) == "listed"
    assert format([Listed(parts=("a", "b"))]) == "listed:parts=a:parts=b"
