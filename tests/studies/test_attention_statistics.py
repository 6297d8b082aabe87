"""The statistics of attention are those of a slow reference: numpy float64, one query row after the other."""

from __future__ import annotations

import copy
import functools
import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from studied import Everything, Words, looked
from tiny_models import padded, tiny

from attnbench.methods import spec
from attnbench.methods.protocol import Site
from attnbench.methods.views import Sample, Tokens, View
from attnbench.studies.passes import conduct
from attnbench.studies.reading import Reading

HEADS, KEYS = 3, 24
PLACE = {"path": "attention", "kind": "encoder", "layer": 0, "heads": HEADS, "head_dim": 4}
EDGES = 10.0 ** np.linspace(-8, 0, 101)


def sample(number: int, keys: int = KEYS) -> Sample:
    ids = np.concatenate([[1], 3 + (np.arange(keys - 2) * (number + 2)) % 7, [2]])
    return Sample(number, Tokens(ids, np.isin(ids, [1, 2]), tuple(f"w{i}" for i in ids)))


def view(visible=None, batch=1, number=0, keys=KEYS, rows=None, offset=0):
    samples = tuple(sample(number + k, keys) for k in range(batch))
    return View(
        **PLACE, visible=visible, examples=range(batch), samples=samples, batch=1, rows=rows or keys,
        columns=keys, offset=offset,
    )  # fmt: skip


def drawn(seed: int, peak: float = 2.0, visible=None, batch: int = 1, keys: int = KEYS):
    scores = torch.randn(batch, HEADS, keys, keys, generator=torch.Generator().manual_seed(seed)) * peak
    if visible is not None:
        scores = scores.masked_fill(~visible, -math.inf)
    return scores.softmax(-1).nan_to_num()


def causal(keys: int = KEYS):
    return torch.ones(1, 1, keys, keys, dtype=torch.bool).tril()


def hidden_rows():
    seen = torch.ones(1, 1, KEYS, KEYS, dtype=torch.bool)
    seen[..., 5:9, :] = False  # queries that see nothing
    seen[..., 9, 1:] = False  # and one that sees one key
    return seen


def emptied(probs):
    """Return what a method made of attention that leaves some queries nothing, others less than half."""
    changed = torch.where(probs > 0.02, probs, 0)
    changed[..., 3, :] = 0
    changed[..., 4, :] *= 0.3
    return changed


# name -> (dense, with a method, visible)
def cases():
    plain, sharp, flat = drawn(1), drawn(2, peak=9), torch.full((1, HEADS, KEYS, KEYS), 1 / KEYS)
    ahead, rows = drawn(3, visible=causal()), drawn(4, visible=hidden_rows())
    hot = torch.nn.functional.one_hot(torch.arange(KEYS) % 5, KEYS).float().expand(1, HEADS, -1, -1).clone()
    return {
        "plain": (plain, emptied(plain), None),
        "peaked": (sharp, emptied(sharp), None),
        "flat": (flat, flat.clone(), None),
        "one hot": (hot, hot.clone(), None),
        "causal": (ahead, emptied(ahead), causal()),
        "queries that see nothing": (rows, emptied(rows), hidden_rows()),
        "bfloat16": (plain.bfloat16(), emptied(plain).bfloat16(), None),
        "float16": (ahead.half(), emptied(ahead).half(), causal()),
    }


CASES = cases()


def rows_of(probs, visible):
    """Yield (head, query, its visible probabilities in float64), the queries that see nothing left out."""
    seen = torch.ones_like(probs, dtype=torch.bool) if visible is None else visible.expand_as(probs)
    for head in range(HEADS):
        for query in range(probs.shape[2]):
            row = probs[0, head, query][seen[0, head, query]].double().numpy()
            if len(row):
                yield head, query, row


def seen_by(text, dense, changed, visible):
    """Return a study's tables of the dense tensor and of the changed one."""
    first, second = (copy.deepcopy(spec.parse_study(text)) for _ in range(2))
    second.dense = first
    for study, tensor in ((first, dense), (second, changed)):
        study.begin(None, [Site(**PLACE)])
        study.probs(tensor, view(visible))
    return first.tables(), second.tables()


def in_bins(row, edges=EDGES):
    lowered = edges.copy()
    lowered[0] = 0.0
    return np.histogram(row, lowered)[0]


@pytest.mark.parametrize("case", CASES)
def test_the_distribution(case):
    dense, changed, visible = CASES[case]
    for table, probs in zip(
        seen_by("distribution:at=0.01", dense, changed, visible), (dense, changed), strict=True
    ):
        for head in range(HEADS):
            rows = [row for which, _, row in rows_of(probs, visible) if which == head]
            values, found = np.concatenate(rows), table["heads"].loc["encoder", 0, head]
            np.testing.assert_allclose(found["mean"], values.mean(), rtol=1e-6)
            np.testing.assert_allclose(found["sd"], values.std(), rtol=1e-5, atol=1e-7)
            assert found["min"] == values.min() and found["max"] == values.max()
            assert found["up_to_0.01"] == (values <= np.float32(0.01)).mean()
            shares = np.mean([in_bins(row) / len(row) for row in rows], axis=0)
            histogram = table["histogram"].loc["encoder", 0, head]
            np.testing.assert_allclose(histogram["share"], shares, atol=1e-6)
            np.testing.assert_allclose(histogram["cdf"], shares.cumsum(), atol=1e-6)
            np.testing.assert_allclose(histogram.index, EDGES[1:])
            assert found["median"] == pytest.approx(EDGES[1:][(shares.cumsum() >= 0.5 - 1e-7).argmax()])
            assert histogram["share"].sum() == pytest.approx(1)


def test_a_tokens_cdf_is_of_all_its_occurrences_and_special_ones_are_marked():
    dense, _, _ = CASES["plain"]
    table = seen_by("distribution", dense, dense, None)[0]["tokens"]
    ids = sample(0).source.ids
    for name, special in (("w1", True), ("w2", True), ("w3", False)):
        places = [place for place, token in enumerate(ids) if f"w{token}" == name]
        expected = np.mean(
            [in_bins(row).cumsum() / len(row) for _, query, row in rows_of(dense, None) if query in places],
            axis=0,
        )
        np.testing.assert_allclose(table.loc["encoder", 0, name, special]["cdf"], expected, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_the_sparsity(case):
    dense, changed, visible = CASES[case]
    for table, probs in zip(seen_by("sparsity0.01", dense, changed, visible), (dense, changed), strict=True):
        for head in range(HEADS):
            rows = [row for which, _, row in rows_of(probs, visible) if which == head]
            values, found = np.concatenate(rows), table["heads"].loc["encoder", 0, head]
            assert found["zeros"] == (values == 0).mean()
            assert found["under"] == (values <= np.float32(0.01)).mean()
            needed = [np.sort(row)[::-1].cumsum() for row in rows]
            counts = [
                int((mass > 0.5 + 1e-6).argmax()) + 1 if mass[-1] > 0.5 + 1e-6 else None for mass in needed
            ]
            some = [(count, len(row)) for count, row in zip(counts, rows, strict=True) if count is not None]
            assert found["short"] == pytest.approx(1 - len(some) / len(rows))
            assert found["half"] == pytest.approx(np.mean([count for count, _ in some]))
            assert found["half_sd"] == pytest.approx(np.std([count for count, _ in some]), abs=1e-6)
            assert found["half_share"] == pytest.approx(np.mean([count / keys for count, keys in some]))
            assert found["empty"] == np.mean([not row.any() for row in rows])
            middle = [(2 * in_bins(row).cumsum() >= len(row)).argmax() for row in rows]
            assert found["diversity"] == pytest.approx(np.std(middle), abs=1e-6)
            sparse = [(row <= np.float32(0.01)).mean() for row in rows]
            bars = np.histogram(np.float32(sparse), 10, (0, 1))[0] / len(rows)
            np.testing.assert_allclose(table["bars"].loc["encoder", 0, head]["share"], bars, atol=1e-7)
        heads = table["heads"]["diversity"]
        assert table["layers"]["diversity"].item() == pytest.approx(heads.mean())


def test_one_key_is_one_key_to_half_the_mass():  # theirs says 0
    dense = CASES["one hot"][0]
    assert set(seen_by("sparsity", dense, dense, None)[0]["heads"]["half"]) == {1.0}


@pytest.mark.parametrize("case", CASES)
def test_the_divergence(case):
    dense, changed, visible = CASES[case]
    _, table = seen_by("divergence", dense, changed, visible)
    tolerance = {"rtol": 1e-4, "atol": 1e-6 if dense.dtype == torch.float32 else 1e-3}
    for head in range(HEADS):
        found = table["heads"].loc["encoder", 0, head]
        pairs = [
            (a, b)
            for (which, _, a), (_, _, b) in zip(
                rows_of(changed, visible), rows_of(dense, visible), strict=True
            )
            if which == head
        ]
        values = [jensenshannon(in_bins(a), in_bins(b)) for a, b in pairs]
        # the distance is a square root: what rounds to 1e-16 under it is 1e-8
        np.testing.assert_allclose(found["js_values"], np.nan_to_num(values).mean(), atol=1e-6)
        np.testing.assert_allclose(
            found["tv"], np.mean([abs(a - b).sum() / 2 for a, b in pairs]), **tolerance
        )
        np.testing.assert_allclose(found["lost"], np.mean([b.sum() - a.sum() for a, b in pairs]), **tolerance)
        held = [(a / a.sum(), b) for a, b in pairs if a.any()]
        assert found["empty"] == pytest.approx(1 - len(held) / len(pairs))
        keys = np.mean([jensenshannon(a, b) if abs(a - b).max() > 1e-7 else 0 for a, b in held])
        np.testing.assert_allclose(found["js_keys"], keys, rtol=2e-3, atol=5e-4)
        bounded = [(a, b) for a, b in held if not ((a > 0) & (b == 0)).any()]
        kl = np.mean([(a[a > 0] * np.log(a[a > 0] / b[a > 0])).sum() for a, b in bounded])
        np.testing.assert_allclose(found["kl"], kl, **tolerance)
        assert found["unbounded"] == pytest.approx((len(held) - len(bounded)) / len(pairs))


def test_the_divergence_is_of_every_sample_not_the_last():  # theirs begins its sum anew with each
    dense = [drawn(seed) for seed in (1, 2, 3)]
    changed = [emptied(each) if k == 0 else each.clone() for k, each in enumerate(dense)]
    twins = [spec.parse_study("divergence") for _ in range(2)]
    twins[1].dense = twins[0]
    for twin in twins:
        twin.begin(None, [Site(**PLACE)])
    for k, (first, second) in enumerate(zip(dense, changed, strict=True)):
        for twin, tensor in zip(twins, (first, second), strict=True):
            twin.probs(tensor, View(**{**vars(view(number=k)), "batch": k + 1}))
    whole = twins[1].tables()["heads"]["tv"]
    alone = seen_by("divergence", dense[0], changed[0], None)[1]["heads"]["tv"]
    np.testing.assert_allclose(whole, alone / 3)


@pytest.mark.parametrize("bits", [3, 4])
@pytest.mark.parametrize("case", ["plain", "peaked", "causal"])
def test_the_clamp(case, bits):
    dense, _, visible = CASES[case]
    table = seen_by(f"clamp{bits}", dense, dense, visible)[0]
    edges = 10.0 ** np.linspace(-8, 0, 161)
    lowered = edges.copy()
    lowered[0] = 0
    for head in range(1):  # a slow reference
        values = np.concatenate([row for which, _, row in rows_of(dense, visible) if which == head])
        counts = np.histogram(values, lowered)[0].astype(float)
        best = {"kl": (np.inf, 0, 0), "mse": (np.inf, 0, 0)}
        for low in range(0, 161, 4):
            for high in range(low + 2**bits + (-(2**bits)) % 4, 161, 4):
                for kind, loss in (("kl", _kl), ("mse", _mse)):
                    best[kind] = min(best[kind], (loss(counts, edges, low, high, 2**bits), low, high))
        found = table["heads"].loc["encoder", 0, head]
        for kind, (loss, low, high) in best.items():
            assert found[kind] == pytest.approx(loss, rel=1e-9, abs=1e-12)
            assert (found[f"{kind}_low"], found[f"{kind}_high"]) == pytest.approx((edges[low], edges[high]))


def _groups(low, high, levels):
    return [
        [c for c in range(low, high) if (c - low) * levels // (high - low) == level]
        for level in range(levels)
    ]


def _kl(counts, edges, low, high, levels):
    p, q = np.zeros(160), np.zeros(160)
    p[low:high] = counts[low:high]
    p[low] += counts[:low].sum()
    p[high - 1] += counts[high:].sum()
    for group in _groups(low, high, levels):
        held = [cell for cell in group if counts[cell] > 0]
        for cell in held:
            q[cell] = sum(counts[held]) / len(held)
    if ((p > 0) & (q == 0)).any():
        return np.inf
    return max(sum(p[c] * np.log(p[c] / q[c]) for c in range(160) if p[c] > 0), 0) / counts.sum()


def _mse(counts, edges, low, high, levels):
    middle = np.sqrt(edges[:-1] * edges[1:])
    middle[0] = 0
    bounds = np.log10([edges[low], edges[high]])
    to = 10 ** (bounds[0] + (np.arange(levels) + 0.5) * (bounds[1] - bounds[0]) / levels)
    total = 0.0
    for cell in range(160):
        near = min(max(cell, low), high - 1)
        total += counts[cell] * (middle[cell] - to[(near - low) * levels // (high - low)]) ** 2
    return total / counts.sum()


@pytest.mark.parametrize("name", ["bert", "llama", "marian", "gemma"])
def test_maps_are_the_attention_of_each_text_and_layer(name):  # theirs takes samples for layers
    model = tiny(name)
    batch = padded(model, examples=3)
    reading = Reading(model, Words())
    maps, everything = conduct(
        model, [spec.parse_study("maps2"), Everything()], reading, batches=[reading.taken(batch)]
    )
    arrays, found = maps.twins["dense"].arrays(), everything.twins["dense"].found
    assert {int(key.partition(".")[0]) for key in arrays} == {0, 1}
    for key, weights in arrays.items():
        number, kind, layer = key.split(".")
        shown = batch["attention_mask"][int(number)].bool()
        ids = tuple(batch["input_ids"][int(number)][shown].tolist())
        width = weights.shape[2]
        tiles = found["probs", kind, int(layer), ids]
        wide = [np.pad(tile, ((0, 0), (0, 0), (0, width - tile.shape[2]))) for tile in tiles]
        whole = np.concatenate(wide, axis=1)
        np.testing.assert_array_equal(np.nan_to_num(weights), whole)
        table = maps.twins["dense"].tables()["weights"].loc[int(number), kind, int(layer)]
        assert len(table) == (~np.isnan(weights)).sum()


STUDIES = ("distribution", "sparsity", "divergence")


@functools.cache
def tables_of(name, batching):
    model = tiny(name)
    batch = padded(model, examples=8)
    parts = {"together": [slice(0, 8)], "alone": [slice(k, k + 1) for k in range(8)], "wider": [slice(0, 8)]}
    reading = Reading(model, Words())
    batches = []
    for part in parts[batching]:
        inputs = {key: value[part] for key, value in batch.items()}
        if batching == "wider":
            pad = {key: (0, 0) if key.startswith("decoder") else (0, 5) for key in inputs}
            inputs = {key: torch.nn.functional.pad(value, pad[key]) for key, value in inputs.items()}
        if batching == "alone":
            shown = inputs["attention_mask"][0].bool()
            inputs = {k: v if k.startswith("decoder") else v[:, shown] for k, v in inputs.items()}
        batches.append(reading.taken(inputs, part.start))
    seen = conduct(
        model,
        [spec.parse_study(text) for text in (*STUDIES, *["clamp3"] * (name == "bert"))],
        reading,
        {"prune80": spec.parse("prune80")},
        batches,
    )
    assert not any(each.failed or each.absent for each in seen), seen
    return [each.tables() for each in seen]


@pytest.mark.parametrize("batching", ["alone", "wider"])
@pytest.mark.parametrize("name", ["bert", "roberta", "llama", "mistral", "t5", "bart"])
def test_batches_and_padding_do_not_count(name, batching):
    if batching == "wider" and name == "roberta":
        pytest.skip("its position table ends where the longest text does")
    for one, two in zip(tables_of(name, "together"), tables_of(name, batching), strict=True):
        for method in one:
            assert one[method].keys() == two[method].keys()
            for key, table in one[method].items():
                other = two[method][key]
                assert table.index.equals(other.index), (method, key)
                # rounding moves a value over a bin's edge, one of the values of a row
                np.testing.assert_allclose(table, other, rtol=2e-3, atol=2e-3, err_msg=f"{method} {key}")


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_a_long_text_in_many_tiles_is_one_text(name, monkeypatch):
    from attnbench.engine.serving import tiles

    whole = tables_of(name, "together")
    monkeypatch.setattr(tiles, "TILE_BYTES", dict.fromkeys(tiles.TILE_BYTES, 1))
    cut = tables_of.__wrapped__(name, "together")
    for one, two in zip(whole, cut, strict=True):
        for method in one:
            for key, table in one[method].items():
                np.testing.assert_allclose(table, two[method][key], rtol=2e-3, atol=2e-3)


def test_hidden_states_are_counted_without_padding():
    model = tiny("bert")
    batch = padded(model)
    seen = looked(model, batch, spec.parse_study("distribution"))
    found = looked(model, batch).twins["dense"].found
    table = seen.twins["dense"].tables()
    for layer in range(3):
        values = np.concatenate(
            [
                v.ravel()
                for (what, _, at, _), parts in found.items()
                for v in parts
                if (what, at) == ("hidden", layer)
            ]
        )
        row = table["hidden"].loc["encoder", layer]
        expected = [values.min(), values.max(), values.astype(float).mean(), values.astype(float).std()]
        np.testing.assert_allclose(row[["min", "max", "mean", "sd"]], expected, rtol=1e-5, atol=1e-7)
        assert table["hidden_histogram"].loc["encoder", layer]["share"].sum() == pytest.approx(1)
