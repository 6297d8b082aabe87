"""DuoAttention: what it learns against a slow model with mixed heads, and a cache that is really cut."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import slow_caches as slow
import torch
import transformers
from closeness import close
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import tiny

import attnbench
from attnbench import NotApplicable, parse
from attnbench_plugins.caches.duo import RUNS, passkeys

N, MORE, SINK, WINDOW, LR, STEPS = 25, 5, 3, 6, 0.1, 5
SPEC = f"longest=44:lr={LR}:shortest=30:sink={SINK}:steps={STEPS}:window={WINDOW}"


@pytest.fixture(scope="module")
def llama():
    return copy.deepcopy(tiny("llama")).double().eval()


@pytest.fixture(scope="module")
def batches():
    ids = torch.randint(3, 97, (2, 30), generator=torch.Generator().manual_seed(5))
    mask = torch.ones_like(ids)
    mask[1, :10] = 0
    return [{"input_ids": ids, "attention_mask": mask}]


def _mixing(alphas, end):
    """Attention of a whole text at once, whose rows from `end` on mix both outputs as the paper says."""

    def attend(module, query, key, value, mask, scaling=None, **options):
        groups = query.shape[1] // key.shape[1]
        key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
        place = torch.arange(key.shape[2])
        later = place[None, :] > place[:, None]
        scores = (query @ key.mT * scaling).masked_fill(later, -torch.inf)
        gone = (place >= SINK) & (place < end - WINDOW)
        streaming = scores.masked_fill(gone[None] & (place >= end)[:, None], -torch.inf)
        share = alphas[module.layer_idx].repeat_interleave(groups)[:, None, None]
        mixed = share * (scores.softmax(-1) @ value) + (1 - share) * (streaming.softmax(-1) @ value)
        return mixed.transpose(1, 2), None

    return attend


def _learnt(model, pool):
    """Return alpha (layers, key-value heads) after a few steps of Adam, written out."""
    layers, heads = model.config.num_hidden_layers, model.config.num_key_value_heads
    alpha = torch.ones(layers, heads, dtype=torch.float64)
    mean, square = torch.zeros_like(alpha), torch.zeros_like(alpha)
    draw, before = torch.Generator().manual_seed(0), model.config._attn_implementation
    for step in range(1, STEPS + 1):
        text, end = passkeys(pool, 30, 44, draw)
        outputs = []
        for shares in (torch.ones_like(alpha), alpha.requires_grad_()):
            transformers.AttentionInterface.register("slow_mixed", _mixing(shares, end))
            model.set_attn_implementation("slow_mixed")
            outputs.append(model.model(text[None], use_cache=False).last_hidden_state[0, end:])
        model.set_attn_implementation(before)
        loss = (outputs[1] - outputs[0].detach()).square().mean() + 0.05 * alpha.mean()
        gradient = torch.autograd.grad(loss, alpha)[0]
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        move = mean / (1 - 0.9**step) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
        alpha = (alpha.detach() - LR * move).clamp(0, 1)
    return alpha


def test_shares_are_those_of_a_slow_model_with_mixed_heads(llama, batches):
    before = [weight.requires_grad for weight in llama.parameters()]
    (method,) = parse(f"duo50:{SPEC}")
    method.fit(llama, batches)
    pool = torch.cat([batches[0]["input_ids"][0], batches[0]["input_ids"][1, 10:]])
    wanted = _learnt(llama, pool)
    found = torch.stack([method.alpha_["decoder", layer] for layer in range(len(wanted))])
    assert (found.double() - wanted).abs().max() < 1e-3
    assert len({round(float(each), 3) for each in found.flatten()}) > 1
    lowest = sorted(range(found.numel()), key=lambda k: (float(found.flatten()[k]), k))[: found.numel() // 2]
    streams = torch.cat([*method.streams_.values()])
    assert [k for k in range(len(streams)) if streams[k]] == sorted(lowest)
    assert [weight.requires_grad for weight in llama.parameters()] == before


@pytest.mark.parametrize("streams", [[[1, 0], [1, 1]], [[0, 0], [0, 1]], [[0, 0], [0, 0]]])
def test_one_pass_is_a_plain_model_with_a_cache_that_was_cut(streams, llama):
    ids = torch.randint(3, 97, (1, N + MORE), generator=torch.Generator().manual_seed(3))
    (method,) = parse(f"duo50:{SPEC}")
    method.streams_ = {("decoder", layer): torch.tensor(row).bool() for layer, row in enumerate(streams)}
    ends = set(range(SINK)) | set(range(N - WINDOW, N))
    kept = [slow.table([ends if head else set(range(N)) for head in row], N) for row in streams]
    with torch.no_grad(), attnbench.apply(llama, method) as applied, attnbench.prompts(llama, [N]):
        logits = llama(ids, use_cache=False).logits[:, N:]
    close(logits, slow.continued(llama, ids, N, kept), layers=2)
    share = float(np.mean([each.mean() for each in kept]))
    assert applied.cached() == pytest.approx({"cache": share, "kv": share})


@given(st.integers(8, 80), st.integers(0, 60), st.integers(0, 1000))
def test_passkeys_come_twice_in_a_text_of_its_length(shortest, more, seed):
    draw = torch.Generator().manual_seed(seed)
    text, end = passkeys(torch.arange(500, 900), shortest, shortest + more, draw)
    assert shortest <= len(text) <= shortest + more and (len(text) - end) % RUNS == 0
    size = (len(text) - end) // RUNS
    assert 1 <= size <= 8
    for run in range(RUNS):
        key = text[end + run * size :][:size].tolist()
        assert any(text[at : at + size].tolist() == key for at in range(end - size + 1))


def test_a_model_that_is_too_short_is_told_so(llama, batches):
    short = copy.deepcopy(llama)
    short.config.max_position_embeddings = 24
    with pytest.raises(NotApplicable, match="texts of 30 tokens, and this model takes 24"):
        parse(f"duo50:{SPEC}")[0].fit(short, batches)
