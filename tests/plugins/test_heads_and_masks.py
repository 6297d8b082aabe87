"""Head criteria and global masks against slow references on eager attention."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from closeness import NEAR, close

import attnbench
from attnbench import parse
from attnbench.engine.places import routing, sites
from attnbench.engine.serving import tiles


@pytest.fixture(scope="module")
def model(tiny_folder):
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(tiny_folder, attn_implementation="eager").eval()


@pytest.fixture(scope="module")
def batches():
    generator = torch.Generator().manual_seed(3)
    made = []
    for lengths in ([9, 5, 7], [4, 6]):
        ids = torch.randint(4, 60, (len(lengths), max(lengths)), generator=generator)
        mask = torch.tensor([[1] * n + [0] * (max(lengths) - n) for n in lengths])
        labels = torch.randint(0, 2, (len(lengths),), generator=generator)
        made.append({"input_ids": ids * mask, "attention_mask": mask, "labels": labels})
    return made


def _attentions(model, batches):
    """Every example's attention, padding cut off: one (layers, heads, n, n) array an example."""
    found = []
    with torch.no_grad():
        for batch in batches:
            layers = torch.stack(model(**batch, output_attentions=True).attentions).double().numpy()
            for example, n in enumerate(batch["attention_mask"].sum(1).tolist()):
                found.append(layers[:, example, :, :n, :n])
    return found


def _fitted(spec, model, batches):
    (method,) = parse(spec)
    method.fit(model, batches)
    return method


@pytest.mark.numeric
def test_entropy_is_the_mean_normalised_entropy_of_a_query(model, batches):
    rows = {}
    for layers in _attentions(model, batches):
        for layer, heads in enumerate(layers):
            for head, matrix in enumerate(heads):
                for row in matrix:
                    entropy = -sum(p * np.log(p) for p in row if p > 0) / np.log(len(row))
                    rows.setdefault((layer, head), []).append(entropy)
    scores = _fitted("heads50:entropy", model, batches).scores_
    for (layer, head), values in rows.items():
        close(scores["encoder", layer][head], -np.mean(values), layers=2)


@pytest.mark.numeric
def test_gradient_is_michels_score_with_the_layers_norm(model, batches):
    # independent of the engine: the context is what an output projection gets, its gradient is backward's
    sums = np.zeros((2, 4))
    contexts = []

    def keep(module, args):
        args[0].retain_grad()
        contexts.append(args[0])

    for batch in batches:
        for example in range(len(batch["labels"])):
            contexts.clear()
            projections = [layer.attention.output.dense for layer in model.bert.encoder.layer]
            handles = [projection.register_forward_pre_hook(keep) for projection in projections]
            try:
                model(**{key: value[example : example + 1] for key, value in batch.items()}).loss.backward()
            finally:
                for handle in handles:
                    handle.remove()
            for layer, context in enumerate(contexts):
                product = (context * context.grad)[0].double().detach().numpy()
                sums[layer] += np.abs(product.reshape(len(product), 4, 8).sum(-1)).sum(0)
    model.zero_grad()
    scores = _fitted("heads50:gradient", model, batches).scores_
    for layer in range(2):
        expected = sums[layer] / np.linalg.norm(sums[layer])
        close(scores["encoder", layer], expected, layers=4)


@pytest.mark.numeric
def test_scores_do_not_depend_on_the_batches(model, batches):
    examples = [
        {key: value[k : k + 1] for key, value in batch.items()}
        for batch in batches
        for k in range(len(batch["labels"]))
    ]
    for spec in ("heads50:gradient", "heads50:entropy"):
        whole, alone = _fitted(spec, model, batches).scores_, _fitted(spec, model, examples).scores_
        for key in whole:
            close(whole[key], alone[key], layers=4)


REMOVED = {
    "heads50:entropy": 4,
    "heads30:entropy": 2,  # floor(8 * 0.3)
    "heads100:entropy": 8,
    "heads0:entropy": 0,
    "heads50:entropy:per-layer": 4,
    "heads100:entropy:min-per-layer=1": 6,
    "heads50:gradient:steps=2": 4,
    "heads50:random": 4,
    "heads50:entropy:layers=1": 2,
}


@pytest.mark.parametrize(("spec", "count"), REMOVED.items())
def test_how_many_heads_go(spec, count, model, batches):
    method = _fitted(spec, model, batches)
    alive = torch.cat(list(method.alive_.values()))
    assert int((alive == 0).sum()) == count
    if "per-layer" in spec and "min" not in spec:
        assert all((layer == 0).sum() == 2 for layer in method.alive_.values())
    if "min-per-layer=1" in spec:
        assert all(layer.sum() == 1 for layer in method.alive_.values())


def test_the_lowest_heads_go(model, batches):
    method = _fitted("heads50:entropy", model, batches)
    scores, alive = (
        torch.cat([table["encoder", k] for k in range(2)]) for table in (method.scores_, method.alive_)
    )
    assert scores[alive == 0].max() <= scores[alive == 1].min()


def test_a_removed_head_is_a_zero_block_before_the_output_projection(model, batches):
    method = _fitted("heads50:entropy", model, batches)
    seen = []
    handle = model.bert.encoder.layer[1].attention.output.dense.register_forward_pre_hook(
        lambda module, args: seen.append(args[0])
    )
    with torch.no_grad(), attnbench.apply(model, method):
        model(**batches[0])
    handle.remove()
    blocks = seen[0].reshape(*seen[0].shape[:2], 4, 8)
    silent = (blocks == 0).all(-1).flatten(0, 1).all(0)
    assert silent.tolist() == (method.alive_["encoder", 1] == 0).tolist()


def test_a_criterion_that_cannot_tell_heads_apart_says_so(model, batches):
    (method,) = parse("heads50:entropy")
    flat = {("encoder", 0): torch.ones(4), ("encoder", 1): torch.ones(4)}
    method.importance = lambda *_: flat
    with pytest.raises(ValueError, match="cannot tell the heads apart"):
        method.fit(model, batches)


def test_random_heads_follow_their_seed(model, batches):
    specs = ("heads50:random", "heads50:random", "heads50:random:seed=1")
    kept = [_fitted(spec, model, batches).scores_["encoder", 0] for spec in specs]
    assert torch.equal(kept[0], kept[1]) and not torch.equal(kept[0], kept[2])


def _hidden_by_hand(model, batches, percent):
    """Average each entry over the examples that have it; hide the floor(n p / 100) smallest of a layer."""
    examples = _attentions(model, batches)
    longest = max(example.shape[-1] for example in examples)
    hidden = []
    for layer in range(2):
        total, count = np.zeros((4, longest, longest)), np.zeros((longest, longest))
        for example in examples:
            n = example.shape[-1]
            total[:, :n, :n] += example[layer]
            count[:n, :n] += 1
        entries = [
            (total[h, q, k] / count[q, k], h, q, k)
            for h in range(4)
            for q in range(longest)
            for k in range(longest)
        ]
        entries = sorted(entry for entry in entries if count[entry[2], entry[3]])
        table = np.zeros((4, longest, longest), bool)
        for _, h, q, k in entries[: int(len(entries) * percent / 100)]:
            table[h, q, k] = True
        hidden.append(table)
    return hidden


@pytest.mark.numeric
@pytest.mark.parametrize("percent", [0, 20, 50, 90])
def test_a_mask_hides_the_smallest_average_entries(percent, model, batches):
    method = _fitted(f"mask{percent}", model, batches)
    for layer, expected in enumerate(_hidden_by_hand(model, batches, percent)):
        found = method.hide_["encoder", layer].numpy()
        assert found.sum() == expected.sum()
        assert (found != expected).sum() <= 2  # two entries that tie to the last bit may change places


def _pattern(model, batch):
    """Average eager attention over the examples that have an entry: (kind, layer) -> mean, entries seen."""
    pair = model.config.is_encoder_decoder
    names = {"encoder_attentions": "encoder", "decoder_attentions": "decoder", "cross_attentions": "cross"}
    if not pair:
        names = {"attentions": sites.discover(model)[0].kind}
    total, count = {}, {}
    with torch.no_grad(), routing.implementation(model, "eager"):
        for example, mask in enumerate(batch["attention_mask"].bool()):
            alone = {key: value[example : example + 1] for key, value in batch.items()}
            alone |= {key: alone[key][:, mask] for key in ("input_ids", "attention_mask")}
            if "position_ids" in alone:
                alone["position_ids"] = alone["position_ids"][:, mask]
            output = model(**alone, output_attentions=True)
            for name, kind in names.items():
                for layer, attention in enumerate(output[name]):
                    probs = attention[0].double().numpy()
                    heads, queries, keys = probs.shape
                    longest = (
                        5 if kind != "encoder" and pair else 13,
                        5 if kind == "decoder" and pair else 13,
                    )
                    live = np.tri(queries, keys) if kind == "decoder" else np.ones((queries, keys))
                    key = kind, layer
                    total.setdefault(key, np.zeros((heads, *longest)))[:, :queries, :keys] += probs * live
                    count.setdefault(key, np.zeros(longest))[:queries, :keys] += live
    return {key: (sums / np.maximum(count[key], 1), count[key] > 0) for key, sums in total.items()}


@pytest.mark.numeric
@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("distilbert", "right"),
        ("gpt2", "right"),
        ("gpt2", "left"),
        ("llama", "left"),
        ("t5", "right"),
        ("bart", "right"),
    ],
)
def test_a_mask_hides_the_smallest_entries_of_every_kind(name, side, monkeypatch):
    from tiny_models import padded, tiny

    model = tiny(name)
    batch = padded(model, side, examples=6, tokens=13)
    if name == "gpt2":
        batch["position_ids"] = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
    patterns = _pattern(model, batch)
    for size in (1 << 20, 1):
        monkeypatch.setitem(tiles.TILE_BYTES, "cpu", size)
        halves = [{key: value[k : k + 3] for key, value in batch.items()} for k in (0, 3)]
        method, control = (_fitted(spec, model, halves) for spec in ("mask70", "mask70:random"))
        assert method.hide_.keys() == patterns.keys()
        for key, (average, live) in patterns.items():
            found = method.hide_[key].numpy()
            seen = np.broadcast_to(live, average.shape)
            count = int(seen.sum()) * 70 // 100
            assert found.shape == average.shape and found.sum() == count and not found[~seen].any()
            assert average[found].max() <= average[seen & ~found].min() + NEAR * average.max()
            assert method.sparsity_[key]["live"] == pytest.approx(count / seen.sum())
            assert method.sparsity_[key]["nominal"] == pytest.approx((count + (~seen).sum()) / seen.size)
            drawn = control.hide_[key].numpy()
            assert drawn.sum() == count and not drawn[~seen].any()
        # hidden entries weigh nothing, the others sum to one, a query with none left sees its keys alike
        shown = []
        watching = attnbench.watch(
            model, probs=lambda probs, site, to=shown: to.append((site, probs.clone()))
        )
        with torch.no_grad(), attnbench.apply(model, method), watching:
            model(**batch)
        for site, probs in shown:
            queries, keys = probs.shape[2:]
            hide = method.hide_[site.kind, site.layer][:, site.offset : site.offset + queries, :keys]
            visible = (
                torch.ones(1, 1, queries, keys, dtype=torch.bool) if site.visible is None else site.visible
            )
            kept = visible & ~hide
            empty = ~kept.any(-1, keepdim=True)
            assert not probs[(~kept & ~empty).expand_as(probs)].any()
            alike = (visible / visible.sum(-1, keepdim=True)).expand_as(probs)
            close(probs.where(empty, alike), alike.where(empty, alike), roundings=4)
            close(probs.sum(-1), torch.ones(probs.shape[:-1]), roundings=probs.shape[-1])


def test_the_random_mask_is_drawn_evenly():
    average = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    live = torch.ones(2, 8, 8, dtype=torch.bool)
    informed = parse("mask50")[0]._hide(average, live, ("encoder", 0))
    drawn = torch.zeros(2, 8, 8)
    for seed in range(500):
        drawn += parse(f"mask50:random:seed={seed}")[0]._hide(average, live, ("encoder", 0)) / 500
    needs = torch.maximum(torch.arange(8)[:, None], torch.arange(8))
    for longest in range(8):
        share = informed[:, needs == longest].double().mean()
        assert (drawn[:, needs == longest] - share).abs().max() < 0.12  # 5 standard deviations


def test_entries_beyond_the_calibrated_length_are_kept_in_a_model(model, batches):
    short = [
        {key: value[:, :4] if value.dim() == 2 else value for key, value in batch.items()}
        for batch in batches
    ]
    method = _fitted("mask90", model, short)
    for probs in _seen(model, method, batches[0])[::3]:  # layer by layer, the example of nine tokens
        assert probs.shape[-1] == 9 and (probs[..., 4:, :] > 0).all() and (probs[..., 4:] > 0).any()
        assert (probs[0, :, :4, :4] == 0).any() and (probs[0, :, :4, 4:] > 0).all()


def test_a_mask_hides_before_the_softmax_and_keeps_what_it_never_saw(model, batches):
    method = _fitted("mask50", model, batches)
    site = attnbench.Site("", "encoder", 0, heads=4, head_dim=8)
    scores = torch.zeros(1, 4, 12, 12)
    hidden = method.scores(scores.clone(), site)[0].isneginf()
    assert torch.equal(hidden[:, :9, :9], method.hide_["encoder", 0])
    assert not hidden[:, 9:].any() and not hidden[:, :, 9:].any()
    part = method.scores(scores[..., 3:5, :].clone(), attnbench.Site("", "encoder", 0, 4, 8, offset=3))[
        0
    ].isneginf()
    assert torch.equal(part, hidden[:, 3:5])


def _seen(model, method, batch):
    seen = []
    watching = attnbench.watch(model, probs=lambda probs, _: seen.append(probs.clone()))
    with torch.no_grad(), attnbench.apply(model, method), watching:
        model(**batch)
    return seen


@pytest.mark.numeric
def test_a_query_with_nothing_left_attends_uniformly(model, batches):
    method = _fitted("mask100", model, batches)
    seen = []
    with (
        torch.no_grad(),
        attnbench.apply(model, method),
        attnbench.watch(model, probs=lambda p, _: seen.append(p.clone())),
    ):
        model(**batches[1])
    assert all(torch.allclose(probs, torch.full_like(probs, 1 / probs.shape[-1])) for probs in seen)


def test_the_random_mask_is_as_sparse_and_elsewhere(model, batches):
    specs = ("mask50", "mask50:random", "mask50:random", "mask50:random:seed=1")
    informed, drawn, again, other = (_fitted(spec, model, batches).hide_["encoder", 0] for spec in specs)
    for n in range(1, informed.shape[-1] + 1):  # of an example of any length
        assert informed[:, :n, :n].sum() == drawn[:, :n, :n].sum() == other[:, :n, :n].sum()
    assert torch.equal(drawn, again) and not torch.equal(drawn, other) and not torch.equal(drawn, informed)


@pytest.mark.numeric
def test_uniform_weights_every_visible_key_alike(model, batches):
    seen = []
    with (
        torch.no_grad(),
        attnbench.apply(model, "uniform"),
        attnbench.watch(model, probs=lambda p, _: seen.append(p.clone())),
    ):
        model(**batches[0])
    assert seen and all(torch.allclose(probs, torch.full_like(probs, 1 / probs.shape[-1])) for probs in seen)


def _blocks_by_hand(model, batches, percent, size):
    """Rank a layer's blocks by the mean of the average pattern over what was seen of them."""
    examples = _attentions(model, batches)
    longest = max(example.shape[-1] for example in examples)
    hidden = []
    for layer in range(2):
        total, count = np.zeros((4, longest, longest)), np.zeros((longest, longest))
        for example in examples:
            n = example.shape[-1]
            total[:, :n, :n] += example[layer]
            count[:n, :n] += 1
        ranked = []
        for head in range(4):
            for q in range(0, longest, size):
                for k in range(0, longest, size):
                    block = np.s_[q : q + size, k : k + size]
                    live = count[block] > 0
                    if live.any():
                        average = total[head][block][live] / count[block][live]
                        ranked.append((average.mean(), head, block))
        table, count_hidden = np.zeros((4, longest, longest), bool), len(ranked) * percent // 100
        ranked.sort(key=lambda item: item[0])
        if 0 < count_hidden < len(ranked):  # or rounding decides which block is hidden
            assert ranked[count_hidden][0] > ranked[count_hidden - 1][0] * (1 + NEAR)
        for _, head, block in ranked[:count_hidden]:
            table[head][block] = count[block] > 0
        hidden.append(table)
    return hidden


@pytest.mark.numeric
@pytest.mark.parametrize("percent", [0, 50, 90, 100])
@pytest.mark.parametrize("size", [1, 2, 4, 32])
def test_a_block_mask_hides_the_lowest_blocks(percent, size, model, batches):
    method = _fitted(f"mask{percent}:block:size={size}", model, batches)
    for layer, expected in enumerate(_blocks_by_hand(model, batches, percent, size)):
        np.testing.assert_array_equal(method.hide_["encoder", layer].numpy(), expected)


def _states(model, batch):
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    return model.bert(**inputs).last_hidden_state[batch["attention_mask"].bool()]


@pytest.mark.numeric
def test_a_mask_is_the_same_under_left_padding(model, batches):
    right, left = [], []
    for batch in batches:
        batch = {
            **batch,
            "position_ids": torch.arange(batch["input_ids"].shape[1]).expand_as(batch["input_ids"]),
        }
        right.append(batch)
        moved = {key: value.clone() for key, value in batch.items()}
        for example, n in enumerate(batch["attention_mask"].sum(1).tolist()):
            for key in ("input_ids", "attention_mask", "position_ids"):
                moved[key][example] = batch[key][example].roll(len(batch[key][example]) - n)
        left.append(moved)
    for spec in ("mask70", "mask50:block:size=4"):
        there, here = _fitted(spec, model, right), _fitted(spec, model, left)
        assert all(torch.equal(there.hide_[key], here.hide_[key]) for key in there.hide_)
        for ours, theirs in zip(right, left, strict=True):
            with torch.no_grad(), attnbench.apply(model, there):
                found = [_states(model, batch) for batch in (ours, theirs)]
            close(*found, layers=2)


def test_live_and_nominal_sparsity(model, batches):
    method = _fitted("mask50", model, batches)
    lengths = [n for batch in batches for n in batch["attention_mask"].sum(1).tolist()]
    live = np.zeros((9, 9), bool)
    for n in lengths:
        live[:n, :n] = True
    for key, hide in method.hide_.items():
        hidden = int(hide.sum())
        assert hidden == 4 * live.sum() * 50 // 100
        assert method.sparsity_[key]["live"] == pytest.approx(hidden / (4 * live.sum()))
        assert method.sparsity_[key]["nominal"] == pytest.approx((hidden + 4 * (~live).sum()) / (4 * 81))


@pytest.mark.parametrize("percent", [29, 57, 58, 0.1, 99.9])
def test_the_share_of_a_mask_is_exact_and_ties_go_to_the_first(percent):
    (method,) = parse(f"mask{percent}")
    average = torch.tensor([1.0, 0.5, 0.1] * 500).double().view(2, 25, 30)
    live = average > 0.2
    chosen = method._hide(average, live, ("encoder", 0))
    assert not chosen[~live].any()
    chosen = chosen[live]
    count = round(percent * 10)
    assert int(chosen.sum()) == count
    expected = [*range(1, 1000, 2), *range(0, 1000, 2)][:count]
    assert chosen.nonzero().flatten().tolist() == sorted(expected)


def test_a_block_larger_than_the_pattern_is_the_whole(model, batches):
    small, large = (_fitted(f"mask50:block:size={size}", model, batches) for size in (12, 3_000_000_000))
    assert all(torch.equal(hide, large.hide_[key]) for key, hide in small.hide_.items())


@pytest.mark.parametrize("spec", ["mask101", "mask50:block:size=0"])
def test_mask_amounts_out_of_range(spec):
    from attnbench.errors import UserError

    with pytest.raises(UserError, match=r"between 0 and 100|at least 1"):
        parse(spec)


@pytest.mark.parametrize("spec", ["mask50", "mask50:random", "mask90:block", "mask50:block:size=4"])
def test_masks_keep_the_promises(spec):
    from attnbench.testing import check_method

    report = check_method(spec)
    assert report.ok, report
