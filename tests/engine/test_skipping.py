"""Entries skipped for real against the same ones hidden: masks, spans, kinds of model, and slow sums."""

from __future__ import annotations

import contextlib
import warnings

import numpy as np
import pytest
import tapped_models
import torch
from closeness import close, sharpness
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import padded, tiny
from transformers import BertConfig, BertModel

import attnbench
from attnbench import Method, Site, parse
from attnbench.engine.places.blocks import Block
from attnbench.engine.realised import flexible, planning, skipping, sparse
from attnbench.engine.realised.patterns import Pattern
from attnbench.engine.realised.spans import span
from attnbench.errors import NotApplicable

SITE = Site("", "encoder", 0, 4, 8)
SPECS = (
    "window3",
    "sink2:window=3",
    "mask60",
    "mask90:block:size=4",
    "mask60+mask50:random",
    "window4+heads:fixed:off=0.2:off=1.1",
)


class Table(Method):
    """Hide what a table (heads, queries, keys) does not keep."""

    name = "table"

    def __init__(self, kept):
        super().__init__()
        self.kept = kept

    def scores(self, scores, site):
        queries, keys = scores.shape[-2:]
        part = self.kept[:, site.offset : site.offset + queries, :keys]
        return scores.masked_fill(~part, -torch.inf)


@contextlib.contextmanager
def realised(model, *methods):
    """Skip whether it pays or not, and hand out what became of it."""
    with attnbench.realize(model, *methods):
        known = skipping.tally(model)
        known.forced = known.told = True
        yield known


def _fitted(model, spec, batch):
    methods = parse(spec)
    for method in methods:
        method.fit(model, [batch])
    return methods


def _outputs(model, batch):
    with torch.no_grad():
        output = model(**batch)
    logits = output.logits
    whole = logits.dim() == 2 or model.config.is_encoder_decoder
    return logits if whole else logits[batch["attention_mask"].bool()]


@pytest.mark.numeric
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize(
    "name, side",
    [("bert", "right"), ("modernbert", "right"), ("llama", "left"), ("mistral", "right"), ("bart", "right")],
)
def test_skipped_equals_hidden(name, side, spec):
    model = tiny(name)
    batch = padded(model, side)
    methods = _fitted(model, spec, batch)
    with attnbench.apply(model, *methods):
        expected = _outputs(model, batch)
    with realised(model, *methods) as known:
        found = _outputs(model, batch)
        assert known.done and not known.reasons
    close(found, expected, layers=3, gain=sharpness(model, batch))
    assert skipping.tally(model) is None


def _slow(q, k, v, kept, seen, uniform):
    """Attend in float64, one query at a time."""
    out = np.zeros((*q.shape[:2], v.shape[2]))
    for head, query in np.ndindex(*q.shape[:2]):
        own = head * len(k) // len(q)
        keys = np.flatnonzero(kept[head, query] & seen[query])
        if not len(keys):
            keys = np.flatnonzero(seen[query]) if uniform else keys
            out[head, query] = v[own, keys].mean(0) if len(keys) else 0
            continue
        weights = np.exp((scores := k[own, keys] @ q[head, query] * 0.3) - scores.max())
        out[head, query] = weights @ v[own, keys] / weights.sum()
    return out


@st.composite
def cases(draw):
    queries = draw(st.integers(1, 70))
    keys = draw(st.sampled_from([queries, draw(st.integers(1, 70))]))
    size, share = draw(st.sampled_from([1, 5, 16])), draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    seen = draw(st.sampled_from(["all", "causal", "window"]))
    return queries, keys, size, share, seen if keys == queries else "all", draw(st.booleans())


@pytest.mark.numeric
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("way", ["plain", "flexible"])
@settings(max_examples=15, deadline=None)
@given(case=cases(), seed=st.integers(0, 99), groups=st.sampled_from([1, 2]), alike=st.booleans())
def test_any_pattern_against_slow_sums(way, case, seed, groups, alike):
    queries, keys, size, share, seen, uniform = case
    torch.manual_seed(seed)
    q, k, v = (torch.randn(n, t, 8) for n, t in ((4, queries), (4 // groups, keys), (4 // groups, keys)))
    coarse = torch.rand(1 if alike else 4, -(-queries // size), -(-keys // size)) < share
    kept = coarse.repeat_interleave(size, 1).repeat_interleave(size, 2)[:, :queries, :keys].expand(4, -1, -1)
    visible = {
        "all": None,
        "causal": torch.ones(queries, keys, dtype=torch.bool).tril(),
        "window": torch.ones(queries, keys, dtype=torch.bool).tril().triu(-6),
    }[seen]
    given = None if visible is None else visible[None, None]
    runs = span(Block(slice(0, 1), slice(0, queries), slice(0, keys), 0, given))
    plan = (planning if way == "plain" else flexible).plan(
        Pattern([Table(kept)], SITE, range(4)), runs, q[:0], groups, float("inf")
    )
    out = torch.full((4, queries, 8), torch.nan)
    sparse.attend(plan, q, k, v, 0.3, uniform, sparse.Room(), out)
    whole = np.ones((queries, keys), bool) if visible is None else visible.numpy()
    expected = _slow(*(x.double().numpy() for x in (q, k, v)), kept.numpy(), whole, uniform)
    close(out, expected, roundings=60 + keys)


def _looking(stage):
    return type("Looking", (Method,), {"name": "looking", "scores": stage})()


def _by_numpy(self, scores, site):
    scores[torch.from_numpy(scores.numpy() < -1)] = -torch.inf
    return scores


@pytest.mark.parametrize(
    "stage, says",
    [
        (lambda self, scores, site: scores.masked_fill(scores < scores.mean(), -torch.inf), "the scores"),
        (lambda self, scores, site: scores.masked_fill(torch.tensor(scores.max() > 1), -torch.inf), "scores"),
        (_by_numpy, "the scores"),
        (lambda self, scores, site: scores * 2, "the scores"),
        (lambda self, scores, site: scores + 1, "more than hide"),
        (lambda self, scores, site: scores.clone() if site.visible is None else scores, "site.visible"),
        (lambda self, scores, site: scores.clone() if len(site.examples) else scores, "site.examples"),
        (lambda self, scores, site: scores.masked_fill(torch.rand(6, 6) < 0.5, -torch.inf), "draws"),
    ],
)
def test_what_is_hidden_has_to_be_the_same_for_every_text(stage, says):
    pattern = Pattern([_looking(stage)], SITE, range(4))
    with pytest.raises(NotApplicable, match=says):
        pattern.confirm(0, 6, 6, torch.zeros(1))
        pattern.kept(0, 6, 6, torch.zeros(1))


def _near(scores, site):
    queries, keys = scores.shape[-2:]
    return (torch.arange(keys) - torch.arange(queries)[:, None] - site.offset).abs()


def _by_numpy_later(self, scores, site):
    """Look at the scores of a text's later queries, behind torch's back."""
    low = torch.from_numpy(scores.numpy() < -1) & (torch.arange(scores.shape[-2]) + site.offset > 40)[:, None]
    return scores.masked_fill((low | (_near(scores, site) >= 8)) & (_near(scores, site) > 0), -torch.inf)


def _of_last_keys(self, scores, site):
    """Hide what is not among the last keys, of however many there are."""
    first = torch.arange(scores.shape[-1]) < scores.shape[-1] - 6
    return scores.masked_fill(first & (_near(scores, site) > 0), -torch.inf)


@pytest.mark.parametrize(
    "stage, says", [(_by_numpy_later, "looks at the scores"), (_of_last_keys, "looks at how many keys")]
)
def test_a_long_text_is_looked_at_in_several_places(stage, says):
    visible = torch.ones(1, 1, 200, 200, dtype=torch.bool).tril()
    seen = span(Block(slice(0, 1), slice(0, 200), slice(0, 200), 0, visible))
    pattern = Pattern([_looking(stage)], SITE, range(4))
    for _ in range(2):
        with pytest.raises(NotApplicable, match=says):
            planning.plan(pattern, seen, torch.zeros(1), 1)
    later = span(Block(slice(0, 1), slice(0, 1), slice(0, 201), 200))
    with pytest.raises(NotApplicable, match=says):
        planning.plan(pattern, later, torch.zeros(1), 1)


@pytest.mark.parametrize(
    "stage",
    [
        lambda self, scores, site: torch.where(torch.ones(6, 6).tril() > 0, scores, -torch.inf),
        lambda self, scores, site: scores.masked_fill(torch.ones(6, 6).triu(1) > 0, -torch.inf),
        lambda self, scores, site: scores.add_(scores.new_full((6, 6), -torch.inf).triu(1)),
    ],
)
def test_a_pattern_is_read_off_its_stage(stage):
    pattern = Pattern([_looking(stage)], SITE, [0, 3])
    pattern.confirm(0, 6, 6, torch.zeros(1))
    kept = pattern.kept(0, 6, 6, torch.zeros(1))
    assert torch.equal(kept, torch.ones(6, 6).tril().bool().expand(2, -1, -1))


@pytest.fixture(scope="module")
def long():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=128, num_hidden_layers=2, num_attention_heads=8, intermediate_size=32,
        max_position_embeddings=400,
    )  # fmt: skip
    return BertModel(config, add_pooling_layer=False).eval()


def _texts(*lengths):
    ids = torch.arange(len(lengths) * max(lengths)).view(len(lengths), -1) % 45 + 4
    return {
        "input_ids": ids,
        "attention_mask": (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long(),
    }


def test_long_texts_are_skipped_through_and_short_ones_simulated(long):
    methods = _fitted(long, "mask90:block", _texts(400))
    batch = _texts(400, 33)  # the second one is not worth it, which is said once
    with torch.no_grad(), attnbench.apply(long, *methods):
        expected = long(**batch).last_hidden_state
    with torch.no_grad(), attnbench.realize(long, *methods):
        with pytest.warns(UserWarning, match="simulated, not realised: mask:block on 33 queries") as said:
            found = long(**batch).last_hidden_state
        known = skipping.tally(long)
        assert known.done == 2 and sum(known.reasons.values()) == 2 and len(said) == 1
    real = batch["attention_mask"].bool()
    close(found[real], expected[real], layers=2)


@pytest.mark.parametrize("spec", ["window500", "mask10", "sink4:window=400"])
def test_what_would_not_pay_is_simulated_and_says_so(long, spec):
    methods, batch = _fitted(long, spec, _texts(40)), _texts(60, 50)
    with torch.no_grad(), attnbench.apply(long, *methods):
        expected = long(**batch).last_hidden_state
    with torch.no_grad(), attnbench.realize(long, *methods):
        with pytest.warns(UserWarning, match="would not pay"):
            found = long(**batch).last_hidden_state
        assert not skipping.tally(long).done
    assert torch.equal(found, expected)


def test_a_mask_keeps_what_is_beyond_the_texts_it_was_fitted_on(long):
    methods, batch = _fitted(long, "mask90:block", _texts(100)), _texts(300)
    with torch.no_grad(), attnbench.apply(long, *methods):
        expected = long(**batch).last_hidden_state
    with torch.no_grad(), realised(long, *methods) as known:
        found = long(**batch).last_hidden_state
        assert known.done == 2
    close(found, expected, layers=2)


@pytest.mark.parametrize("spec", ["window3", "mask60"])
def test_generation_with_a_cache_is_the_same(spec):
    model = tiny("llama")
    batch = padded(model, "left", examples=3)
    methods = _fitted(model, spec, batch)
    options = {
        "max_new_tokens": 6,
        "do_sample": False,
        "output_logits": True,
        "return_dict_in_generate": True,
    }
    with torch.no_grad(), attnbench.apply(model, *methods):
        expected = model.generate(**batch, **options)
    with torch.no_grad(), realised(model, *methods) as known:
        found = model.generate(**batch, **options)
        assert known.done
    assert torch.equal(found.sequences, expected.sequences)
    for a, b in zip(found.logits, expected.logits, strict=True):
        close(a, b, layers=2, gain=sharpness(model, batch))


def test_other_methods_on_top_are_applied(long):
    methods, batch = parse("window8"), _texts(300)
    with torch.no_grad(), attnbench.apply(long, *methods, "prune50"):
        expected = long(**batch).last_hidden_state
    with torch.no_grad(), attnbench.realize(long, *methods), attnbench.apply(long, "prune50"):
        assert torch.equal(long(**batch).last_hidden_state, expected)


@pytest.mark.parametrize(
    "name, spec, says",
    [
        ("bert", "window3+mask50", "window and mask differ in what a query with nothing left attends to"),
        ("bert", "prune50", "prune is only simulated"),
        ("deberta", "window3", "it is off transformers' attention interface"),
    ],
)
def test_what_cannot_be_skipped_is_refused(name, spec, says):
    model = (tapped_models.tiny if name == "deberta" else tiny)(name)
    methods = _fitted(model, spec, padded(model))
    with pytest.raises(NotApplicable, match=says), attnbench.realize(model, *methods):
        pass


def test_a_bias_on_scores_leaves_it_simulated():
    model = tiny("t5")
    batch, methods = padded(model), parse("window3:on=encoder")
    with attnbench.apply(model, *methods):
        expected = _outputs(model, batch)
    with warnings.catch_warnings(), realised(model, *methods):
        found = _outputs(model, batch)
    close(found, expected, layers=7)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("spec", ["window32", "mask90:block:size=128"])
def test_skipped_equals_hidden_on_a_gpu(long, spec):
    batch = {key: value.cuda() for key, value in _texts(400, 390).items()}
    model = long.cuda()
    try:
        methods = _fitted(model, spec, batch)
        with torch.no_grad(), attnbench.apply(model, *methods):
            expected = model(**batch).last_hidden_state
        with torch.no_grad(), realised(model, *methods) as known:
            found = model(**batch).last_hidden_state
            assert known.done and not known.reasons
        real = batch["attention_mask"].bool()
        torch.testing.assert_close(found[real], expected[real], atol=1e-3, rtol=0)  # TF32 of the kernel
    finally:
        long.cpu()
