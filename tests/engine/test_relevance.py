"""LRP: what is conserved, explicit rules in numpy, LXT's own numbers, and refusals instead of wrong ones."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import tapped_models
import torch
import transformers
from tiny_models import DECODERS, ENCODERS, PAIRS, ZOO, padded, tiny
from torch import nn

from attnbench import NotApplicable, layer_of, relevance
from attnbench.engine.places.sites import discover
from attnbench.engine.relevance.explained import top_logit as top


def biasless(name):
    """Copy a tiny model in float64 whose biases are zero, so that all relevance has a place to go."""
    model = copy.deepcopy(tiny(name)).double()
    with torch.no_grad():
        for path, weight in model.named_parameters():
            if path.endswith("bias") and weight.dim() == 1:
                weight.zero_()
    return model


@pytest.mark.parametrize("name", ZOO)
def test_cp_conserves_the_logit_at_the_tokens_of_a_model_without_biases(name):
    model, batch = biasless(name), padded(tiny(name))
    found = relevance(model, batch)
    with torch.no_grad():
        logits = top(model(**batch), batch, name in DECODERS)
    known = logits.isfinite()  # Gemma's own attention has NaN beside padding in float64
    assert known.all() or name == "gemma"
    np.testing.assert_allclose(found.explained[known], logits[known], atol=1e-5)  # norms are in float32
    total = sum(tokens.sum(1) for tokens in found.tokens.values())
    np.testing.assert_allclose(total, found.explained, atol=1e-5)
    assert set(found.tokens) == ({"encoder", "decoder"} if name in PAIRS else {ZOO[name][2][0].split()[0]})
    assert list(found.heads) == [(kind, int(layer)) for kind, layer in map(str.split, ZOO[name][2])]


RESIDUAL = {  # where a layer's input and its attention's output are added: what reads the sum
    "bert": "attention.output.LayerNorm",
    "llama": "post_attention_layernorm",
    "gpt2": "ln_2",
}


@pytest.mark.parametrize("name", RESIDUAL)
def test_cp_conserves_the_logit_at_every_layer_the_residual_included(name):
    model, batch = biasless(name), padded(tiny(name))
    kind = ZOO[name][2][0].split()[0]
    inputs, sums = {}, {}
    handles = []
    for site in discover(model):
        layer = model.get_submodule(layer_of(model, site.path))

        def enter(_, args, at=site.layer):
            inputs[at] = args[0].detach()

        def add(_, args, at=site.layer):
            both = args[0].detach()
            args[0].register_hook(lambda g: sums.update({at: (both, g)}))

        handles.append(layer.register_forward_pre_hook(enter))
        handles.append(layer.get_submodule(RESIDUAL[name]).register_forward_pre_hook(add))
    try:
        found = relevance(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    for layer, (both, gradient) in sums.items():
        past = (inputs[layer] * gradient).sum((1, 2))
        np.testing.assert_allclose((both * gradient).sum((1, 2)), found.explained, atol=1e-5)
        np.testing.assert_allclose(past + found.heads[kind, layer].sum(1), found.explained, atol=1e-5)
    assert len(sums) == len(ZOO[name][2])


# --- explicit rules, in numpy, of one BERT: relevances are passed on as such, no gradient anywhere


def linear(x, weight, bias, r):
    out = x @ weight.T + bias
    return np.einsum("ti,oi,to->ti", x, weight, r / out)


def normed(x, norm, r):
    weight, bias, eps = norm.weight.numpy(), norm.bias.numpy(), norm.eps
    centred = x - x.mean(-1, keepdims=True)
    spread = np.sqrt((centred**2).mean(-1, keepdims=True) + eps)
    out = weight * centred / spread + bias
    at_centred = r * (weight * centred / spread) / out
    away = np.eye(x.shape[1]) - 1 / x.shape[1]
    return linear(x, away, 0, at_centred)


def attended(q, k, v, r, rule):
    """Of one head: (tokens, dim) each."""
    logits = q @ k.T / np.sqrt(q.shape[1])
    probs = np.exp(logits - logits.max(-1, keepdims=True))
    probs /= probs.sum(-1, keepdims=True)
    parts = probs[:, :, None] * v[None] * (r / (probs @ v))[:, None]  # (queries, keys, dim)
    if rule == "cp":
        return 0 * q, 0 * k, parts.sum(0)
    at_probs = parts.sum(2) / 2
    at_logits = logits * (at_probs - probs * at_probs.sum(-1, keepdims=True))
    pairs = q[:, None] * k[None] / np.sqrt(q.shape[1]) * (at_logits / (2 * logits))[:, :, None]
    return pairs.sum(1), pairs.sum(0), parts.sum(0) / 2


def explicit(model, hidden, rule):
    """Return the parts of tokens and heads in the top logit, from the first layer's input (tokens, 32)."""

    def of(module):
        return module.weight.numpy(), module.bias.numpy()

    def gelu(x):
        return nn.functional.gelu(torch.from_numpy(x)).numpy()

    def forward(x, module):
        return x @ module.weight.numpy().T + module.bias.numpy()

    def norm(x, module):
        return module(torch.from_numpy(x)).numpy()

    kept, states = [], hidden
    for layer in model.bert.encoder.layer:
        own, out = layer.attention.self, layer.attention.output
        qkv = [forward(states, each) for each in (own.query, own.key, own.value)]
        context = np.concatenate(
            [
                torch.softmax(torch.from_numpy(q @ k.T / np.sqrt(8)), -1).numpy() @ v
                for q, k, v in zip(*(np.split(each, 4, 1) for each in qkv), strict=True)
            ],
            1,
        )
        update = forward(context, out.dense)
        middle = norm(states + update, out.LayerNorm)
        wide = forward(middle, layer.intermediate.dense)
        second = forward(gelu(wide), layer.output.dense)
        kept.append((states, qkv, context, update, middle, wide, second))
        states = norm(middle + second, layer.output.LayerNorm)
    pooled = forward(states[:1], model.bert.pooler.dense)
    logits = forward(np.tanh(pooled), model.classifier)
    r = np.where(np.arange(logits.shape[1]) == logits.argmax(), logits, 0)
    r = linear(np.tanh(pooled), *of(model.classifier), r)
    first = linear(states[:1], *of(model.bert.pooler.dense), r)
    r = np.concatenate([first, 0 * states[1:]])
    heads = []
    for layer, (states, qkv, context, update, middle, wide, second) in zip(
        reversed(model.bert.encoder.layer), reversed(kept), strict=True
    ):
        own, out = layer.attention.self, layer.attention.output
        r = normed(middle + second, layer.output.LayerNorm, r)
        inner = linear(gelu(wide), *of(layer.output.dense), r * second / (middle + second))
        r = r * middle / (middle + second) + linear(middle, *of(layer.intermediate.dense), inner)
        r = normed(states + update, out.LayerNorm, r)
        at_context = linear(context, *of(out.dense), r * update / (states + update))
        heads.append([part.sum() for part in np.split(at_context, 4, 1)])
        r = r * states / (states + update)
        each = zip(*(np.split(x, 4, 1) for x in (*qkv, at_context)), strict=True)
        found = zip(*(attended(*parts, rule) for parts in each), strict=True)
        for module, part in zip((own.query, own.key, own.value), found, strict=True):
            r = r + linear(states, *of(module), np.concatenate(part, 1))
    return logits.max(), r.sum(1), np.array(heads[::-1])


@pytest.mark.parametrize("rule", ["cp", "attn"])
def test_the_rules_are_those_of_the_papers_written_slowly(rule):
    model = copy.deepcopy(tiny("bert")).double()
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.requires_grad_(False)
            if weight.dim() == 1:  # biases and norms that do something
                weight.add_(torch.randn(weight.shape, generator=draw, dtype=torch.float64) * 0.1)
        ids = torch.tensor([[5, 9, 3, 17, 20]])
        hidden = model.bert.embeddings(ids)[0].numpy()
        logit, tokens, heads = explicit(model, hidden, rule)
    found = relevance(model, {"input_ids": ids}, rule)
    np.testing.assert_allclose(found.explained, [logit], rtol=1e-9)
    np.testing.assert_allclose(found.tokens["encoder"][0], tokens, rtol=1e-6, atol=1e-8)
    for layer in range(3):
        np.testing.assert_allclose(found.heads["encoder", layer][0], heads[layer], rtol=1e-6, atol=1e-8)


LXT = {  # rachtibat/LRP-eXplains-Transformers f043441, its `attnLRP` and `cp_LRP` on the models below
    ("llama", "attn"): [0.6437408, 0.12396064, 0.306521, 0.13037019, -0.11263633, 0.27911614],
    ("llama", "cp"): [1.80432537, -0.02213228, 0.48443899, 0.14148507, -0.57844808, 0.59390874],
    ("gpt2", "attn"): [0.3362243, 0.20340582, 0.28312965, 0.23243141, 0.2240073, -0.02654302],
    ("gpt2", "cp"): [0.4752443, 0.4769143, 0.36377974, 0.37455642, 0.38157022, -0.04426194],
}


def formed(name):
    """Build a model whose weights are a formula, which any library can fill in."""
    special = {"vocab_size": 23, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    if name == "llama":
        config = transformers.LlamaConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            intermediate_size=24, max_position_embeddings=32, **special,
        )  # fmt: skip
        model = transformers.LlamaForCausalLM(config)
    else:
        config = transformers.GPT2Config(
            n_embd=16, n_layer=2, n_head=4, n_positions=32, tie_word_embeddings=False, **special
        )
        model = transformers.GPT2LMHeadModel(config)
    model = model.double().eval()
    with torch.no_grad():
        for place, (path, weight) in enumerate(sorted(model.named_parameters())):
            k = torch.arange(weight.numel(), dtype=torch.float64)
            wave = torch.sin(0.7 * k + 1.3 * place + 0.01 * k * k).view(weight.shape)
            if weight.dim() == 2:
                weight.copy_(0.4 * wave)
            else:
                weight.copy_(1 + 0.3 * wave if path.endswith("weight") else 0.1 * wave)
    return model


@pytest.mark.parametrize("name, rule", LXT)
def test_lxt_gives_the_same_numbers(name, rule):
    found = relevance(formed(name), {"input_ids": torch.tensor([[5, 9, 3, 17, 20, 11]])}, rule)
    np.testing.assert_allclose(found.tokens["decoder"][0], LXT[name, rule], atol=2e-7)


@pytest.mark.parametrize("rule", ["cp", "attn", "gradient"])
@pytest.mark.parametrize(
    "name, side",
    [("bert", "right"), ("modernbert", "right"), ("llama", "left"), ("t5", "left"), ("bart", "right")],
)
def test_batch_and_padding_do_not_count(name, side, rule):
    model, batch = copy.deepcopy(tiny(name)).double(), padded(tiny(name), side, examples=5)
    together = relevance(model, batch, rule)
    for at in range(5):
        shown = batch["attention_mask"][at].bool()
        one = {
            key: value[at : at + 1] if key.startswith("decoder") else value[at : at + 1, shown]
            for key, value in batch.items()
        }
        alone = relevance(model, one, rule)
        np.testing.assert_allclose(together.explained[at], alone.explained[0], atol=1e-5)
        for key, heads in alone.heads.items():
            np.testing.assert_allclose(together.heads[key][at], heads[0], atol=1e-5)
        for kind, tokens in alone.tokens.items():
            mine = together.tokens[kind][at]
            cut = (
                mine[shown]
                if (kind == "encoder") == (name not in DECODERS) and len(mine) == len(shown)
                else mine
            )
            np.testing.assert_allclose(cut[: tokens.shape[1]], tokens[0], atol=1e-5)
            np.testing.assert_allclose(mine.sum(), tokens.sum(), atol=1e-5)


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_of_a_head_the_plain_gradient_is_attention_times_its_gradient(name):
    model = copy.deepcopy(tiny(name)).double()
    model.set_attn_implementation("eager")
    ids = {"input_ids": torch.tensor([[5, 9, 3, 17, 20]])}
    output = model(**ids, output_attentions=True)
    slopes = torch.autograd.grad(top(output, ids, name == "llama").sum(), output.attentions)
    model.set_attn_implementation("sdpa")
    found = relevance(model, ids, "gradient")
    for layer, (probs, slope) in enumerate(zip(output.attentions, slopes, strict=True)):
        expected = (probs * slope).sum((2, 3)).detach()
        np.testing.assert_allclose(found.heads[ZOO[name][2][0].split()[0], layer], expected, atol=1e-6)


def test_labels_choose_the_positions_and_are_not_read():
    model = copy.deepcopy(tiny("llama")).double()
    ids = torch.tensor([[5, 9, 3, 17, 20, 11]])
    labels = torch.full_like(ids, -100)
    labels[0, 3] = 17  # the third token predicts it
    found = relevance(model, {"input_ids": ids, "labels": labels})
    with torch.no_grad():
        expected = model(input_ids=ids).logits[0, 2].max()
    np.testing.assert_allclose(found.explained, [expected], rtol=1e-6)
    assert not found.tokens["decoder"][0, 3:].any()


@pytest.mark.parametrize(
    "kind", ["BertForQuestionAnswering", "BertForMaskedLM", "BertForTokenClassification"]
)
def test_readers_of_spans_and_of_tokens_are_explained_too(kind):
    torch.manual_seed(1)
    model = getattr(transformers, kind)(tiny("bert").config).double().eval()
    with torch.no_grad():
        for path, weight in model.named_parameters():
            weight.zero_() if path.endswith("bias") else weight.mul_(5 if weight.dim() == 2 else 1)
    batch = padded(tiny("bert"), examples=4)
    found = relevance(model, batch)
    for at in range(4):
        ids = batch["input_ids"][at][batch["attention_mask"][at].bool()]
        with torch.no_grad():
            output = model(input_ids=ids[None])
        if "logits" in output:
            expected = output.logits.amax(-1).mean()
        else:
            expected = output.start_logits.max() + output.end_logits.max()
        np.testing.assert_allclose(found.explained[at], expected, atol=1e-5)
        np.testing.assert_allclose(found.tokens["encoder"][at].sum(), expected, atol=1e-5)


class Custom(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, g):
        return g


PLANTED = {
    "exp": lambda x: x.exp(),
    "a norm of its own": lambda x: x / x.norm(dim=-1, keepdim=True),
    "rounding": lambda x: x.round(),
    "a gate that is no activation": lambda x: x * x.sigmoid(),
    "a power": lambda x: x.pow(2),
    "a softmax": lambda x: x.softmax(-1),
    "the largest": lambda x: torch.maximum(x, x.flip(-1)),
    "its own autograd": Custom.apply,
    "a bound that is reached": lambda x: x.clamp(-0.1, 0.1),
}


@pytest.mark.parametrize("planted", PLANTED)
@pytest.mark.parametrize("rule", ["cp", "attn"])
def test_what_no_rule_covers_is_refused_by_its_module(planted, rule):
    class Planted(nn.Module):
        def forward(self, x):
            return PLANTED[planted](x)

    model = copy.deepcopy(tiny("bert"))
    model.bert.encoder.layer[1].output.dropout = Planted()
    with pytest.raises(NotApplicable) as told:
        relevance(model, padded(model), rule)
    assert "BertForSequenceClassification: no rule of relevance covers" in str(told.value)
    assert "encoder.layer.1" in str(told.value) and "\n" not in str(told.value)
    model.bert.encoder.layer[1].output.dropout = nn.Identity()  # the model is whole: hooks and modes are gone
    relevance(model, padded(model), rule)


def test_a_model_of_experts_is_refused():
    config = transformers.MixtralConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=2, pad_token_id=0,
    )  # fmt: skip
    with pytest.raises(NotApplicable, match=r"no rule of relevance covers .* in model\.layers\.0\.mlp"):
        relevance(transformers.MixtralForCausalLM(config).eval(), {"input_ids": torch.tensor([[5, 6, 7]])})


def test_a_model_that_keeps_its_attention_to_itself_or_has_no_head_is_not_applicable():
    name = next(iter(tapped_models.ZOO))
    with pytest.raises(NotApplicable, match="tap"):
        relevance(tapped_models.tiny(name), tapped_models.padded(name))
    with pytest.raises(NotApplicable, match="no logit to explain"):
        relevance(tiny("bert").bert, padded(tiny("bert")))


@pytest.mark.parametrize("name", [ENCODERS[0], "t5"])
def test_the_model_is_left_as_it_was(name):
    model = copy.deepcopy(tiny(name)).train()
    frozen = next(iter(model.parameters())).requires_grad_(False)
    before = {path: weight.detach().clone() for path, weight in model.state_dict().items()}
    hooks = _hooks(model)  # transformers leaves its own on a model that once gave its attentions
    for rule in ("cp", "attn", "gradient"):
        relevance(model, padded(model), rule)
    assert all(module.training for module in model.modules())
    assert not frozen.requires_grad and sum(not w.requires_grad for w in model.parameters()) == 1
    assert all(weight.grad is None for weight in model.parameters())
    assert all(torch.equal(before[path], weight) for path, weight in model.state_dict().items())
    assert _hooks(model) == hooks


def _hooks(model):
    return [[*module._forward_pre_hooks, *module._forward_hooks] for module in model.modules()]
