"""Training: the loop against one by hand, gates against their formulas, what is put back."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from closeness import LAYER, clear_of_jumps, close
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

import attnbench.engine.serving.tiles
import attnbench.methods.protocol
from attnbench import parse
from attnbench.conformance import tiny
from attnbench.conformance.integrity import difference, snapshot
from attnbench.engine.applicable import require_sites
from attnbench.engine.learning import gates
from attnbench.engine.learning.training import train
from attnbench.errors import NotApplicable, UserError


@pytest.fixture
def model():
    return tiny.build("bert")


@pytest.fixture(scope="module")
def batches():
    return tiny.labelled("bert")


def _fit(model, spec, batches):
    methods = parse(spec)
    for position, method in enumerate(methods):
        if attnbench.methods.protocol.needs_fit(method):
            with attnbench.apply(model, *methods[:position]):
                method.fit(model, batches)
    return methods


def _loss(model, batches, *methods):
    with torch.no_grad(), attnbench.apply(model, *methods):
        return np.mean([model(**batch).loss.item() for batch in batches])


def _undropped(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


# the loop


@pytest.mark.numeric
def test_the_loop_is_adam_with_a_rising_and_falling_rate(batches):
    model, by_hand = _undropped(tiny.build("bert")), _undropped(tiny.build("bert"))
    weights = list(model.classifier.parameters())
    losses = train(model, batches[:1], [{"params": weights, "lr": 0.01}], steps=20)
    first = [np.zeros(p.shape) for p in by_hand.classifier.parameters()]
    second = [np.zeros(p.shape) for p in by_hand.classifier.parameters()]
    for step in range(20):
        rate = 0.01 * ((step + 1) / 2 if step < 1 else (20 - step) / 19)
        loss = by_hand(**batches[0]).loss
        assert losses[step] == pytest.approx(loss.item(), rel=1e-4)
        by_hand.zero_grad()
        loss.backward()
        own = list(by_hand.classifier.parameters())
        norm = np.sqrt(sum((p.grad.double().numpy() ** 2).sum() for p in own))
        for k, parameter in enumerate(own):
            gradient = parameter.grad.double().numpy() * min(1.0, 1.0 / (norm + 1e-6))
            first[k] = 0.9 * first[k] + 0.1 * gradient
            second[k] = 0.999 * second[k] + 0.001 * gradient**2
            corrected = first[k] / (1 - 0.9 ** (step + 1)), second[k] / (1 - 0.999 ** (step + 1))
            parameter.data -= torch.tensor(rate * corrected[0] / (np.sqrt(corrected[1]) + 1e-8)).float()
    for found, expected in zip(weights, by_hand.classifier.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["bert", "llama"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_whole_precision_is_trained_by_torchs_adam_to_the_bit(name, dtype):
    model, by_hand = (_undropped(tiny.build(name)).to(dtype) for _ in range(2))
    (batch, *_) = tiny.labelled(name)
    losses = train(model, [batch], [{"params": list(model.parameters()), "lr": 0.01}], steps=12)
    weights = [weight.requires_grad_() for weight in by_hand.parameters()]
    adam = torch.optim.Adam(weights, lr=0.01)
    for step in range(12):
        adam.param_groups[0]["lr"] = 0.01 * ((step + 1) / 1.2 if step < 1 else (12 - step) / 11.8)
        adam.zero_grad()
        loss = by_hand(**batch).loss
        assert loss.item() == losses[step]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        adam.step()
    assert all(map(torch.equal, model.parameters(), weights))


@pytest.mark.parametrize(
    ("dtype", "rate"), [(torch.bfloat16, 1e-3), (torch.bfloat16, 2e-5), (torch.float16, 1e-4)]
)
def test_half_precision_is_trained_in_float32_copies(dtype, rate, batches):
    model, by_hand = (_undropped(tiny.build("bert")).to(dtype) for _ in range(2))
    weights, own = list(model.classifier.parameters()), list(by_hand.classifier.parameters())
    start = [weight.detach().clone() for weight in weights]
    train(model, batches[:1], [{"params": weights, "lr": rate}], steps=40)
    copies = [weight.detach().double().numpy() for weight in own]
    first, second = ([np.zeros(copy.shape) for copy in copies] for _ in range(2))
    for step in range(40):
        loss = 1024 * by_hand(**batches[0]).loss.float()  # more than float16 loses of its gradients
        found = [gradient.double().numpy() / 1024 for gradient in torch.autograd.grad(loss, own)]
        norm = np.sqrt(sum((gradient**2).sum() for gradient in found))
        now = rate * ((step + 1) / 4 if step < 3 else (40 - step) / 37)
        for k, gradient in enumerate(found):
            gradient = gradient * min(1.0, 1.0 / (norm + 1e-6))
            first[k] = 0.9 * first[k] + 0.1 * gradient
            second[k] = 0.999 * second[k] + 0.001 * gradient**2
            corrected = first[k] / (1 - 0.9 ** (step + 1)), second[k] / (1 - 0.999 ** (step + 1))
            copies[k] -= now * corrected[0] / (np.sqrt(corrected[1]) + 1e-8)
            own[k].data = torch.tensor(copies[k]).to(dtype)
    same = torch.cat([(a == b).flatten() for a, b in zip(weights, own, strict=True)])
    moved = torch.cat([(a != b).flatten() for a, b in zip(weights, start, strict=True)])
    assert same.double().mean() > 0.97 and moved.double().mean() > 0.2
    assert all(weight.dtype == dtype for weight in weights)


class Steep(torch.nn.Module):
    """loss = sum w slope slope, whose gradient is no number of float16 where the slope is."""

    def __init__(self, slope, dtype):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.linspace(0.5, 1, 7, dtype=dtype))
        self.slope = torch.tensor(slope, dtype=dtype)

    def forward(self):
        return SimpleNamespace(loss=(self.weight * self.slope * self.slope).sum())


@pytest.mark.parametrize("slope", [1.6e-4, 1.0, 30.0])
def test_float16_neither_loses_small_gradients_nor_overflows(slope):
    found = []
    for dtype in (torch.float32, torch.float16):
        model = Steep(slope, dtype)
        losses = train(model, [{}], [{"params": [model.weight], "lr": 0.01}], steps=20)
        found.append(model.weight.detach().float())
    assert losses[-1] < losses[0] or slope < 1
    torch.testing.assert_close(found[1], found[0], rtol=2e-3, atol=0)
    assert (found[0] < torch.linspace(0.5, 1, 7) - 0.05).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "spec",
    [
        "finetune40:lr=0.001",
        "mask50+finetune40:lr=0.001",
        "gates:l0:steps=40:lr=0.2",
        "gates:l0:steps=40:lr=0.2:train=all:weights-lr=0.001",
    ],
)
def test_what_is_trained_in_half_precision_is_what_float32_learns(spec, dtype, batches):
    exact, model = (_undropped(tiny.build("bert")) for _ in range(2))
    model.to(dtype)
    before = snapshot(model)
    expected, found = (_fit(each, spec, batches)[-1] for each in (exact, model))
    assert difference(before, snapshot(model)) is None
    np.testing.assert_allclose(found.losses_, expected.losses_, atol=0.06)
    weights = dict(model.named_parameters())
    trained = {name: weight for name, weight in found._weights.items() if expected._weights[name].dim() == 2}
    if "gates" in spec:
        assert [int(alive.sum()) for alive in found.alive_.values()] == [
            int(alive.sum()) for alive in expected.alive_.values()
        ]
    if trained:
        assert np.mean(found.losses_[-5:]) < np.mean(found.losses_[:5]) - 0.1
        # of the embeddings only the rows of the tokens that were seen
        layers = [name for name in trained if "encoder.layer" in name]
        moved = [(trained[name] != weights[name]).double().mean() for name in layers]
        assert min(moved) > 0.5
    with attnbench.apply(model, found):
        assert all(weight.dtype == dtype for weight in model.parameters())
    assert difference(before, snapshot(model)) is None


def test_only_what_is_trained_changes_and_flags_come_back(model, batches):
    model.bert.embeddings.word_embeddings.weight.requires_grad_(False)
    kept = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    before = snapshot(model)
    train(model, batches, [{"params": [model.classifier.bias], "lr": 0.1}], steps=3)
    moved = [name for name, parameter in model.named_parameters() if not torch.equal(parameter, kept[name])]
    assert moved == ["classifier.bias"]
    model.classifier.bias.data = kept["classifier.bias"]
    assert difference(before, snapshot(model)) is None


def test_training_without_labels_is_not_applicable(model, batches):
    bare = [{key: value for key, value in batches[0].items() if key != "labels"}]
    with pytest.raises(NotApplicable, match="needs labels"):
        parse("finetune3")[0].fit(model, bare)


@pytest.mark.parametrize("spec", ["finetune9", "gates:l0:steps=9", "gates:l0:steps=9:train=all"])
def test_training_that_diverges_says_so_and_leaves_the_model_whole(spec, model, batches):
    bad = [{**batches[0], "inputs_embeds": None}]
    handle = model.classifier.register_forward_hook(lambda _, args, out: out * float("nan"))
    before = snapshot(model)
    with pytest.raises(ArithmeticError, match="training diverges: the loss is nan at step 1 of 9"):
        parse(spec)[0].fit(model, bad)
    assert difference(before, snapshot(model)) is None
    handle.remove()


# finetune


def test_finetune_is_in_place_only_while_applied(model, batches):
    before = snapshot(model)
    (method,) = _fit(model, "finetune5:lr=0.01", batches)
    assert difference(before, snapshot(model)) is None
    weight = model.classifier.weight
    own = weight.detach().clone()
    with attnbench.apply(model, method):
        assert not torch.equal(weight, own)
        with attnbench.apply(model, "prune50"):
            assert not torch.equal(weight, own)
    assert difference(before, snapshot(model)) is None
    assert len(method.losses_) == 5 and set(attnbench.methods.protocol.fitted(method)) == {"losses_"}


@pytest.mark.parametrize(
    "name, limits, layers",
    [
        ("bert", ":layers=1", ["bert.encoder.layer.1"]),
        ("bert", ":layers=0-1:on=encoder", ["bert.encoder.layer.0", "bert.encoder.layer.1"]),
        ("bart", ":on=cross:layers=0", ["model.decoder.layers.0"]),
        ("t5", ":on=encoder:layers=1", ["encoder.block.1"]),
        ("gpt2", ":layers=0:layers=9", ["transformer.h.0"]),
    ],
)
def test_finetune_trains_the_layers_it_is_given(name, limits, layers):
    model, data = tiny.build(name), tiny.labelled(name)
    own = {path: weight.detach().clone() for path, weight in model.named_parameters()}
    (method,) = _fit(model, f"finetune4:lr=0.01{limits}", data)
    with attnbench.apply(model, method):
        moved = {path for path, weight in model.named_parameters() if not torch.equal(weight, own[path])}
    inside = {path for path in own if path.startswith(tuple(f"{layer}." for layer in layers))}
    assert moved <= inside and moved >= {path for path in inside if own[path].dim() == 2}
    (whole,) = _fit(model, "finetune4:lr=0.01", data)
    assert whole.losses_[0] == method.losses_[0] and whole.losses_[1:] != method.losses_[1:]


@pytest.mark.parametrize("limits", ["on=cross", "layers=2", "layers=3-9:on=encoder"])
def test_finetune_of_no_layer_is_not_applicable(limits, model, batches):
    with pytest.raises(NotApplicable, match="choose no layer"):
        _fit(model, f"finetune4:{limits}", batches)
    with pytest.raises(NotApplicable, match=limits.partition(":")[0]):
        require_sites(model, parse(f"finetune4:{limits}"))


def test_finetuning_recovers_what_a_mask_loses(model, batches):
    dense = _fit(model, "finetune60:lr=0.003", batches)
    mask, *_ = both = _fit(model, "mask90+finetune60:lr=0.003", batches)
    trained = _loss(model, batches, *dense)
    lost, recovered = _loss(model, batches, mask), _loss(model, batches, *both)
    assert trained < 0.1 < lost and recovered < 0.5 * lost
    # trained under the mask, not beside it
    assert recovered < _loss(model, batches, mask, *dense)


@pytest.mark.parametrize("method", ["logquant3", "prune80", "binary", "hidden-quant8", "uniform"])
def test_gradients_pass_what_is_flat(method, model, batches):
    earlier = parse(method)
    layer = model.bert.encoder.layer[0]
    with attnbench.apply(model, *earlier):
        loss = model(**batches[0]).loss
        value, query = torch.autograd.grad(
            loss, [layer.attention.self.value.weight, layer.attention.self.query.weight], allow_unused=True
        )
    assert value.abs().max() > 0
    assert method == "uniform" or query.abs().max() > 0  # uniform reads no query
    methods = _fit(model, f"{method}+finetune30:lr=0.003", batches)
    assert _loss(model, batches, *methods) < 0.7 * _loss(model, batches, *methods[:1])


def test_weights_of_another_model_are_refused(model, batches):
    (method,) = _fit(model, "finetune1", batches)
    with (
        pytest.raises(ValueError, match="trained on another model"),
        attnbench.apply(tiny.build("gpt2"), method),
    ):
        pass


@pytest.mark.numeric
def test_heads_and_weights_are_realised_together(model, batches):
    methods = _fit(model, "heads50:entropy+finetune5:lr=0.01", batches)
    before = snapshot(model)
    with torch.no_grad():
        with attnbench.apply(model, *methods):
            expected = model(**batches[0]).logits
        with attnbench.realize(model, *methods):
            found = model(**batches[0]).logits
    close(found, expected, layers=2)
    assert difference(before, snapshot(model)) is None


# Hard Concrete gates


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


LOGS = np.linspace(-6, 6, 49)


def test_the_final_gate_and_the_penalty_are_the_papers():
    a = torch.tensor(LOGS)
    np.testing.assert_allclose(gates.final_gate(a), np.clip(_sigmoid(LOGS) * 1.2 - 0.1, 0, 1), atol=1e-12)
    expected = np.clip(_sigmoid(LOGS - 0.33 * np.log(0.1 / 1.1)), 1e-6, 1 - 1e-6)
    np.testing.assert_allclose(gates.openness(a), expected, atol=1e-12)
    assert gates.final_gate(torch.tensor(-2.398)) == 0 and gates.final_gate(torch.tensor(2.398)) == 1
    assert gates.final_gate(torch.tensor(0.0)) == 0.5
    assert gates.openness(torch.tensor(0.0)) == pytest.approx(0.688, abs=5e-4)


def test_sampled_gates_open_as_often_as_the_penalty_says():
    uniform = torch.rand(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for log in (-2.0, -0.7913, 0.0, 1.5):
        drawn = gates.sample_gate(torch.tensor(log, dtype=torch.float64), uniform)
        noise = np.log(uniform.numpy()) - np.log1p(-uniform.numpy())
        expected = np.clip(_sigmoid((noise + log) / 0.33) * 1.2 - 0.1, 0, 1)
        np.testing.assert_allclose(drawn, expected, atol=1e-9)
        assert (drawn > 0).double().mean() == pytest.approx(
            float(gates.openness(torch.tensor(log))), abs=5e-3
        )
        # the rule at the end: open where a gate of one is likelier than a gate of zero
        more = int((drawn == 1).sum()) - int((drawn == 0).sum())
        assert abs(more) < 2000 if log == 0 else (log > 0) == (more > 0)


@pytest.mark.numeric
def test_one_sample_serves_a_whole_forward_pass(model, monkeypatch):
    monkeypatch.setitem(attnbench.engine.serving.tiles.TILE_BYTES, "cpu", 1)  # many tiles a pass
    logs = {("encoder", 0): torch.tensor([0.3, -1.0, 2.0, 0.0]), ("encoder", 1): torch.zeros(4)}
    hard = gates.HardConcrete(dict.fromkeys(logs, 4), seed=0, device="cpu")
    for key, log in hard.log_alpha.items():
        log.data.copy_(logs[key])
    before, after, passes = [], [], []
    inputs = tiny.batch("bert", tiny.samples("bert", (12, 12, 9)))
    first = attnbench.watch(model, context=lambda c, site: before.append((site.layer, c.clone())))
    last = attnbench.watch(model, context=lambda c, site: after.append(c.clone()))
    rows = attnbench.watch(model, probs=lambda p, site: None)  # what is on scores is cut into rows
    with torch.no_grad(), rows, first, hard.sampled(model), last:
        for _ in range(2):
            before.clear(), after.clear()
            model(**inputs)
            passes.append([(layer, x, y) for (layer, x), y in zip(before, after, strict=True)])
    draw = torch.Generator().manual_seed(0)
    for tiles_of_pass in passes:
        assert len(tiles_of_pass) > 20
        for layer, log in ((layer, log.double().numpy()) for (_, layer), log in logs.items()):
            u = torch.rand(4, generator=draw).double().numpy()
            gate = np.clip(_sigmoid((np.log(u) - np.log(1 - u) + log) / 0.33) * 1.2 - 0.1, 0, 1)
            assert len({*gate.round(3)}) > 1
            for _, x, y in (tile for tile in tiles_of_pass if tile[0] == layer):
                np.testing.assert_allclose(y.numpy(), x.numpy() * gate[:, None, None], atol=1e-5)


@pytest.mark.parametrize("spec", ["gates:l0:penalty=0.25", "gates:l0:penalty=0.25:layers=1"])
def test_the_penalty_is_a_sum_over_heads(spec, model, batches, monkeypatch):
    asked = []

    def once(model, batches, groups, extra_loss, **_):
        asked.append(extra_loss())
        for group in groups:
            for log in group["params"]:
                log.data.fill_(-0.7913)
        asked.append(extra_loss())
        return []

    monkeypatch.setattr("attnbench.engine.learning.training.train", once)
    (method,) = _fit(model, spec, batches)
    heads = 4 if "layers" in spec else 8
    assert sum(len(alive) for alive in method.alive_.values()) == heads
    assert asked[0].item() == pytest.approx(0.25 * heads * _sigmoid(np.log(11) + 0.33 * np.log(11)), rel=1e-5)
    assert asked[1].item() == pytest.approx(0.25 * heads * 0.5, rel=1e-4)


@pytest.mark.numeric
@pytest.mark.parametrize("spec", ["logquant3", "linquant3:mid:pruned", "quantile3", "binary"])
def test_a_quantisers_gradient_is_a_straight_through_models(spec, model):
    def straight_through(module, query, key, value, mask, scaling=None, **_):
        probs = (query @ key.mT * scaling + (0 if mask is None else mask)).softmax(-1)
        real = [probs.shape[-1]] * len(probs) if mask is None else (mask[:, 0, 0] == 0).sum(-1).tolist()
        rounded = torch.zeros_like(probs)  # padding, right of the real tokens, attends to nothing
        for example, n in enumerate(real):
            block = probs.detach()[example : example + 1, :, :n, :n]
            rounded[example : example + 1, :, :n, :n] = attnbench.transform(spec, block)
        return ((probs + (rounded - probs).detach()) @ value).transpose(1, 2).contiguous(), None

    weights = dict(model.bert.encoder.named_parameters())

    def three(seed):
        return {key: value[:3] for key, value in tiny.labelled("bert", seed)[0].items()}

    inputs = clear_of_jumps(model, spec, three)
    with attnbench.apply(model, spec):
        found = torch.autograd.grad(model(**inputs).loss, list(weights.values()))
    AttentionInterface.register("straight-through", straight_through)
    AttentionMaskInterface.register("straight-through", eager_mask)
    try:
        model.set_attn_implementation("straight-through")
        expected = torch.autograd.grad(model(**inputs).loss, list(weights.values()))
    finally:
        for interface in (AttentionInterface, AttentionMaskInterface):
            del interface._global_mapping["straight-through"]
    # two layers forward and two back; one bound for all, for a key's bias has no gradient but rounding
    flat = [torch.cat([gradient.flatten() for gradient in each]) for each in (found, expected)]
    close(*flat, roundings=4 * LAYER)
    assert max(gradient.abs().max() for gradient in expected) > 1e-2


def _open(method):
    return int(sum(alive.sum() for alive in method.alive_.values()))


def test_fewer_heads_stay_as_the_penalty_grows(model, batches):
    before = snapshot(model)
    kept = []
    for penalty in (0, 0.003, 0.01, 0.03, 0.1, 0.3, 1):
        (method,) = _fit(model, f"gates:l0:penalty={penalty}:steps=80:lr=0.2", batches)
        kept.append(_open(method))
        assert all(set(alive.tolist()) <= {0.0, 1.0} for alive in method.alive_.values())
        for key, gate in method.gates_.items():
            assert torch.equal(method.alive_[key] > 0, gate > 0.5)
    assert kept == sorted(kept, reverse=True)
    assert kept[-1] == 0 and kept[0] > 4 and len(set(kept)) > 3, kept
    assert difference(before, snapshot(model)) is None


def test_gates_keep_the_heads_that_matter(batches):
    model = tiny.build("bert")
    # a head whose output is thrown away is never worth a penalty
    for layer in model.bert.encoder.layer:
        layer.attention.output.dense.weight.data[:, 8:16] = 0
        layer.attention.output.dense.weight.data[:, 24:] = 0
    (method,) = _fit(model, "gates:l0:penalty=0.003:steps=80:lr=0.2", batches)
    for alive in method.alive_.values():
        assert alive[1] == alive[3] == 0
    assert _open(method) >= 2


def test_gates_act_on_the_kinds_they_are_given():
    model, data = tiny.build("bart"), tiny.labelled("bart")
    (method,) = _fit(model, "gates:l0:on=cross:on=decoder:penalty=9:steps=30:lr=0.5", data)
    assert {kind for kind, _ in method.alive_} == {"cross", "decoder"} and _open(method) == 0


def test_gates_train_the_weights_along_and_put_them_back(model, batches):
    before = snapshot(model)
    (method,) = _fit(model, "gates:l0:train=all:weights-lr=0.003:penalty=0.03:steps=60:lr=0.2", batches)
    (alone,) = _fit(model, "gates:l0:penalty=0.03:steps=60:lr=0.2", batches)
    assert difference(before, snapshot(model)) is None
    assert _loss(model, batches, method) < _loss(model, batches, alone)
    assert not alone._weights


def test_gates_are_cut_out_as_heads_are(model, batches):
    (method,) = _fit(model, "gates:l0:penalty=0.03:steps=60:lr=0.2:train=all", batches)
    assert 0 < _open(method) < 8
    with torch.no_grad():
        with attnbench.apply(model, method):
            expected = model(**batches[0]).logits
        with attnbench.realize(model, method):
            found = model(**batches[0]).logits
    close(found, expected, layers=2)


@pytest.mark.parametrize(
    "spec",
    [
        "gates:l0:train=some",
        "gates:l0:penalty=-1",
        "gates:l0:steps=0",
        "finetune0",
        "finetune",
        "finetune5:lr=0",
    ],
)
def test_settings_out_of_range_are_refused(spec):
    with pytest.raises(UserError):
        parse(spec)
