"""What `attnbench check` reads from a method's class alone: a misspelt stage is not silently a helper."""

from __future__ import annotations

from dataclasses import make_dataclass

import pytest

from attnbench.conformance import source
from attnbench.conformance.subject import Fault
from attnbench.methods.plugins import registry
from attnbench.methods.protocol import STAGES, Method
from attnbench.methods.spec import parse


def _one(self, it):
    return it


def _two(self, it, other):
    return it


def _static(it, more, other):
    return it


MISSPELT = {
    "score": ({"fit": _two, "score": _two}, "'score' looks like scores, but nothing calls it"),
    "fitt": ({"scores": _two, "fitt": _two}, "'fitt' looks like fit, but"),
    "normalise": (
        {"probs": _two, "context": _two, "normalise": _two},
        "'normalise' looks like normalize, but",
    ),
    "realise": ({"context": _two, "realise": _one}, "'realise' looks like realize, but"),
    "hiden": ({"probs": _two, "hiden": _two}, "'hiden' looks like hidden, but"),
    "nothing else": (
        {"prob": _one},
        f"overrides none of {', '.join(STAGES)}: 'prob' looks",
    ),
    "nothing at all": ({}, f"overrides none of {', '.join(STAGES)}"),
}
HELPERS = {
    "of other arguments": {"probs": _two, "score": _one, "fits": _one},
    "beside the one it overrides": {"scores": _two, "score": _two},
    "private": {"probs": _two, "_score": _two},
    "of other names": {"probs": _two, "importance": _two, "probe": _one, "reach": _two, "rescored": _two},
    "static": {"probs": _two, "score": staticmethod(_static)},
}


def _made(members):
    return make_dataclass("Mine", [], bases=(Method,), namespace=dict(members))()


@pytest.mark.parametrize("case", MISSPELT)
def test_a_misspelt_stage_is_named(case):
    members, says = MISSPELT[case]
    with pytest.raises(Fault) as caught:
        source.stages((_made(members),))
    assert says in str(caught.value)


@pytest.mark.parametrize("case", HELPERS)
def test_a_helper_is_no_misspelt_stage(case):
    assert source.stages((_made(HELPERS[case]),))


def test_no_built_in_method_misspells_a_stage():
    for cls in registry().methods.values():
        for example in cls.examples:
            source.stages(parse(example))
