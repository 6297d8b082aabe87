"""Requests of lm-eval under methods for caches, against a plain model that goes on from a cut cache."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import tiny_causal
import torch
import transformers
from closeness import close
from lm_eval.api.instance import Instance
from tiny_causal import drawn
from transformers import DynamicCache

from attnbench.backends.causal.model import CausalLM
from attnbench.engine.serving.attention import apply
from attnbench.engine.serving.soundness import require_hits
from attnbench.errors import NotApplicable

SINKS = 4


@pytest.fixture(scope="module")
def lm():
    tokenizer = tiny_causal.tokenizer()
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=4, bos_token_id=1,
        num_key_value_heads=2, intermediate_size=24, max_position_embeddings=64, eos_token_id=2,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval().double()
    for weight in model.parameters():
        if weight.dim() == 2:
            weight.data.normal_(std=0.5)
    model.generation_config.pad_token_id = 0
    return SimpleNamespace(lm=CausalLM(config, tokenizer), model=model, tokenizer=tokenizer)


def cut(model, ids, keep):
    """Read a prompt, keep 4 first tokens and the last ones of it in the cache."""
    cache = DynamicCache()
    model(torch.tensor([ids]), past_key_values=cache)
    stays = [*range(min(SINKS, keep)), *range(len(ids) - keep + min(SINKS, keep), len(ids))]
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys[:, :, stays], layer.values[:, :, stays]
    return cache


def steps(model, cache, ids, first):
    """Logits of tokens one by one, the first of which stands at a place."""
    found = []
    for place, token in enumerate(ids, first):
        at = torch.tensor([[place]])
        found.append(model(torch.tensor([[token]]), past_key_values=cache, position_ids=at).logits[0, -1])
    return torch.stack(found)


def likelihood(model, context, continuation):
    n = len(context) - 1
    with torch.no_grad():
        cache = cut(model, context[:n], n - n // 2)
        logits = steps(model, cache, [context[-1], *continuation[:-1]], n)
    return float(logits.log_softmax(-1)[range(len(continuation)), continuation].sum())


def requests(kind, arguments, **more):
    return [Instance(kind, {}, each, k, metadata=("made", k, 1), **more) for k, each in enumerate(arguments)]


PAIRS = [(drawn(k, 5 + 3 * k), " " + drawn(50 + k, 1 + k % 3)) for k in range(6)]


@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_likelihoods_are_those_of_a_cache_that_was_cut(lm, batch_size):
    # the last two share their text, not their prompt
    pairs = [*PAIRS, ("w1 w2 w3 w4 w5 w6 w7", " w8"), ("w1 w2 w3 w4 w5 w6", " w7 w8")]
    with (
        apply(lm.model, "evict50:streamingllm") as applied,
        lm.lm.serving(lm.model, batch_size=batch_size) as served,
    ):
        found = served.loglikelihood(requests("loglikelihood", pairs))
    for (value, _), (context, continuation) in zip(found, pairs, strict=True):
        ids, rest = (lm.tokenizer(text)["input_ids"] for text in (context, continuation))
        close(torch.tensor(value), torch.tensor(likelihood(lm.model, ids, rest)), layers=2)
    scored = sum(len(continuation.split()) for _, continuation in pairs)
    assert (applied.scored, applied.cut) == (scored, scored)
    # prompts of 4, 6 and 5 tokens keep 2, 3 and 3
    assert require_hits(applied) == {"cut": 1.0, "notes": {"fewer tokens than its 4 first ones are kept": 3}}


def test_equal_inputs_of_other_prompts_share_no_pass(lm):
    pairs = [("w1 w2 w3 w4 w5 w6 w7 w8 w9", " w10"), ("w1 w2 w3 w4 w5", " w6 w7 w8 w9 w10")]
    with lm.lm.serving(lm.model) as served:
        dense = [value for value, _ in served.loglikelihood(requests("loglikelihood", pairs))]
        with apply(lm.model, "evict50:streamingllm"):
            found = [value for value, _ in served.loglikelihood(requests("loglikelihood", pairs))]
    assert all(abs(a - b) > 1e-3 for a, b in zip(found, dense, strict=True))


@pytest.mark.parametrize("beams", [1, 2])
def test_generated_texts_are_those_of_a_cache_that_was_cut(lm, beams):
    texts = [drawn(k, 6 + 2 * k) for k in range(4)]
    options = {"until": ["</s>"], "max_gen_toks": 5, "do_sample": False, "num_beams": beams}
    with apply(lm.model, "evict50:streamingllm") as applied, lm.lm.serving(lm.model, batch_size=3) as served:
        found = served.generate_until(
            requests("generate_until", [(text, copy.deepcopy(options)) for text in texts])
        )
    assert applied.scored == applied.cut > 0
    for text, made in zip(texts, found, strict=True) if beams == 1 else ():
        ids = lm.tokenizer(text)["input_ids"]
        n, own = len(ids) - 1, []
        with torch.no_grad():
            cache, token = cut(lm.model, ids[:n], n - n // 2), ids[-1]
            while len(own) < 5 and token != 2:
                token = int(steps(lm.model, cache, [token], n + len(own))[0].argmax())
                own.append(token)
        assert made.split() == lm.tokenizer.decode(own, skip_special_tokens=True).split()


def test_what_has_no_prompt_is_not_applicable(lm):
    with apply(lm.model, "evict50:tova"), lm.lm.serving(lm.model) as served:
        with pytest.raises(NotApplicable, match="no prompt here"):
            served.loglikelihood_rolling(requests("loglikelihood_rolling", [(drawn(0, 20),)]))
        with pytest.raises(NotApplicable, match="no prompt here"):
            served.loglikelihood(requests("loglikelihood", [("", drawn(1, 9)), ("w1", " w2")]))


def test_a_prompt_of_one_token_is_dense_and_counted(lm):
    pairs = [("w1", " w2"), (drawn(3, 9), " w5")]
    with lm.lm.serving(lm.model) as served:
        dense = served.loglikelihood(requests("loglikelihood", pairs))
        with apply(lm.model, "evict50:tova") as applied:
            found = served.loglikelihood(requests("loglikelihood", pairs))
    close(torch.tensor(found[0][0]), torch.tensor(dense[0][0]), layers=2)
    assert found[1][0] != dense[1][0] and require_hits(applied)["cut"] == 0.5
