"""Every pattern against a slow reference: numpy, float64, eager attention of one text alone, head by head."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from closeness import close
from statsmodels.stats.multitest import multipletests
from tiny_models import padded, tiny

from attnbench import watch
from attnbench_plugins.studies.patterns import relations
from attnbench_plugins.studies.patterns.copies import Copies, repeated
from attnbench_plugins.studies.patterns.largest import NONE, largest
from attnbench_plugins.studies.patterns.needles import Needle, Retrieved
from attnbench_plugins.studies.patterns.places import Places, Rows
from attnbench_plugins.studies.patterns.rarest import Rarest, rarest

LARGEST = {  # a row, the keys that count, the one with the largest weight
    "one": ([0.1, 0.7, 0.2], None, 1),
    "two alike": ([0.4, 0.4, 0.2], None, NONE),
    "uniform": ([0.25] * 4, None, NONE),
    "nothing left": ([0.0] * 3, None, NONE),
    "the largest does not count": ([0.7, 0.1, 0.2], [False, True, True], 2),
    "as large as one that does not count": ([0.4, 0.4, 0.2], [False, True, True], 1),
    "none counts": ([0.7, 0.1, 0.2], [False] * 3, NONE),
    "one key": ([1.0], None, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", LARGEST)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_one_largest(name, dtype):
    row, keys, expected = LARGEST[name]
    found, _ = largest(torch.tensor(row, dtype=dtype), None if keys is None else torch.tensor(keys))
    assert int(found) == expected


def reference(attentions, specials, separators, causal):
    """Reckon every column for one site: (texts) of (heads, n, n), (n,) and (n,), a query at a time."""
    heads = len(attentions[0])
    found = {}
    for head in range(heads):
        means = {name: [] for name in (
            "confidence", "confidence_all", "first", "first_weight", "separator", "separator_weight", "self",
            "self_weight", "sink",
        )}  # fmt: skip
        hits, possible = Counter(), Counter()
        for text, special, parting in zip(attentions, specials, separators, strict=True):
            for q, row in enumerate(text[head]):
                seen = list(range(q + 1 if causal else len(row)))
                means["confidence_all"].append(max(row[k] for k in seen))
                if q >= 16:
                    means["sink"].append(row[0])
                if special[q] or len(seen) < 2:
                    continue
                plain = [k for k in seen if not special[k]]
                if len(plain) > 1:
                    means["confidence"].append(max(row[k] for k in plain))
                best = max(row)
                at = [k for k in seen if row[k] == best]
                top = at[0] if len(at) == 1 and best > 0 else None
                means["first"].append(top == 0)
                means["first_weight"].append(row[0])
                means["self"].append(top == q)
                means["self_weight"].append(row[q])
                if parting.any():
                    means["separator"].append(top is not None and bool(parting[top]))
                    means["separator_weight"].append(sum(row[k] for k in seen if parting[k]))
                possible.update(k - q for k in seen)
                if top is not None:
                    hits[top - q] += 1
        for name, values in means.items():
            found.setdefault(name, []).append(np.mean(values) if values else np.nan)
        half = [d for d in possible if 2 * possible[d] >= len(means["first"])]
        best = max(sorted(half, key=lambda d: (abs(d), d)), key=lambda d: hits[d])
        found.setdefault("offset", []).append(best)
        found.setdefault("positional", []).append(hits[best] / possible[best])
    return found


def alone(model, ids):
    """Return plain transformers' attentions of one text: a layer each, (heads, n, n) in float64."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    with torch.no_grad():
        output = model(input_ids=ids[None], output_attentions=True)
    model.set_attn_implementation(before)
    return [layer[0].double().numpy() for layer in output.attentions]


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "llama"])
@pytest.mark.parametrize("tile", [None, 5])
def test_places_are_what_the_slow_reference_says(name, tile, monkeypatch):
    from attnbench.engine.serving import tiles

    if tile:  # a long text comes in ranges of its queries
        monkeypatch.setattr(tiles, "_rows", lambda row_bytes, budget: tile)
    model, causal = tiny(name), name in ("gpt2", "llama")
    batch = padded(model, "right", examples=5, tokens=25)
    texts = [ids[mask.bool()] for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]
    marks = torch.Generator().manual_seed(3)
    special = [torch.rand(len(each), generator=marks) < 0.2 for each in texts]
    parting = [mark & (torch.rand(len(mark), generator=marks) < 0.5) for mark in special]
    places = Places()
    for k, text in enumerate(texts):

        def see(probs, site, k=k):
            queries, keys = probs.shape[2:]
            rows = Rows(
                special[k][None, site.offset : site.offset + queries],
                special[k][None, :keys],
                parting[k][None, :keys],
                site.visible,
                site.offset,
            )
            places.add((site.kind, site.layer), probs, rows)

        with torch.no_grad(), watch(model, probs=see):
            model(input_ids=text[None])
    columns = places.columns()
    layers = list(zip(*(alone(model, text) for text in texts), strict=True))
    for layer, attentions in enumerate(layers):
        expected = reference(attentions, [s.numpy() for s in special], [s.numpy() for s in parting], causal)
        key = ("decoder" if causal else "encoder", layer)
        # a mean over the texts that have separators alone
        for column, values in expected.items():
            close(columns[column][key], np.array(values, float), layers=layer + 1, says=f"{column} {key}")


def test_places_of_rows_that_a_method_emptied():
    probs = torch.tensor([[[[0.0, 0, 0], [0.5, 0.5, 0], [0, 0, 0.9]]]])
    none = torch.zeros(1, 3, dtype=torch.bool)
    places = Places()
    places.add(("encoder", 0), probs, Rows(none, none, none))
    found = {name: float(values["encoder", 0][0]) for name, values in places.columns().items()}
    assert found["self"] == found["positional"] == pytest.approx(1 / 3) and found["offset"] == 0
    assert found["confidence"] == found["confidence_all"] == pytest.approx(1.4 / 3)
    assert found["first"] == 0 and found["first_weight"] == pytest.approx(0.5 / 3)
    assert "separator" not in found and "sink" not in found


COUNTS = np.array([*range(1000, 400, -1), 5, 4, 3, 3])  # ids 0 to 599 are common, from 600 on rare
RAREST = {  # ids, how many -> their places
    "rarest": ([0, 600, 7], 1, {1}),
    "two of three": ([0, 600, 601], 2, {1, 2}),
    "two, as rare as each other": ([602, 603, 7], 2, {0, 1}),
    "as rare as another": ([602, 603, 7], 1, set()),
    "twice in the text": ([601, 601, 7], 1, set()),
    "as rare as the third": ([600, 602, 603, 9], 2, {1, 2}),
    "none rare": ([0, 7, 30], 1, set()),
    "the 500th": ([0, 499], 1, set()),
    "the 501st": ([0, 500], 1, {1}),
    "one token": ([600], 1, set()),
}  # fmt: skip


@pytest.mark.parametrize("name", RAREST)
def test_the_rarest(name):
    ids, most, expected = RAREST[name]
    special = np.array([True, *[False] * len(ids), True])
    found = rarest(np.array([0, *ids, 603]), ~special, COUNTS, most)
    assert found == {place + 1 for place in expected}


@pytest.mark.parametrize("cut", [6, 4, 1])
def test_heads_that_point_at_the_rarest(cut):
    special = np.array([True, False, False, False, False, True])
    texts = [  # ids, and where each of three heads looks: only of plain tokens does it count
        (np.array([0, 9, 600, 7, 601, 0]), (4, 2, 0)),  # rarest 4, then 2
        (np.array([0, 600, 8, 9, 10, 0]), (1, 2, 0)),  # rarest 1, then 4
        (np.array([0, 600, 8, 600, 10, 0]), (1, 3, 0)),  # twice the rarest: only the two are known
    ]
    found = Rarest()
    for number, (ids, looks) in enumerate(texts):
        probs = torch.zeros(1, 3, 6, 6)
        for head, key in enumerate(looks):
            probs[0, head, 1:5, key] = 0.3
            probs[0, head, [0, 5], 3] = 1  # special tokens ask, and do not count
        for start in range(0, 6, cut):  # whole, and in tiles
            asks = torch.from_numpy(~special)[None, start : start + cut]
            tile, last = probs[:, :, start : start + cut], start + cut >= 6
            found.add(("encoder", 0), tile, asks, {number: (ids, ~special)}, last)
    table = found.table(COUNTS)
    one, two = (table.xs(target, level="target") for target in (1, 2))
    assert one["share"].tolist() == [1, 0, 0] and one["texts"].tolist() == [2] * 3
    assert two["share"].tolist() == pytest.approx([1, 2 / 3, 0]) and two["texts"].tolist() == [3] * 3
    assert one["chance"].unique() == 1 / 4 and two["chance"].unique() == 1 / 2
    # at place 3 (or -1) and at 0 (or -4) of the plain tokens, each in one text; of two, place 0 in two texts
    assert one["at_place"].unique() == 1 / 2 and two["at_place"].unique() == pytest.approx(2 / 3)
    assert one["place"].unique() == 0 and two["place"].unique() == 0


@pytest.mark.parametrize("number", [1, 2, 7, 300])
def test_holm_is_that_of_statsmodels(number):
    p = np.random.default_rng(number).choice([*np.random.default_rng(0).random(50) ** 4, 0, 1], number)
    np.testing.assert_allclose(relations.holm(p), multipletests(p, method="holm")[1], rtol=1e-12)


def counted(gold, weights, offsets, key=("encoder", 0)):
    found = relations.Relations()
    for arcs in gold:
        found.add(key, weights(arcs), arcs, offsets)
    return found


def test_relations_of_a_hand_made_file():
    """Two heads on 120 sentences of one arc: one always right, one where the offset is."""
    kind = ("nsubj", "dependent-head")
    gold = [[relations.Arc(kind, 0, 1 + n % 3)] for n in range(120)]
    offsets = relations.best_offsets(gold)
    assert offsets == {kind: 1}

    def weights(arcs):
        made = torch.zeros(2, 4, 4)
        made[0, 0, arcs[0].target] = made[1, 0, 1] = 1
        return made

    table = relations.compared(counted(gold, weights, offsets), counted(gold, weights, offsets), offsets)
    right, fixed = table.loc["encoder", 0, 0, "nsubj", "dependent-head"], table.iloc[1]
    assert right["share"] == 1 and right["by_offset"] == pytest.approx(1 / 3) and right["arcs"] == 120
    assert right["is_chosen"] == right["beats"] == 1 and right["points"] == pytest.approx(2 / 3)
    # 80 arcs right that the offset has wrong: z = 80 / sqrt(80)
    assert right["p"] == pytest.approx(1.87e-19, rel=0.01) and right["holm"] == pytest.approx(2 * right["p"])
    assert fixed["points"] == 0 and fixed["p"] == 1 and fixed["beats"] == fixed["is_chosen"] == 0


def test_the_head_is_chosen_on_the_one_file_and_reported_on_the_other():
    kind = ("obj", "head-dependent")
    gold = [[relations.Arc(kind, 0, 1 + n % 2)] for n in range(100)]
    first = counted(gold, lambda arcs: torch.eye(3)[[arcs[0].target, 0]][:, None], {kind: 1})
    other = counted(gold, lambda arcs: torch.eye(3)[[0, arcs[0].target]][:, None], {kind: 1})
    table = relations.compared(first, other, {kind: 1})
    assert table["chosen"].tolist() == [1, 0] and table["share"].tolist() == [0, 1]
    assert table["is_chosen"].tolist() == [1, 0] and table["beats"].tolist() == [0, 1]


def test_relations_of_fewer_arcs_are_not_reported():
    kind = ("obj", "head-dependent")
    gold = [[relations.Arc(kind, 0, 1)] for _ in range(100)]
    few, many = (counted(gold[:n], lambda _: torch.eye(4)[None], {kind: 1}) for n in (99, 100))
    assert relations.compared(few, many, {kind: 1}).empty and relations.compared(many, few, {kind: 1}).empty
    assert len(relations.compared(many, many, {kind: 1})) == 1


def test_arcs_of_one_sentence_count_together():
    """A sentence of 100 arcs is one pair: its z is 1, not 10."""
    kind = ("amod", "dependent-head")
    arcs = [relations.Arc(kind, q, q + 1) for q in range(100)]
    found = counted([arcs], lambda _: torch.eye(102).roll(1, 1)[None], {kind: -1})
    table = relations.compared(found, found, {kind: -1})
    assert table["p"].iloc[0] == pytest.approx(0.1587, abs=1e-4) and table["share"].iloc[0] == 1


@pytest.mark.parametrize("cut", [11, 4, 1])
def test_copies_are_means_of_the_second_half(cut):
    length, begin = 5, 1
    probs = np.random.default_rng(2).dirichlet(np.ones(11), size=(2, 3, 11))  # (batch, heads, queries, keys)
    copies = Copies()
    for start in range(0, 11, cut):
        part = torch.from_numpy(probs[:, :, start : start + cut])
        copies.add(("decoder", 1), part, length, begin, start)
    found = copies.columns()
    for name, back in {"previous": 1, "duplicate": 5, "induction": 4}.items():
        expected = [
            np.mean([probs[b, h, q, q - back] for b in range(2) for q in range(6, 11)]) for h in range(3)
        ]
        np.testing.assert_allclose(found[name]["decoder", 1], expected, rtol=1e-12)


def test_a_repeated_sequence_repeats():
    ids = repeated(range(10, 50), 20, seed=0, number=3, begin=[1])
    assert ids[0] == 1 and ids[1:21] == ids[21:] and len(set(ids[1:21])) == 20
    assert ids == repeated(range(10, 50), 20, 0, 3, [1]) != repeated(range(10, 50), 20, 0, 4, [1])
    assert ids != repeated(range(10, 50), 20, 1, 3, [1])


@pytest.mark.parametrize("cut", [8, 3, 1])
def test_retrieved_is_the_share_of_the_answer(cut):
    ids = np.array([5, 6, 7, 8, 9, 6, 7, 8])  # the needle is 6 7 8 at 1 to 3, the answer 6 7 8 at the end
    probs = torch.zeros(1, 4, 8, 8)
    for query, key in ((4, 1), (5, 2), (6, 3)):
        probs[0, 0, query, key] = 1  # all three
        probs[0, 1, query, key - (query == 5)] = 1  # the second one wrong
        probs[0, 2, query, 5] = 1  # outside the needle
    probs[0, 3, [4, 5]] = 0.125  # no largest
    found = Retrieved()
    for start in range(0, 8, cut):
        found.add(("decoder", 0), probs[:, :, start : start + cut], [ids], [Needle((1, 4), (5, 8))], start)
    assert found.columns()["retrieval"]["decoder", 0].tolist() == pytest.approx([1, 2 / 3, 0, 0])
