"""Contributions of source and prefix: Voita's rule by whole Jacobians, shares that sum to 1, any lengths."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from tiny_models import PAIRS, padded, tiny
from torch import nn
from torch.autograd.functional import jacobian

from attnbench import NotApplicable, contributions
from attnbench.engine.relevance.contributions import Contributions


def wide(name):
    """Copy a tiny model in float64 whose biases and norms do something."""
    model = copy.deepcopy(tiny(name)).double()
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.requires_grad_(False)
            if weight.dim() == 1:
                weight.add_(torch.randn(weight.shape, generator=draw, dtype=torch.float64) * 0.1)
    return model


# --- the rule, slowly: of any function by its whole Jacobian, in the words of the paper's appendix


def passed_back(function, inputs, relevance):
    """Return the relevance of each input of a function: alpha = beta = 1/2, rescaled over all of them."""
    slopes = jacobian(lambda *x: function(*x).flatten(), tuple(inputs), vectorize=True)
    flat = np.concatenate(
        [(j * x).reshape(len(j), -1).numpy() for j, x in zip(slopes, inputs, strict=True)], 1
    )
    bias = function(*[torch.zeros_like(x) for x in inputs]).flatten().numpy()
    impacts = flat + bias[:, None] / flat.shape[1]
    to = np.zeros(flat.shape[1])
    for out, r in enumerate(np.asarray(relevance).ravel()):
        up, down = np.maximum(impacts[out], 0), np.minimum(impacts[out], 0)
        to += r / 2 * (up / (up.sum() or 1) + down / (down.sum() or 1))
    to *= np.abs(relevance).sum() / (np.abs(to).sum() or 1)
    parts = np.split(to, np.cumsum([x.numel() for x in inputs])[:-1])
    return [part.reshape(x.shape) for part, x in zip(parts, inputs, strict=True)]


def by_token(function, inputs, relevance):
    """Do so for each token by itself: (tokens, units)."""
    rows = [passed_back(function, [x[t] for x in inputs], relevance[t]) for t in range(len(relevance))]
    return [np.stack(part) for part in zip(*rows, strict=True)]


def attended(q, k, v, hidden=None):
    scores = q @ k.T / q.shape[1] ** 0.5
    return (scores if hidden is None else scores.masked_fill(hidden, -torch.inf)).softmax(-1) @ v


class Layer:
    """One layer of Marian, forward and back."""

    def __init__(self, layer, own, source=None, causal=False):
        self.layer, self.causal, self.source = layer, causal, source
        self.inputs = own
        self.own, own = self.attend(layer.self_attn, own, own, causal)
        own = layer.self_attn_layer_norm(own)
        self.middle = own
        if source is not None:
            self.crossed, own = self.attend(layer.encoder_attn, own, source, False)
            own = layer.encoder_attn_layer_norm(own)
        self.last = own
        self.inner = nn.functional.gelu(layer.fc1(own))
        self.update = layer.fc2(self.inner)
        self.out = layer.final_layer_norm(own + self.update)

    def attend(self, module, queries, keys, causal):
        q, k, v = module.q_proj(queries), module.k_proj(keys), module.v_proj(keys)
        hidden = torch.ones(len(q), len(k), dtype=torch.bool).triu(1) if causal else None
        context = torch.cat(
            [
                attended(*each, hidden)
                for each in zip(q.split(8, 1), k.split(8, 1), v.split(8, 1), strict=True)
            ],
            1,
        )
        update = module.out_proj(context)
        return (module, queries, keys, (q, k, v), context, update, hidden), queries + update

    def back_attention(self, kept, relevance):
        module, queries, keys, (q, k, v), context, update, hidden = kept
        rest, r = by_token(torch.add, (queries, update), relevance)
        (r,) = by_token(module.out_proj, (context,), r)
        heads = [
            passed_back(lambda *x: attended(*x, hidden), each, part)
            for *each, part in zip(
                q.split(8, 1), k.split(8, 1), v.split(8, 1), np.split(r, 4, 1), strict=True
            )
        ]
        at_q, at_k, at_v = (np.concatenate(part, 1) for part in zip(*heads, strict=True))
        (of_q,) = by_token(module.q_proj, (queries,), at_q)
        (of_k,) = by_token(module.k_proj, (keys,), at_k)
        (of_v,) = by_token(module.v_proj, (keys,), at_v)
        return rest + of_q, of_k + of_v

    def back(self, r):
        """Return the relevance of the layer's input, and of the source."""
        (r,) = by_token(self.layer.final_layer_norm, (self.last + self.update,), r)
        rest, r = by_token(torch.add, (self.last, self.update), r)
        (r,) = by_token(self.layer.fc2, (self.inner,), r)
        (r,) = by_token(self.layer.fc1, (self.last,), r)
        r, source = r + rest, 0
        if self.source is not None:
            (r,) = by_token(self.layer.encoder_attn_layer_norm, (self.crossed[1] + self.crossed[5],), r)
            r, source = self.back_attention(self.crossed, r)
        (r,) = by_token(self.layer.self_attn_layer_norm, (self.own[1] + self.own[5],), r)
        r, keys = self.back_attention(self.own, r)
        return r + keys, source


def slowly(model, source, prefix):
    """Return each target's parts: of the source's tokens, of the prefix's."""

    def embedded(part, ids):
        hidden = part.embed_tokens(ids[None])[0] * part.embed_scale
        return hidden + part.embed_positions((1, len(ids)))

    encoder, decoder = model.model.encoder, model.model.decoder
    up, hidden = [], embedded(encoder, source)
    for layer in encoder.layers:
        up.append(Layer(layer, hidden))
        hidden = up[-1].out
    down, state, memory = [], embedded(decoder, prefix), hidden
    for layer in decoder.layers:
        down.append(Layer(layer, state, memory, causal=True))
        state = down[-1].out
    logits = model.lm_head(state) + model.final_logits_bias[0]
    found = []
    for target in range(len(prefix)):
        top = int(logits[target].argmax())
        r = np.zeros(state.shape)

        def logit(x, top=top):
            return (x @ model.lm_head.weight[top] + model.final_logits_bias[0, top])[None]

        (r[target],) = passed_back(logit, (state[target],), np.ones(1))
        at_source = 0
        for layer in reversed(down):
            r, more = layer.back(r)
            at_source = at_source + more
        for layer in reversed(up):
            at_source, _ = layer.back(at_source)
        found.append((at_source.sum(1), r.sum(1)))
    return logits, *(np.array(part) for part in zip(*found, strict=True))


def test_the_rule_is_voitas_written_slowly_with_whole_jacobians():
    model = wide("marian")
    with torch.no_grad():
        model.final_logits_bias.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    source, prefix = torch.tensor([5, 9, 3]), torch.tensor([0, 7])
    with torch.no_grad():
        logits, at_source, at_prefix = slowly(model, source, prefix)
        expected = model(input_ids=source[None], decoder_input_ids=prefix[None]).logits[0]
    np.testing.assert_allclose(logits, expected, atol=1e-9)  # the slow model is the model
    np.testing.assert_allclose(at_source.sum(1) + at_prefix.sum(1), 1, atol=1e-9)
    (found,) = contributions(model, {"input_ids": source[None], "decoder_input_ids": prefix[None]})
    np.testing.assert_allclose(found.source, at_source, atol=1e-9)
    np.testing.assert_allclose(found.prefix, at_prefix, atol=1e-9)
    assert found.tokens.tolist() == expected.argmax(-1).tolist() and found.read.tolist() == [0, 7]


@pytest.mark.parametrize("name", PAIRS)
def test_shares_sum_to_one_and_the_future_has_none(name):
    model, batch = tiny(name), padded(tiny(name), examples=3)
    for at, found in enumerate(contributions(model, batch)):
        count = int(batch["attention_mask"][at].sum())
        assert found.source.shape == (5, count) and found.prefix.shape == (5, 5)
        np.testing.assert_allclose(found.source.sum(1) + found.prefix.sum(1), 1)
        assert not found.prefix.triu(1).any()
        assert (found.source >= 0).all() and (found.prefix >= 0).all()


@pytest.mark.parametrize("name", PAIRS)
def test_batch_and_padding_do_not_count_nor_does_what_comes_later(name):
    model = wide(name)
    batch = padded(model, examples=2, tokens=6)
    batch["decoder_attention_mask"] = torch.tensor([[1] * 5, [1] * 3 + [0] * 2])
    for at, found in enumerate(contributions(model, batch)):
        shown, length = batch["attention_mask"][at].bool(), int(batch["decoder_attention_mask"][at].sum())
        for end in (length, 1):
            one = {
                "input_ids": batch["input_ids"][at][shown][None],
                "decoder_input_ids": batch["decoder_input_ids"][at][None, :end],
            }
            (alone,) = contributions(model, one)
            np.testing.assert_allclose(found.source[:end], alone.source, atol=1e-6)
            np.testing.assert_allclose(found.prefix[:end, :end], alone.prefix, atol=1e-6)


def test_the_reference_may_be_given_as_labels():
    model = wide("marian")
    ids, labels = torch.tensor([[5, 9, 3], [4, 8, 0]]), torch.tensor([[7, 11, 2], [9, 2, -100]])
    batch = {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": labels}
    first, second = contributions(model, batch)
    assert first.source.shape == (3, 3) and second.source.shape == (2, 2)
    start = model.config.decoder_start_token_id
    one = {"input_ids": ids[1:, :2], "decoder_input_ids": torch.tensor([[start, 9]])}
    np.testing.assert_allclose(second.source, contributions(model, one)[0].source, atol=1e-6)


def test_influence_and_entropies_are_those_of_the_parts():
    source = torch.tensor([[0.3, 0.1], [0.2, 0.2]]).double()
    found = Contributions(
        source, torch.tensor([[0.6, 0.0], [0.3, 0.3]]).double(), *torch.tensor([[0, 7], [1, 2]])
    )
    np.testing.assert_allclose(found.influence(), [2 * (0.75 + 0.5) / 2, 2 * (0.25 + 0.5) / 2])
    of_source, of_prefix = found.entropies()
    np.testing.assert_allclose(of_source, [-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)), np.log(2)])
    np.testing.assert_allclose(of_prefix, [0, np.log(2)])


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_a_model_without_a_source_is_not_applicable(name):
    with pytest.raises(NotApplicable, match="is no encoder-decoder: it has no source and no prefix"):
        contributions(tiny(name), padded(tiny(name)))


def test_what_no_rule_covers_is_refused_by_its_module():
    class Planted(nn.Module):
        def forward(self, x):
            return x.exp()

    model = copy.deepcopy(tiny("marian"))
    model.model.encoder.layers[1].activation_fn = Planted()
    with pytest.raises(
        NotApplicable, match=r"exp .* in model\.encoder\.layers\.1\.activation_fn \(Planted\)"
    ):
        contributions(model, padded(model, examples=1))
