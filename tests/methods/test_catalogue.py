"""docs/methods.md is what the classes say today, and every quantiser of the source has its method."""

from __future__ import annotations

from pathlib import Path

import pytest

from attnbench import Method
from attnbench.methods import catalogue
from attnbench.methods.spec import parse

DOCUMENT = Path(__file__).parents[2] / "docs" / "methods.md"


def test_the_document_is_up_to_date():
    message = "run: python -m attnbench.methods.catalogue > docs/methods.md"
    assert DOCUMENT.read_text(encoding="utf-8") == catalogue.render(), message


def test_every_quantiser_of_the_source_is_one_method():
    assert sorted(catalogue.quantisers()) == list(catalogue.FUNCTIONS) == list(range(1, 12))
    assert len(set(catalogue.quantisers().values())) == 11
    specs = {1: "linquant3", 5: "logquant3:edge", 7: "logquant3", 8: "quantile3", 11: "binary"}
    for number, spec in specs.items():
        assert catalogue.quantisers()[number] == parse(spec)[0].name


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("prune", "prune50"), ("heads:l1", "heads50:l1"), ("gates:l0", "gates:l0"), ("duo", "duo50"),
        ("heads:fixed", "heads:fixed:off=0.1"), ("mask:block", "mask50:block"),
    ],
)  # fmt: skip
def test_a_method_is_listed_by_what_a_user_would_write(name, text):
    assert catalogue.usual(name) == text


def test_a_method_is_listed_by_itself_wherever_it_stands_in_its_example(fresh_registry):
    class Halved(Method):
        name = "halved"
        examples = ("halved+prune80",)

        def context(self, context, site):
            return context / 2

    known = fresh_registry.registry().methods
    known["halved"] = Halved
    for name in known:
        assert [each.name for each in parse(catalogue.usual(name))] == [name]


def test_all_methods_are_there_with_their_links(fresh_registry, tmp_path):
    text = catalogue.render()
    for name, cls in catalogue.built_in().items():
        assert f"\n## {name}\n" in text and f"(#{name.replace(':', '')})" in text
        assert all(f"`{example}`" in text for example in cls.examples)
    plugin = tmp_path / "other.py"
    plugin.write_text(
        "from dataclasses import dataclass\nfrom attnbench import Method, hookimpl\n\n@dataclass\n"
        "class Other(Method):\n    '''Do nothing.'''\n    name = 'other'\n    examples = ('other',)\n\n"
        "@hookimpl\ndef register_methods(register):\n    register(Other)\n"
    )
    fresh_registry.load([str(plugin)])
    assert "other" in fresh_registry.registry().methods and catalogue.render() == text
