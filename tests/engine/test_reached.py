"""Every attention of a model is a site, or the model is refused by name; layers are the model's own."""

from __future__ import annotations

import copy
import types

import pytest
import torch
from architectures import ARCHITECTURES, SERVED, asked, tiny
from torch import nn
from torch.nn import functional

import attnbench
from attnbench import Method, apply
from attnbench.engine.places import sites
from attnbench.engine.places.kept import kept
from attnbench.engine.places.routing import configs
from attnbench.engine.serving.applied import numbered
from attnbench.errors import NotApplicable, UserError

KINDS = ("encoder", "decoder", "cross")
MIXES = {"mobilebert", "qwen3-next", "lfm2", "bamba", "zamba2", "jamba"}  # tokens, beside attention


class Nothing(Method):
    """Attend to nothing."""

    name = "nothing"

    def probs(self, probs, site):
        return torch.zeros_like(probs)


def batch_of(model, tokens=9):
    draw = torch.Generator().manual_seed(0)
    batch = {"input_ids": torch.randint(3, 97, (1, tokens), generator=draw)}
    if model.config.is_encoder_decoder:
        batch["decoder_input_ids"] = torch.randint(3, 97, (1, 5), generator=draw)
    return batch


def body(model, batch):
    with torch.no_grad():
        return model.base_model(**batch)[0]


@pytest.mark.parametrize("name", SERVED)
def test_layers_are_the_models_own(name):
    found = sites.discover(tiny(name))
    assert {kind: "".join(str(site.layer) for site in found if site.kind == kind) for kind in KINDS} == {
        kind: getattr(ARCHITECTURES[name], kind) for kind in KINDS
    }
    assert len({(site.kind, site.layer) for site in found}) == len(found)


@pytest.mark.parametrize("name", [name for name in SERVED if name not in MIXES])
def test_where_nothing_is_attended_to_no_token_knows_of_another(name):
    """No attention is left out: one that no method reaches would still tell the first token of the last."""
    model = tiny(name)
    batch = batch_of(model)
    other = {key: value.clone() for key, value in batch.items()}
    other["input_ids"][:, -3:] = (other["input_ids"][:, -3:] + 20) % 90 + 3
    first = slice(0, 5)
    causal = not ARCHITECTURES[name].encoder
    if causal:  # what comes before must not be known either
        other["input_ids"], first = batch["input_ids"].clone(), slice(3, None)
        other["input_ids"][:, :3] = (other["input_ids"][:, :3] + 20) % 90 + 3
    assert not torch.allclose(body(model, batch)[:, first], body(model, other)[:, first], atol=1e-4)
    with apply(model, Nothing()) as applied:
        torch.testing.assert_close(
            body(model, batch)[:, first], body(model, other)[:, first], atol=1e-6, rtol=1e-6
        )
    assert applied.hit == applied.expected == len(sites.discover(model))


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if ARCHITECTURES[name].refused])
def test_what_is_reached_in_part_is_refused_by_name(name):
    model = tiny(name)
    before = [type(module) for module in model.modules()], [config.to_dict() for config in configs(model)]
    refused = ARCHITECTURES[name].refused
    who = "GptOssAttention" if name == "gpt-oss" else type(model).__name__  # one call has too much
    wanted = f"{who} .*{refused}"
    with pytest.raises(UserError, match=wanted) as said, apply(model, "prune50"):
        pass
    assert len(str(said.value)) < 400 and "\n" not in str(said.value)
    assert before == ([type(module) for module in model.modules()], [c.to_dict() for c in configs(model)])


@pytest.mark.parametrize("name", SERVED)
def test_a_probe_leaves_the_model_as_it_was(name):
    model = copy.deepcopy(tiny(name))
    before = [
        (id(module), {k: v for k, v in vars(module).items() if not k.startswith("_")})
        for module in model.modules()
    ]
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    sites.discover(model)
    assert before == [
        (id(module), {k: v for k, v in vars(module).items() if not k.startswith("_")})
        for module in model.modules()
    ]
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


# attention that stands beside what is reached


class Own(nn.Module):
    """Attend as `how` does, whatever the interface says."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.q, self.k = nn.Linear(32, 32), nn.Linear(32, 32)

    def forward(self, hidden):
        return self.how(self, hidden)


def by_hand(own, x):
    return (own.q(x) @ own.k(x).mT / 5).softmax(-1) @ x


def by_einsum(own, x):
    scores = torch.einsum("bqd,bkd->bqk", own.q(x), own.k(x)).masked_fill(torch.eye(x.shape[1]) > 0, -9.0)
    return torch.bmm(functional.softmax(scores.float(), dim=-1), x)


def in_chunks(own, x):
    chunk = x.unflatten(1, (-1, 2))
    return (torch.matmul(own.q(chunk), own.k(chunk).transpose(-1, -2)).softmax(-1) @ chunk).flatten(1, 2)


def fused(own, x):
    return functional.scaled_dot_product_attention(own.q(x), own.k(x), x)


def learned(own, x):
    return functional.scaled_dot_product_attention(own.q.weight.expand(len(x), -1, -1)[:, : x.shape[1]], x, x)


def routed(own, x):
    return x * own.q(x)[..., :8].softmax(-1).amax(-1, keepdim=True)


def linear(own, x):
    return own.q(x).softmax(-1) @ (own.k(x).softmax(1).mT @ x)


def remembered(own, x):
    return (own.q(x) @ own.k.weight.T).softmax(-1) @ own.k.weight


def recurrent(own, x):
    return own.q((own.q(x) @ own.k(x).mT).tril() @ x).softmax(-1)


@pytest.mark.parametrize(
    "how", [by_hand, by_einsum, in_chunks, fused, learned, routed, linear, remembered, recurrent]
)
@pytest.mark.parametrize("name", ["bert", "mpnet"])
def test_an_attention_beside_those_reached_is_found_whoever_computes_it(name, how):
    model = copy.deepcopy(tiny(name))
    output = model.base_model.encoder.layer[1].output
    torch.manual_seed(0)
    output.extra, forward = Own(how), type(output).forward
    output.forward = types.MethodType(
        lambda self, hidden, given: forward(self, hidden, given) + self.extra(given), output
    )
    if how in (by_hand, by_einsum, in_chunks, fused):
        with pytest.raises(
            UserError, match=r"in part only: .*encoder.layer.1.output.extra \(Own\) attends by"
        ):
            sites.discover(model)
    else:
        assert len(sites.discover(model)) == 3


# weights of scores, made in other words than a softmax of a product
WRITTEN = {
    "log_softmax": lambda q, k: functional.log_softmax(q @ k.mT, -1).exp(),
    "written out": lambda q, k: (q @ k.mT).exp() / (q @ k.mT).exp().sum(-1, keepdim=True),
    "sigmoid": lambda q, k: torch.sigmoid(q @ k.mT),
    "distances": lambda q, k: torch.softmax(-torch.cdist(q, k), -1),
    "mm": lambda q, k: torch.stack([torch.mm(*pair) for pair in zip(q, k.mT, strict=True)]).softmax(-1),
    "inner": lambda q, k: torch.stack([torch.inner(*pair) for pair in zip(q, k, strict=True)]).softmax(-1),
    "tensordot": lambda q, k: torch.stack(
        [torch.tensordot(*pair, dims=([1], [1])) for pair in zip(q, k, strict=True)]
    ).softmax(-1),
    "aten": lambda q, k: torch.ops.aten._softmax(torch.ops.aten.bmm(q, k.mT), -1, False),
    "an overload": lambda q, k: torch.ops.aten._softmax.default(q @ k.mT, -1, False),
}


@pytest.mark.parametrize("words", WRITTEN)
def test_an_attention_is_found_however_it_is_written(words):
    model = copy.deepcopy(tiny("bert"))
    output = model.base_model.encoder.layer[1].output
    output.extra, forward = Own(lambda own, x: WRITTEN[words](own.q(x), own.k(x)) @ x), type(output).forward
    output.forward = types.MethodType(
        lambda self, hidden, given: forward(self, hidden, given) + self.extra(given), output
    )
    with pytest.raises(UserError, match=r"in part only: .*encoder.layer.1.output.extra \(Own\) attends by"):
        sites.discover(model)


# texts of other lengths than the probe's


def bigbird():
    return copy.deepcopy(tiny("bigbird-sparse"))


def test_an_attention_that_is_exchanged_for_short_texts_is_put_back():
    model = bigbird()
    short, long = batch_of(model, 9), batch_of(model, 768)
    with kept(model) as exchanged:
        body(model, short)
        assert model.base_model.attention_type == "original_full"
    assert model.base_model.attention_type == "block_sparse"
    assert len(exchanged) == 3 and exchanged[0] == "bert.encoder.layer.0.attention.self"
    with kept(model) as exchanged:
        body(model, long)
    assert exchanged == []


def test_where_all_texts_are_short_a_model_is_what_it_is_for_them():
    model, plain = bigbird(), bigbird()
    plain.base_model.set_attention_type("original_full")
    sites.settle(model, [batch_of(model, 20)])
    assert [site.layer for site in sites.discover(model)] == [0, 1, 2]
    sites.require_reached(model, [batch_of(model, 20)])
    torch.testing.assert_close(body(model, batch_of(model, 20)), body(plain, batch_of(plain, 20)))
    assert asked("bigbird-sparse", model).difference < 1e-5


def test_where_a_text_is_long_it_is_refused():
    model = bigbird()
    sites.settle(model, [batch_of(model, 768)])
    assert model.base_model.attention_type == "block_sparse"
    with pytest.raises(UserError, match="exchanges its attention"):
        sites.require_reached(model, [batch_of(model, 768), batch_of(model, 9)])


def test_a_path_that_only_long_texts_take_is_found_at_their_length():
    model = copy.deepcopy(tiny("bert"))
    layer = model.base_model.encoder.layer[2]
    forward = type(layer).forward
    torch.manual_seed(0)
    layer.extra = Own(by_hand)

    def longer(self, hidden, *args, **kwargs):
        return forward(self, self.extra(hidden) if hidden.shape[1] > 16 else hidden, *args, **kwargs)

    layer.forward = types.MethodType(longer, layer)
    assert len(sites.discover(model)) == 3
    sites.require_reached(model, [batch_of(model, 16)])
    with pytest.raises(UserError, match=r"layer.2.extra \(Own\) attends by itself"):
        sites.require_reached(model, [batch_of(model, 17)])


# what layers mean


@pytest.mark.parametrize(
    "name, layer", [("lfm2", 2), ("bamba", 5), ("qwen3-next", 2), ("diffllama", 1), ("jamba", 3)]
)
def test_layers_says_which_layer_changes(name, layer):
    """Of plain transformers' hidden states those after the layer change, and none before."""
    model = tiny(name)
    batch = batch_of(model, 12)
    with torch.no_grad():
        dense = model(**batch, output_hidden_states=True).hidden_states
        with apply(model, f"prune80:layers={layer}") as applied:
            pruned = model(**batch, output_hidden_states=True).hidden_states
    assert applied.expected == applied.hit == 1
    same = [torch.equal(a, b) for a, b in zip(dense, pruned, strict=True)]
    assert same == [k <= layer for k in range(len(dense))]


def test_a_module_that_attends_twice_in_a_layer_is_one_place():
    model = tiny("diffllama")
    with apply(model, "prune50") as applied:
        body(model, batch_of(model))
    assert applied.hits == {f"model.layers.{layer}.self_attn": 2 for layer in range(3)}


def test_several_modules_of_a_kind_in_a_layer_are_counted():
    config = copy.deepcopy(tiny("albert").config)
    config.inner_group_num, config.num_hidden_layers = 2, 2
    from transformers import AlbertModel

    found = sites.discover(AlbertModel(config))
    assert [site.layer for site in found] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "name, spec, said",
    [
        ("bert", "prune80:layers=9", r"no attention at layers=9\. It attends at encoder 0-2"),
        ("lfm2", "prune80:layers=1", r"no attention at layers=1\. It attends at decoder 2, 5"),
        ("t5", "logquant3+prune80:on=cross:layers=2", r"at on=cross layers=2\. It attends at .*cross 0-1"),
        ("gpt2", "hidden-quant8:layers=7", "no layer begins at layers=7"),
    ],
)
def test_what_reaches_nothing_is_an_error_in_python(name, spec, said):
    with pytest.raises(NotApplicable, match=said), apply(tiny(name), spec):
        pass


@pytest.mark.parametrize("off, said", [("1.0", "no layer 1 there"), ("2.9", "layer 2 has heads 0 to 3")])
def test_heads_are_named_by_the_models_layers(off, said):
    with pytest.raises(ValueError, match=said), apply(tiny("lfm2"), f"heads:fixed:off={off}"):
        pass
    with apply(tiny("lfm2"), "heads:fixed:off=5.1"):
        pass


def test_numbers_are_joined():
    assert numbered([5, 0, 1, 2, 2, 7, 8]) == "0-2, 5, 7-8"


def test_a_run_refuses_a_model_that_is_reached_in_part(tmp_path, monkeypatch):
    from architectures import tokenizer

    monkeypatch.chdir(tmp_path)
    tiny("longt5").save_pretrained("tiny")
    tokenizer("$A </s>").save_pretrained("tiny")
    with pytest.raises(UserError, match=r"LongT5.* is reached in part only: encoder\.block\.0"):
        attnbench.run("./tiny", "prune50", "pocket-translation", records="records", limit=4)
    assert not list(tmp_path.rglob("records/**/*.json"))
