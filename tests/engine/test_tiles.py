"""Tiles: the path without gradients does what the traced one does, whatever a stage makes of hidden keys."""

from __future__ import annotations

import pytest
import torch
from closeness import clear_of_jumps, close, sharpness
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import DECODERS, PAIRS, ZOO, padded, tiny
from torch.nn import functional

from attnbench import Method, apply, parse, watch
from attnbench.engine.places import blocks
from attnbench.engine.serving import tiles
from attnbench.methods.protocol import needs_fit


def stage(label, name, empty="zeros"):
    """Make a method of one function (tensor, site) -> tensor."""
    return lambda function: type(
        label, (Method,), {"name": label, "empty": empty, name: lambda self, *given: function(*given)}
    )


def hidden_first(scores, site):
    scores = scores.clone()
    if site.offset == 0:
        scores[:, :, :2] = -torch.inf
    return scores


CASES = {
    "hide": [stage("hide", "scores")(hidden_first)],
    "hide, uniform": [stage("hide", "scores", "uniform")(hidden_first)],
    "square": [stage("square", "scores")(lambda scores, site: scores * scores)],
    "scale": [stage("scale", "scores")(lambda scores, site: scores * 5)],
    "nan where hidden": [stage("nan", "scores")(lambda s, site: torch.where(s < -1e30, torch.nan, s))],
    "transposed": [stage("turned", "scores")(lambda scores, site: scores.mT.contiguous().mT)],
    "reveal": [stage("reveal", "scores")(lambda scores, site: torch.zeros_like(scores))],
    "reveal after": [stage("reveal", "probs")(lambda probs, site: probs + 0.1)],
}  # fmt: skip
CASES["uniform then prune"] = [*CASES["hide, uniform"], "prune50", *CASES["reveal after"]]
CASES["uniform then entmax"] = [*CASES["hide, uniform"], "entmax"]
CASES["nothing left then entmax"] = [*CASES["hide"], "entmax", *CASES["reveal after"]]
JUMPS = {"uniform then prune": ("prune50", CASES["hide, uniform"])}
CASES |= {spec: [spec] for spec in ("mask90", "mask50:block:size=4", "window3", "window2+uniform", "sink1")}


def built(terms, model, batch):
    methods = []
    for term in terms:
        methods += parse(term) if isinstance(term, str) else [term()]
    for method in methods:
        if needs_fit(method):
            method.fit(model, [batch])
    return methods


def forward(model, batch):
    return model(**batch).logits


@pytest.mark.numeric
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["bert", "gpt2", "mistral", "bart"])
def test_without_gradients_as_with_them(name, case):
    model = tiny(name)
    for side in ("right", "left") if name in DECODERS else ("right",):
        spec, earlier = JUMPS.get(case, ("dense", ()))
        batch = clear_of_jumps(
            model, spec, lambda seed, side=side: padded(model, side, seed=seed), *(make() for make in earlier)
        )
        methods = built(CASES[case], model, batch)
        seen, gain = {True: [], False: []}, sharpness(model, batch, *methods)
        for enabled in seen:
            keep = seen[enabled].append
            watching = watch(model, probs=lambda probs, site, keep=keep: keep((probs.detach().clone(), site)))
            with torch.set_grad_enabled(enabled), apply(model, *methods), watching:
                logits = forward(model, batch)
            assert logits.isfinite().all()
        for (found, site), (expected, _) in zip(seen[False], seen[True], strict=True):
            close(found, expected, layers=len(ZOO[name][2]), gain=gain)
            if site.visible is not None:
                assert not (found * ~site.visible).any()


def test_a_row_of_nan_stays_one():
    model = tiny("gpt2")
    broken = stage("nan", "scores")(lambda scores, site: scores * torch.nan)()
    batch = padded(model, examples=2)
    with torch.no_grad(), apply(model, broken):
        assert forward(model, batch)[batch["attention_mask"].bool()].isnan().all()


def test_rows_are_divided_evenly():
    for total, most, size in ((320, 273, 160), (10, 4, 4), (9, 4, 3), (7, 0, 1), (5, 100, 5)):
        assert tiles.evenly(total, most) == size


@pytest.mark.numeric
@pytest.mark.parametrize("name", PAIRS)
def test_cross_attention_sees_no_padded_queries(name):
    model = tiny(name)
    batch = clear_of_jumps(model, "prune50:on=cross", lambda seed: padded(model, examples=4, seed=seed))
    lengths, layers = (5, 3, 1, 4), len(ZOO[name][2])
    batch["decoder_attention_mask"] = (torch.arange(5) < torch.tensor(lengths)[:, None]).long()
    real = batch["decoder_attention_mask"].bool()
    shapes = []
    with torch.no_grad():
        dense = forward(model, batch)[real]
        with watch(model, probs=lambda p, site: shapes.append(p.shape[2]) if site.kind == "cross" else None):
            found = forward(model, batch)[real]
        close(found, dense, layers=layers)
        assert shapes == [*lengths, *lengths]
        with apply(model, "prune50:on=cross"):
            together = forward(model, batch)
            for example, length in enumerate(lengths):
                alone = {key: value[example : example + 1] for key, value in batch.items()}
                for key in ("decoder_input_ids", "decoder_attention_mask"):
                    alone[key] = alone[key][:, :length]
                close(together[example, :length], forward(model, alone)[0], layers=layers)


@pytest.mark.numeric
@pytest.mark.parametrize("name", ["gpt2", "mistral"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_rows_of_a_causal_tile_end_where_they_see_nothing(name, side, monkeypatch):
    model, shapes = tiny(name), []
    batch = clear_of_jumps(model, "prune50", lambda seed: padded(model, side, examples=2, seed=seed))
    watching = watch(model, probs=lambda probs, site: shapes.append((site.offset, probs.shape[3])))
    with torch.no_grad(), apply(model, "prune50"):
        expected = forward(model, batch)
        monkeypatch.setitem(tiles.TILE_BYTES, "cpu", 1)
        with watching:
            found = forward(model, batch)
    real = batch["attention_mask"].bool()
    close(found[real], expected[real], layers=2)
    assert all(keys == offset + 1 for offset, keys in shapes) and len(shapes) == 2 * (3 + 14)


@given(
    queries=st.integers(1, 5), before=st.integers(0, 3), padding=st.integers(0, 3), left=st.booleans(),
    window=st.integers(1, 9), flip=st.none() | st.tuples(st.integers(0, 4), st.integers(0, 7)),
)  # fmt: skip
def test_a_block_is_causal_where_its_mask_is_a_triangle(queries, before, padding, left, window, flip):
    keys = before + queries
    at = torch.arange(keys)
    mask = (at <= at[before:, None]) & (at > at[before:, None] - window)
    if padding < keys:
        mask[:, slice(0, padding) if left else slice(keys - padding, keys)] = False
    if flip and flip[0] < queries and flip[1] < keys:
        mask[flip] ^= True
    for block in blocks.read("decoder", queries, mask[None, None]):
        seen = mask[block.queries, block.keys]
        _, rows, width = block.shape()
        triangle = [[key <= block.offset + row for key in range(width)] for row in range(rows)]
        assert block.causal == (seen.tolist() == triangle and not all(map(all, triangle)))
        for part in block.part(1, 2):  # what tiles are given
            assert (
                part.causal == block.causal
                and part.offset == block.offset + part.queries.start - block.queries.start
            )


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_causal_prompt_is_read_without_a_mask(side, monkeypatch):
    model = tiny("llama")
    batch = padded(model, side)
    calls, kernel = [], functional.scaled_dot_product_attention

    def counted(q, *given, **settings):
        calls.append((settings.get("is_causal"), settings.get("attn_mask") is None))
        return kernel(q, *given, **settings)

    keep = stage("keep", "context")(lambda context, site: context)()
    with torch.no_grad():
        dense = forward(model, batch)
        monkeypatch.setattr(functional, "scaled_dot_product_attention", counted)
        with apply(model, keep):
            found = forward(model, batch)
    assert calls and set(calls) == {(True, True)}
    real = batch["attention_mask"].bool()
    close(found[real], dense[real], layers=model.config.num_hidden_layers)
