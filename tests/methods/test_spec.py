"""The grammar: what is read, how it is written back, what each mistake says."""

from __future__ import annotations

import dataclasses
import re
import typing  # noqa: F401  # in annotations that are texts, as the next line's
from typing import Literal, Optional  # noqa: F401

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnbench import Method, format, parse
from attnbench.errors import UserError
from attnbench.matrix.request import Request
from attnbench.methods.expand import expand
from attnbench.methods.fields import Kind, amount_field, kind_of, require_fields, required
from attnbench.methods.plugins import registry

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
    "mask50:random:seed=2147483647": "mask50:random:seed=2147483647",
    "entmax:on=encoder+uniform:on=decoder:on=cross": "entmax:on=encoder+uniform:on=decoder:on=cross",
    "entmax:layers=0-2+uniform:layers=3": "entmax:layers=0-2+uniform:layers=3",
}

MISTAKES = {
    "": "not a method spec",
    "prune80+": "no method on one side of +",
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
    "heads50:random:seed=2147483648": "seed takes a whole number from 0 to 2147483647",
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


def _values(cls, field):
    kind, choices = str(field.type), kind_of(cls, field).choices
    if choices:
        return st.sampled_from(choices)
    if field.name == "on":
        return st.lists(st.sampled_from(["encoder", "decoder", "cross"]), max_size=3).map(tuple)
    if field.name in ("layers", "skip"):
        return st.lists(st.sampled_from(["0", "3", "0-5", "11-12"]), max_size=3).map(tuple)
    if field.name == "off":
        return st.lists(st.sampled_from(["0.1", "3.5", "4"]), min_size=1, max_size=3).map(tuple)
    if "bool" in kind:
        return st.booleans()
    if "int" in kind:
        return st.integers(1, 8)
    return st.floats(0.00001, 99, allow_nan=False)


@pytest.fixture(scope="module", autouse=True)
def loaded():
    registry()  # before the first draw, which has to be quick


@st.composite
def terms(draw):
    cls = draw(st.sampled_from(sorted(registry().methods.values(), key=lambda cls: cls.name)))
    amount = amount_field(cls)
    values = {
        f.name: draw(_values(cls, f))
        for f in dataclasses.fields(cls)
        if f is amount or required(f) or draw(st.booleans())
    }
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
    from attnbench.methods import plugins

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
    from attnbench.methods import plugins

    @dataclasses.dataclass
    class Chosen(Method):
        name = "chosen"
        unit: str = dataclasses.field(default="point", kw_only=True)

    plugins.registry().methods["chosen"] = Chosen
    Chosen.__dataclass_fields__["unit"].type = kind
    assert parse("chosen:unit=int")[0].unit == "int"
    with pytest.raises(UserError, match="unit takes point or int, not '3'"):
        parse("chosen:unit=3")
    Chosen.__dataclass_fields__["unit"].type = "Literal[2, 4] | None"
    assert parse("chosen:unit=4")[0].unit == 4


class Fingerprint:
    """A class with a number's name inside its own."""


# annotation: what a spec may write, what it stands for, what it may not write and what is said then
ANNOTATIONS = {
    "str": ("x", "x", None, ""),
    "int": ("3", 3, "1.5", "a whole number"),
    "float": ("3", 3.0, "x", "a number"),
    "bool": ("true", True, "yes", "true or false"),
    "int | None": ("3", 3, "none", "a whole number"),
    "Optional[float]": ("0.5", 0.5, "x", "a number"),
    "None | str": ("int", "int", None, ""),
    "'Optional[int]'": ("3", 3, "x", "a whole number"),
    "Optional[bool]": ("false", False, "0", "true or false"),
    "int | float": ("1.5", 1.5, "inf", "a number"),
    "float | int | None": ("-2", -2, "x", "a number"),
    "typing.Union[int, float]": ("7", 7, "1e", "a number"),
    "tuple[float, ...]": ("0.5", (0.5,), "x", "a number"),
    "tuple[Literal['points', 'lines'], ...]": ("lines", ("lines",), "x", "points or lines"),
    "Literal['points', 'lines']": ("points", "points", "3", "points or lines"),
    "Optional[Literal['a', 'b']]": ("b", "b", "zzz", "a or b"),
    "Literal[2, 'all', None]": ("2", 2, "None", "2 or all"),
}


@pytest.fixture
def annotated(fresh_registry):
    """A method whose one field is annotated as asked, as a text or, where `made`, as the object."""

    def build(annotation, made=False, **options):
        kind = eval(annotation) if made else annotation
        options = {"default": None, "kw_only": True, **options}
        field = ("value", kind, dataclasses.field(**options))
        cls = dataclasses.make_dataclass(
            "Annotated", [field], bases=(Method,), namespace={"name": "annotated"}
        )
        cls.__module__ = __name__
        return cls

    return build


@pytest.mark.parametrize("made", [False, True])
@pytest.mark.parametrize("annotation", ANNOTATIONS)
def test_a_field_takes_what_its_annotation_says(annotation, made, annotated):
    text, value, wrong, wanted = ANNOTATIONS[annotation]
    cls = annotated(annotation, made)
    registry()._add_method(cls)
    (method,) = parse(f"annotated:value={text}")
    assert method.value == value and type(method.value) is type(value)
    assert parse(format([method])) == (method,)
    if wrong is not None:
        with pytest.raises(UserError) as caught:
            parse(f"annotated:value={wrong}")
        assert str(caught.value).endswith(f"value takes {wanted}, not '{wrong}'")


@pytest.mark.parametrize("annotation", ["bool", "Optional[bool]", "bool | None"])
def test_a_flag_may_be_a_word(annotation, annotated):
    registry()._add_method(annotated(annotation))
    assert parse("annotated:value")[0].value is True


UNWRITABLE = (
    "list[int]", "dict", "list", "tuple", "tuple[int, int]", "set[str]", "typing.Any", "object", "bytes",
    "Fingerprint", "Fingerprint | str", "int | str", "tuple[tuple[int, ...], ...]", "Literal[True]",
    "Literal[None]",
)  # fmt: skip


@pytest.mark.parametrize("made", [False, True])
@pytest.mark.parametrize("annotation", UNWRITABLE)
def test_an_annotation_that_no_spec_can_write_is_refused(annotation, made, annotated):
    with pytest.raises(UserError, match=r"^Annotated\.value is annotated .*which no spec can write"):
        registry()._add_method(annotated(annotation, made))
    assert "annotated" not in registry().methods
    registry()._add_method(
        annotated(annotation, made, init=False)
    )  # a field that no spec sets may be anything


def test_a_name_that_only_a_type_checker_knows_is_told(annotated):
    with pytest.raises(UserError, match=r"Annotated\.value .*name 'Tensor' is not defined.*TYPE_CHECKING"):
        registry()._add_method(annotated("Tensor | None"))


@pytest.mark.parametrize("annotation", ["str", "bool", "tuple[int, ...]", "Literal['a']"])
def test_an_amount_is_a_number(annotation, annotated):
    with pytest.raises(UserError, match=r"Annotated\.value is the amount in the spec, a number, but is"):
        registry()._add_method(annotated(annotation, kw_only=False))


def test_the_fields_of_every_built_in_are_read():
    for cls in registry().methods.values():
        require_fields(cls)
        assert kind_of(cls, cls.__dataclass_fields__["on"]) == Kind((str,), many=True)


# what a class does when it is made, and what is said then
MADE = {
    "raise TypeError('boom')": "Made cannot be made: TypeError: boom.",
    "raise KeyError('boom')": "Made cannot be made: KeyError: 'boom'.",
    "assert False, 'two\\nlines'": "Made cannot be made: AssertionError: two lines.",
    "import no_such_package": "ModuleNotFoundError: No module named 'no_such_package'.",
    "raise SystemExit(3)": "Made cannot be made: SystemExit: 3.",
    "raise ValueError('out of range')": "'made': out of range.",
}


@pytest.mark.parametrize("line", MADE)
def test_whatever_a_class_raises_when_it_is_made_is_told(line, fresh_registry, tmp_path):
    (tmp_path / "made.py").write_text(
        "from dataclasses import dataclass\nfrom attnbench import Method, hookimpl\n\n"
        "@dataclass\nclass Made(Method):\n    name = 'made'\n\n"
        f"    def __post_init__(self):\n        {line}\n\n"
        "@hookimpl\ndef register_methods(register):\n    register(Made)\n",
        encoding="utf-8",
    )
    fresh_registry.load([str(tmp_path / "made.py")])
    with pytest.raises(UserError) as caught:
        parse("made")
    assert str(caught.value).startswith("'made': ") and MADE[line] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_field_without_a_default_is_asked_for(annotated):
    registry()._add_method(annotated("float", default=dataclasses.MISSING))
    assert parse("annotated:value=2")[0].value == 2
    with pytest.raises(UserError, match=r"'annotated': value is missing, as in value=\.\.\. `attn"):
        parse("annotated")


def test_a_default_that_is_made_is_not_written():
    @dataclasses.dataclass
    class Listed(Method):
        name = "listed"
        parts: tuple[str, ...] = dataclasses.field(default_factory=lambda: ("a",), kw_only=True)

    assert format([Listed()]) == "listed"
    assert format([Listed(parts=("a", "b"))]) == "listed:parts=a:parts=b"


@pytest.mark.parametrize("text, expected", [
    ("heads{10,30}:entropy,prune80", ["heads10:entropy", "heads30:entropy", "prune80"]),
    ("prune{50..90..10}", ["prune50", "prune60", "prune70", "prune80", "prune90"]),
    ("prune{90..50..20}", ["prune90", "prune70", "prune50"]),
    ("logquant{1..3}", ["logquant1", "logquant2", "logquant3"]),
    ("heads{10,30}:{l2,random}", ["heads10:l2", "heads10:random", "heads30:l2", "heads30:random"]),
    ("prune{5{0,5},80}", ["prune50", "prune55", "prune80"]),
    ("prune80:layers={0,3-5}", ["prune80:layers=0", "prune80:layers=3-5"]),
    (" prune80 , uniform,", ["prune80", "uniform"]),
    ("", []),
])  # fmt: skip
def test_braces_are_written_out_before_commas_part(text, expected):
    assert expand(text) == expected
    assert list(Request.of("bert", text).methods) == expected


@pytest.mark.parametrize("text, words", [
    ("prune{50,80", "a brace is never closed"), ("prune50}", "a brace is closed that was never opened"),
    ("prune{}", "{} has an empty choice"), ("prune{50,}", "{50,} has an empty choice"),
    ("prune{1..9..0}", "is no range"), ("prune{1..5000}", "is no range"),
    ("a{1..40}b{1..40}", "stands for more than 1,000 specs"),
])  # fmt: skip
def test_braces_that_are_none_are_named(text, words):
    with pytest.raises(UserError, match=re.escape(words)):
        expand(text)


@pytest.mark.parametrize("text, words", [
    ("prune{50,80}", "braces stand for several specs"), ("prune80 + logquant3", "write a + b as a+b"),
])  # fmt: skip
def test_one_spec_has_no_braces_and_no_blanks(text, words):
    with pytest.raises(UserError, match=re.escape(words)):
        parse(text)


@given(st.lists(st.sampled_from(["prune50", "uniform", "heads{10,30}:l2", "x{1..3}"]), max_size=5))
def test_what_has_no_braces_stays_and_the_others_are_what_bash_makes(parts):
    slow = {"heads{10,30}:l2": ["heads10:l2", "heads30:l2"], "x{1..3}": ["x1", "x2", "x3"]}
    assert expand(",".join(parts)) == [each for part in parts for each in slow.get(part, [part])]
