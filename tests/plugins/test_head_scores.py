"""Every criterion of head importance against numpy on eager attention, one example and head at a time."""

from __future__ import annotations

import contextlib
import copy
from fractions import Fraction
from unittest import mock

import numpy as np
import pytest
import torch
from closeness import close
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import padded, tiny
from torch import nn

import attnbench
from attnbench import parse
from attnbench.engine.places.routing import implementation
from attnbench.engine.places.sites import discover
from attnbench.engine.realised import slicing
from attnbench.engine.serving import tiles
from attnbench.errors import NotApplicable, UserError

HEADS, DIM = 4, 8


@pytest.fixture(scope="module")
def model(tiny_folder):
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(tiny_folder, attn_implementation="eager").eval()


@pytest.fixture(scope="module")
def batches():
    generator = torch.Generator().manual_seed(5)
    made = []
    for lengths in ([9, 5, 7, 9], [4, 6], [1, 8, 8, 3, 12], [2, 5, 5, 9, 6, 7, 11, 4, 3]):
        ids = torch.randint(4, 60, (len(lengths), max(lengths)), generator=generator)
        mask = torch.tensor([[1] * n + [0] * (max(lengths) - n) for n in lengths])
        labels = torch.randint(0, 2, (len(lengths),), generator=generator)
        made.append({"input_ids": ids * mask, "attention_mask": mask, "labels": labels})
    return made


@pytest.fixture(scope="module")
def eager(model, batches):
    """Every example by itself: its attentions (layers, heads, n, n) and contexts (layers, n, heads, dim)."""
    found = []
    projections = [layer.attention.output.dense for layer in model.bert.encoder.layer]
    for batch in batches:
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
            contexts = []
            handles = [
                p.register_forward_pre_hook(lambda _, args, kept=contexts: kept.append(args[0]))
                for p in projections
            ]
            with torch.no_grad():
                output = model(input_ids=ids[mask.bool()][None], output_attentions=True)
            for handle in handles:
                handle.remove()
            attentions = torch.cat(output.attentions).double().numpy()
            split = torch.cat(contexts).double().numpy()
            found.append((attentions, split.reshape(*split.shape[:2], HEADS, DIM)))
    return found


def _mean_over_rows(eager, score, least=1):
    table = np.zeros((2, HEADS))
    for layer in range(2):
        for head in range(HEADS):
            rows = [row for attentions, _ in eager for row in attentions[layer, head] if len(row) >= least]
            table[layer, head] = np.mean([score(row) for row in rows])
    return table


def _l1(eager):
    return np.mean([np.abs(attentions).sum((2, 3)) for attentions, _ in eager], axis=0)


def _l2(eager):
    return np.mean([np.sqrt((attentions**2).sum((2, 3))) for attentions, _ in eager], axis=0)


def _output(eager):
    tokens = np.concatenate([contexts for _, contexts in eager], axis=1)  # (layers, tokens, heads, dim)
    return tokens.var(axis=1).mean(-1)


def _entropy(row):
    return sum(p * np.log(p) for p in row if p > 0) / np.log(len(row))


REFERENCES = {
    "entropy": lambda eager: _mean_over_rows(eager, _entropy, least=2),
    "variance": lambda eager: _mean_over_rows(
        eager, lambda r: r.var() / ((len(r) - 1) / len(r) ** 2), least=2
    ),
    "confidence": lambda eager: _mean_over_rows(eager, max),
    "l2": _l2,
    "output": _output,
}


def _scores(spec, model, batches):
    (method,) = parse(spec)
    scores = method.importance(model, batches)
    return np.stack([scores["encoder", layer].numpy() for layer in range(2)])


@pytest.mark.numeric
@pytest.mark.parametrize("criterion", REFERENCES)
def test_a_criterion_is_its_formula(criterion, model, batches, eager):
    found = _scores(f"heads50:{criterion}", model, batches)
    close(found, REFERENCES[criterion](eager), layers=2)


@pytest.mark.numeric
def test_l1_is_the_number_of_queries_and_fails_saying_so(model, batches, eager):
    found = _scores("heads50:l1", model, batches)
    close(found, _l1(eager), layers=2)
    (method,) = parse("heads50:l1")
    with pytest.raises(ValueError, match="heads:l1 cannot tell the heads apart: all score"):
        method.fit(model, batches)


@pytest.mark.parametrize("name", ["t5", "marian"])
def test_l1_fails_where_only_the_kinds_of_attention_differ(name):
    pair = tiny(name)
    batch = padded(pair, examples=4, tokens=11)
    (method,) = parse("heads50:l1")
    scores = method.importance(pair, [batch])
    assert abs(scores["encoder", 0][0] - scores["cross", 0][0]) > 1  # unequal lengths, which rank no head
    with pytest.raises(
        ValueError, match=r"cannot tell the heads apart: all score .* in cross and .* in encoder"
    ):
        method.fit(pair, [batch])


TIES = {  # scores by (kind, layer), and whether some kind tells its heads apart
    "one kind": ({("encoder", 0): [1.0, 1.0], ("encoder", 1): [1.0, 1.0]}, False),
    "between layers": ({("encoder", 0): [1.0, 1.0], ("encoder", 1): [2.0, 2.0]}, True),
    "between kinds": ({("encoder", 0): [1.0, 1.0], ("decoder", 0): [2.0, 2.0]}, False),
    "in one of the kinds": ({("encoder", 0): [1.0, 1.0], ("decoder", 0): [2.0, 3.0]}, True),
    "one head": ({("encoder", 0): [1.0]}, True),
    "one head a kind": ({("encoder", 0): [1.0], ("decoder", 0): [2.0]}, True),
}


@pytest.mark.parametrize("case", TIES)
@pytest.mark.parametrize(
    ("dtype", "noise"), [(torch.float32, 0.0), (torch.float32, 1e-7), (torch.bfloat16, 3e-3)]
)
def test_a_criterion_fails_where_every_kind_ties_within_itself(case, dtype, noise):
    table, told = TIES[case]
    draw = torch.Generator().manual_seed(0)
    scores = {
        key: torch.tensor(row) * (1 + noise * torch.rand(len(row), generator=draw))
        for key, row in table.items()
    }
    (method,) = parse("heads50:entropy")
    method.importance = lambda *_: scores
    model = nn.Linear(1, 1).to(dtype)
    model.dtype = dtype
    with contextlib.nullcontext() if told else pytest.raises(ValueError, match="cannot tell"):
        method.fit(model, [])


def test_criteria_are_summed_in_float32_of_a_model_in_bfloat16(batches, tiny_folder):
    from transformers import AutoModelForSequenceClassification

    exact = AutoModelForSequenceClassification.from_pretrained(tiny_folder).eval()
    coarse = copy.deepcopy(exact).bfloat16()
    length = min(200, exact.config.max_position_embeddings - 4)
    long = torch.randint(4, 60, (2, length), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": long, "attention_mask": torch.ones_like(long), "labels": torch.tensor([0, 1])}
    seen = {}
    with (
        torch.no_grad(),
        attnbench.watch(coarse, probs=lambda p, s: seen.setdefault(s.layer, []).append(p.clone())),
    ):
        coarse(**batch)
    for layer, tiles_ in seen.items():
        assert all(tile.dtype == torch.bfloat16 for tile in tiles_)
        expected = np.mean(
            [tile.double().square().sum((2, 3)).sqrt().mean(0).numpy() for tile in tiles_], axis=0
        )
        found = parse("heads50:l2")[0].importance(coarse, [batch])["encoder", layer].numpy()
        close(found, expected, layers=1)


def test_in_bfloat16_l1_ranks_no_rounding_noise():
    from attnbench.inputs.settings import Settings
    from attnbench.matrix.bench import Bench

    bench = Bench("bert", "pocket-sentiment", Settings(limit=4, dtype="bfloat16"))  # texts of all lengths
    (method,) = parse("heads50:l1")
    with pytest.raises(ValueError, match="cannot tell the heads apart"):
        method.fit(bench.model, bench.calibration())


def test_in_bfloat16_other_criteria_rank(batches, tiny_folder):
    from transformers import AutoModelForSequenceClassification

    coarse = AutoModelForSequenceClassification.from_pretrained(tiny_folder).eval().bfloat16()
    for criterion in ("entropy", "l2", "confidence", "output"):
        (method,) = parse(f"heads50:{criterion}")
        method.fit(coarse, batches)
        assert sum(int(alive.sum()) for alive in method.alive_.values()) == HEADS


@pytest.mark.parametrize(("spec", "asked", "removed"), [
    ("heads50:entropy", 4, 4), ("heads50:entropy:min-per-layer=4", 4, 0),
    ("heads75:l2:min-per-layer=2", 6, 4), ("heads50:l2:per-layer:steps=2", 4, 4),
])  # fmt: skip
def test_how_many_heads_were_asked_for_and_removed_is_learned(spec, asked, removed, model, batches):
    (method,) = parse(spec)
    method.fit(model, batches)
    assert method.removed_ == {"asked": asked, "removed": removed}
    assert sum(int((alive == 0).sum()) for alive in method.alive_.values()) == removed


@pytest.mark.numeric
def test_l1_tells_heads_apart_where_rows_do_not_sum_to_one(model, batches, eager):
    total = np.zeros((2, HEADS))
    with torch.no_grad(), attnbench.apply(model, "prune80"):
        for batch in batches:
            seen = []
            with attnbench.watch(
                model, probs=lambda p, s, kept=seen: kept.append((s.layer, p.sum((0, 2, 3))))
            ):
                model(**batch)
            for layer, sums in seen:
                total[layer] += sums.double().numpy()
    (method,) = parse("heads50:l1")
    with attnbench.apply(model, "prune80"):
        method.fit(model, batches)
    found = np.stack([method.scores_["encoder", layer].numpy() for layer in range(2)])
    close(found, total / len(eager), layers=2)
    assert np.ptp(found) > 0.1


@pytest.mark.numeric
@pytest.mark.parametrize("criterion", [*REFERENCES, "l1", "gradient"])
def test_scores_depend_neither_on_batches_nor_on_tiles(criterion, model, batches, monkeypatch):
    spec = f"heads50:{criterion}"
    whole, layers = _scores(spec, model, batches), 4 if criterion == "gradient" else 2  # there and back
    alone = [
        {key: value[k : k + 1] for key, value in batch.items()}
        for batch in batches
        for k in range(len(batch["labels"]))
    ]
    close(_scores(spec, model, alone), whole, layers=layers)
    monkeypatch.setitem(tiles.TILE_BYTES, "cpu", 100)  # a few queries a tile
    offsets = set()
    with attnbench.watch(model, probs=lambda _, site: offsets.add(site.offset)):
        close(_scores(spec, model, batches), whole, layers=layers)
    assert len(offsets) > 2


@pytest.mark.numeric
def test_scores_hold_on_causal_attention():
    causal = tiny("gpt2")
    batch = padded(causal, examples=3, tokens=9)
    with torch.no_grad():
        attentions = []
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
            seen = []
            with attnbench.watch(
                causal, probs=lambda p, s, kept=seen: kept.append(p[0].double().numpy().copy())
            ):
                causal(input_ids=ids[mask.bool()][None])
            attentions.append(seen)
    expected = np.zeros((2, HEADS))
    for layer in range(2):
        for head in range(HEADS):
            rows = [row[: q + 1] for seen in attentions for q, row in enumerate(seen[layer][head])]
            expected[layer, head] = np.mean([_entropy(row) for row in rows if len(row) > 1])
    scores = parse("heads50:entropy")[0].importance(causal, [batch])
    found = np.stack([scores["decoder", layer].numpy() for layer in range(2)])
    close(found, expected, layers=2)


def _alone(batch):
    """Each example by itself, without its padding."""
    for example, mask in enumerate(batch["attention_mask"].bool()):
        one = {key: value[example : example + 1] for key, value in batch.items()}
        yield one | {key: one[key][:, mask] for key in ("input_ids", "attention_mask")}


def _eager_by_kind(model, batch):
    """Return eager attention, (kind, layer) -> one (heads, queries, keys) an example, the future cut off."""
    names = {"encoder_attentions": "encoder", "decoder_attentions": "decoder", "cross_attentions": "cross"}
    if not model.config.is_encoder_decoder:
        names = {"attentions": discover(model)[0].kind}
    found = {}
    with torch.no_grad(), implementation(model, "eager"):
        for one in _alone(batch):
            output = model(**one, output_attentions=True)
            for name, kind in names.items():
                for layer, attention in enumerate(output[name]):
                    found.setdefault((kind, layer), []).append(attention[0].double().numpy())
    return found


def _rows_of_kind(kind, matrix):
    return [row[: q + 1] if kind == "decoder" else row for q, row in enumerate(matrix)]


@pytest.mark.numeric
@pytest.mark.parametrize("name", ["distilbert", "gpt2", "llama", "t5", "bart"])
def test_criteria_are_their_formulas_on_every_kind(name, monkeypatch):
    model = tiny(name)
    batch = padded(model, examples=4, tokens=11)
    attentions = _eager_by_kind(model, batch)
    by_row = {
        "entropy": (2, _entropy),
        "variance": (2, lambda row: row.var() * len(row) ** 2 / (len(row) - 1)),
        "confidence": (1, max),
    }
    for size in (1 << 20, 100):
        monkeypatch.setitem(tiles.TILE_BYTES, "cpu", size)
        for criterion in ("entropy", "variance", "confidence", "l2"):
            scores = parse(f"heads50:{criterion}")[0].importance(model, [batch])
            assert scores.keys() == attentions.keys()
            for key, examples in attentions.items():
                for head in range(HEADS):
                    if criterion == "l2":
                        expected = np.mean([np.linalg.norm(example[head]) for example in examples])
                    else:
                        least, score = by_row[criterion]
                        every = [row for one in examples for row in _rows_of_kind(key[0], one[head])]
                        expected = np.mean([score(row) for row in every if len(row) >= least])
                    close(scores[key][head], expected, layers=len(attentions))


def _joined(examples):
    """One padded batch of examples that stand alone, their labels -100 where there is nothing."""

    def filled(key, value):
        rows = [one[key] for one in examples]
        if rows[0].dim() == 1 or key.startswith("decoder"):
            return torch.cat(rows)
        longest = max(row.shape[1] for row in rows)
        return torch.cat([nn.functional.pad(row, (0, longest - row.shape[1]), value=value) for row in rows])

    assert len({one["input_ids"].shape for one in examples}) > 1
    return [{key: filled(key, -100 if key == "labels" else 0) for key in examples[0]}]


@pytest.mark.numeric
@pytest.mark.parametrize("name", ["distilbert", "gpt2", "llama", "t5", "marian"])
def test_the_gradient_is_what_an_output_projection_gets_on_every_kind(name):
    model = copy.deepcopy(tiny(name))
    model.loss_type = None if model.config.is_encoder_decoder else getattr(model, "loss_type", None)
    sites, draw = discover(model), torch.Generator().manual_seed(4)
    examples = list(_alone(padded(model, examples=3, tokens=9)))
    for one in examples:
        if sites[0].kind == "decoder":
            one["labels"] = one["input_ids"]
        else:
            shape = (1, 5) if model.config.is_encoder_decoder else (1,)
            one["labels"] = torch.randint(0, 2, shape, generator=draw)
    expected = {(site.kind, site.layer): np.zeros(HEADS) for site in sites}
    for one in examples:
        contexts = {}

        def keep(key, contexts=contexts):
            def hook(_, args):
                args[0].retain_grad()
                contexts[key] = args[0]

            return hook

        handles = [
            slicing.find(model, site.path).output.register_forward_pre_hook(keep((site.kind, site.layer)))
            for site in sites
        ]
        terms = one["labels"].numel() - (sites[0].kind == "decoder")  # what the loss is the mean of
        with implementation(model, "eager"):
            (model(**one).loss * terms).backward()
        for handle in handles:
            handle.remove()
        for key, context in contexts.items():
            product = (context * context.grad)[0].detach().double().numpy()  # (tokens, heads * head_dim)
            expected[key] += np.abs(product.reshape(len(product), HEADS, -1).sum(-1)).sum(0)
    model.zero_grad()
    scores = parse("heads50:gradient")[0].importance(model, examples)
    assert scores.keys() == expected.keys()
    for key, sums in expected.items():
        close(scores[key], sums / np.linalg.norm(sums), layers=2 * len(sites))
    together = _joined(examples)
    for key, joined in parse("heads50:gradient")[0].importance(model, together).items():
        close(joined, scores[key], layers=2 * len(sites))
    kind = sites[-1].kind
    chosen = parse(f"heads50:gradient:on={kind}:layers=1")[0].importance(model, examples)
    assert list(chosen) == [(kind, 1)]
    close(chosen[kind, 1], scores[kind, 1], layers=2 * len(sites))


def _removed_by_hand(tables, percent, per_layer, least):
    """Take heads away one step after the other, as the fields say; a table a step, (layers, heads)."""
    layers, heads = tables[0].shape
    gone, score = set(), {}
    for step, table in enumerate(tables, start=1):
        score |= {
            (layer, head): table[layer, head]
            for layer in range(layers)
            for head in range(heads)
            if (layer, head) not in gone
        }
        share = Fraction(percent) * step / len(tables) / 100
        for head in sorted(set(score) - gone, key=lambda head: (score[head], head)):
            own = sum(other[0] == head[0] for other in gone)
            budget = int(heads * share) if per_layer else int(layers * heads * share)
            used = own if per_layer else len(gone)
            if used < budget and heads - own > least:
                gone.add(head)
    return gone


@settings(max_examples=150, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 4)),
    percent=st.sampled_from([0, 10, 25, 29, 50, 57, 80, 99, 100]),
    per_layer=st.booleans(),
    least=st.integers(0, 3),
    seed=st.integers(0, 10**6),
)
def test_which_heads_go_is_a_greedy_choice_by_hand(shape, percent, per_layer, least, seed):
    layers, heads, steps = shape
    draw = np.random.default_rng(seed)
    tables = [draw.permutation(layers * heads).reshape(layers, heads) + 1.0 for _ in range(steps)]
    spec = f"heads{percent}:entropy:min-per-layer={least}:steps={steps}" + ":per-layer" * per_layer
    (method,) = parse(spec)
    waiting = iter([{("encoder", k): torch.tensor(row) for k, row in enumerate(table)} for table in tables])
    method.importance = lambda *_: next(waiting)
    with mock.patch("attnbench.apply", lambda *_: contextlib.nullcontext()):
        method.fit(None, [])
    found = {
        (layer, head)
        for (_, layer), alive in method.alive_.items()
        for head, stays in enumerate(alive.tolist())
        if not stays
    }
    assert found == _removed_by_hand(tables, percent, per_layer, least)


def _told_apart(labels):
    """Two examples a label: what a probe reads is what the test put there."""
    ids = torch.tensor([[5 + label, 40 + k % 7, 30 + k // 7] for k, label in enumerate(labels)])
    return [{"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.tensor(labels)}]


@pytest.mark.numeric
def test_the_probe_is_a_logistic_regressions_accuracy_on_a_fifth(model):
    import zlib

    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    batches = _told_apart([k % 2 for k in range(40)])
    found = _scores("heads50:probe", model, batches)
    contexts = []
    handles = [
        layer.attention.output.dense.register_forward_pre_hook(lambda _, args: contexts.append(args[0]))
        for layer in model.bert.encoder.layer
    ]
    with torch.no_grad():
        model(input_ids=batches[0]["input_ids"])
    for handle in handles:
        handle.remove()
    keys = [zlib.crc32(np.array(row, dtype="<i8").tobytes()) for row in batches[0]["input_ids"].tolist()]
    order = np.argsort(keys, kind="stable")
    dev, train = order[:8], order[8:]
    labels = batches[0]["labels"].numpy()
    for layer in range(2):
        features = contexts[layer].double().mean(1).numpy().reshape(40, HEADS, DIM)
        for head in range(HEADS):
            probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
            probe.fit(features[train, head], labels[train])
            close(found[layer, head], probe.score(features[dev, head], labels[dev]), roundings=4)
    split = [{key: value[k : k + 7] for key, value in batches[0].items()} for k in range(0, 40, 7)]
    close(_scores("heads50:probe", model, split), found, roundings=4)


def test_the_probe_reads_long_examples_whole_after_another_method(model, batches, monkeypatch):
    long = _told_apart([k % 2 for k in range(40)])
    draw = torch.Generator().manual_seed(2)
    long[0]["input_ids"] = torch.randint(4, 60, (40, 20), generator=draw)
    long[0]["attention_mask"] = torch.ones(40, 20, dtype=torch.long)

    def features():
        seen = []
        probe = mock.patch(
            "attnbench_plugins.head_labels._accuracy", lambda read, *_: seen.append(read) or 0.0
        )
        with probe, attnbench.apply(model, "prune50"):
            parse("heads50:probe")[0].importance(model, long)
        return np.stack(seen)

    whole = features()
    monkeypatch.setitem(tiles.TILE_BYTES, "cpu", 100)
    close(features(), whole, layers=2)


@pytest.mark.parametrize("criterion", ["probe", "gradient"])
def test_a_criterion_without_labels_is_not_applicable(criterion, model, batches):
    bare = [{key: value for key, value in batch.items() if key != "labels"} for batch in batches]
    with pytest.raises(NotApplicable, match=criterion if criterion == "probe" else "labels"):
        parse(f"heads50:{criterion}")[0].fit(model, bare)


@pytest.mark.parametrize(
    "batches",
    [
        _told_apart([0, 1, 0]),
        _told_apart([0] * 20),
        [{**_told_apart([0])[0], "start_positions": torch.zeros(1, dtype=torch.long)}],
    ],
    ids=["few", "one class", "one"],
)
def test_the_probe_needs_examples_of_two_classes(batches, model):
    with pytest.raises(NotApplicable, match="two classes"):
        parse("heads50:probe")[0].fit(model, batches)


def test_a_head_without_a_finite_score_fails(model, batches):
    (method,) = parse("heads50:entropy")
    method.importance = lambda *_: {("encoder", 0): torch.tensor([1.0, float("nan"), 2.0, 3.0])}
    with pytest.raises(ValueError, match="no finite score"):
        method.fit(model, batches)


# heads:fixed


def _silent(model, spec, batch):
    """Which heads put zeros into the output projection: {(layer, head)}."""
    seen = []
    handles = [
        layer.attention.output.dense.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
        for layer in model.bert.encoder.layer
    ]
    with torch.no_grad(), attnbench.apply(model, spec):
        model(**batch)
    for handle in handles:
        handle.remove()
    blocks = [context.reshape(*context.shape[:2], HEADS, DIM) for context in seen]
    return {(k, h) for k, b in enumerate(blocks) for h in range(HEADS) if not b[:, :, h].any()}


FIXED = {
    "heads:fixed:off=0.1": {(0, 1)},
    "heads:fixed:off=0.1:off=1.3:off=1.0": {(0, 1), (1, 3), (1, 0)},
    "heads:fixed:off=1": {(1, h) for h in range(HEADS)},
    "heads:fixed:off=1:off=1.2": {(1, h) for h in range(HEADS)},
    "heads:fixed:layers=0:off=0.2": {(0, 2)},
    "heads:fixed:off=0.1+heads:fixed:off=0.3": {(0, 1), (0, 3)},
}


@pytest.mark.parametrize(("spec", "closed"), FIXED.items())
def test_fixed_closes_what_it_names(spec, closed, model, batches):
    assert _silent(model, spec, batches[0]) == closed
    assert attnbench.format(parse(spec)) == spec


OUTSIDE = {
    "heads:fixed:off=0.4": "layer 0 has heads 0 to 3",
    "heads:fixed:off=2": "no layer 2 there, only 0 to 1",
    "heads:fixed:off=0.0:off=7.1": "no layer 7",
    "heads:fixed:layers=0:off=1.0": "no layer 1 there, only 0 to 0",
}


@pytest.mark.parametrize(("spec", "says"), OUTSIDE.items())
def test_fixed_outside_the_model_is_an_error(spec, says, model, batches):
    with pytest.raises(ValueError, match=says), attnbench.apply(model, spec):
        pass
    assert not _silent(model, "threshold0", batches[0])  # nothing is left behind


@pytest.mark.parametrize(
    "spec", ["heads:fixed", "heads:fixed:off=a", "heads:fixed:off=1.x", "heads:fixed:off=-1"]
)
def test_fixed_is_refused_when_it_names_no_head(spec):
    with pytest.raises(UserError, match="heads:fixed"):
        parse(spec)


def test_fixed_acts_on_the_kinds_it_is_given():
    pair = tiny("bart")
    batch, zeros = padded(pair, examples=2), {}
    watching = attnbench.watch(
        pair, context=lambda c, s: zeros.__setitem__((s.kind, s.layer), not c[:, 1].any())
    )
    with torch.no_grad(), attnbench.apply(pair, "heads:fixed:off=0.1:on=cross"), watching:
        pair(**batch)
    assert {key for key, empty in zeros.items() if empty} == {("cross", 0)}
