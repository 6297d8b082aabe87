"""What stages may hand back, and what becomes of it."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from tiny_models import padded, tiny

from attnbench import Method, apply, watch
from attnbench.engine.serving.guard import StageError


def method(stage: str, change) -> Method:
    """A method of one stage: change(tensor, site)."""
    return type("Made", (Method,), {"name": "made", stage: lambda self, tensor, site: change(tensor, site)})()


TABLE = {}


def own_table(tensor, site):
    key = site.path, tensor.shape
    if key not in TABLE:
        TABLE[key] = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(len(TABLE))).abs()
    return TABLE[key]


ODD = {
    "own table": own_table,
    "expanded": lambda tensor, site: tensor.mean(1, keepdim=True).expand_as(tensor),
    "another view of the same": lambda tensor, site: (
        tensor.flip(1).transpose(1, 2).contiguous().mT.mT.transpose(1, 2)
    ),
    "overlapping": lambda tensor, site: tensor[:, :1].expand_as(tensor),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("stage", ["scores", "probs", "context"])
@pytest.mark.parametrize("arch", ["bert", "gpt2", "t5"])
def test_what_a_stage_returns_stays_its_own(arch, stage, name):
    model = tiny(arch)
    inputs = padded(model)
    TABLE.clear()
    odd = method(stage, ODD[name])
    clones = method(stage, lambda tensor, site: ODD[name](tensor, site).clone())
    results = []
    for made in (clones, odd, odd):
        with torch.no_grad(), apply(model, made, "prune50"):  # prune edits what it is given
            results.append(model(**inputs)[0])
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


WRONG = {
    "on meta": lambda tensor, site: tensor.to("meta"),
    "sparse_coo": lambda tensor, site: tensor.to_sparse(),
    r"edited site\.visible": lambda tensor, site: (site.visible.fill_(True), tensor)[1],
}


@pytest.mark.parametrize("says", WRONG)
@pytest.mark.parametrize("stage", ["scores", "probs"])
def test_what_cannot_stand_for_a_tensor_is_refused_by_name(stage, says):
    model = tiny("gpt2")
    where = rf"made\.{stage} at transformer\.h\.0\.attn \(decoder layer 0\) .*{says}"
    with torch.no_grad(), pytest.raises(StageError, match=where), apply(model, method(stage, WRONG[says])):
        model(**padded(model))


class Shelf:
    things: ClassVar[list] = []


PLACES = {
    "global": lambda self, tensor: Shelf.things.append(tensor),
    "object": lambda self, tensor: setattr(self, "shelf", SimpleNamespace(tensor=tensor)),
    "deque": lambda self, tensor: setattr(self, "deque", deque([tensor])),
    "first": lambda self, tensor: self.__dict__.setdefault("first", SimpleNamespace(tensor=tensor)),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("stage", ["scores", "probs", "context"])
def test_a_tensor_that_is_kept_is_told_wherever_it_is(stage, place):
    def keep(self, tensor, site):
        PLACES[place](self, tensor)
        return tensor * 1.0

    model, keeper = tiny("bert"), type("Keeper", (Method,), {"name": "keeper", stage: keep})()
    Shelf.things.clear()
    says = rf"^keeper\.{stage}'s tensor is kept"
    with torch.no_grad(), pytest.raises(StageError, match=says), apply(model, keeper):
        model(**padded(model))


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("object", r"^Watch\.probs's or keeper\.probs's tensor is kept"),
        ("itself", r"^keeper keeps .* in \.kept:"),
    ],
)
def test_what_an_outer_method_keeps_is_not_laid_on_an_inner_one_alone(place, says):
    def keep(self, tensor, site):
        {**PLACES, "itself": lambda self, tensor: setattr(self, "kept", tensor)}[place](self, tensor)
        return tensor * 1.0

    model, keeper = tiny("bert"), type("Keeper", (Method,), {"name": "keeper", "probs": keep})()
    with torch.no_grad(), pytest.raises(StageError, match=says), apply(model, keeper):  # noqa: SIM117
        with watch(model, probs=lambda probs, site: None):
            model(**padded(model))
