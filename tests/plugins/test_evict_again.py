"""Eviction that goes on, against a plain model whose real cache is cut step by step."""

from __future__ import annotations

import copy

import pytest
import torch
from closeness import close
from tiny_models import tiny
from transformers import DynamicCache

import attnbench
from attnbench import NotApplicable
from attnbench.errors import UserError

N, MORE = 17, 12


@pytest.fixture(scope="module")
def model():
    return copy.deepcopy(tiny("llama")).double()


@pytest.fixture(scope="module")
def ids():
    return torch.randint(3, 97, (1, N + MORE), generator=torch.Generator().manual_seed(5))


def streaming(held, mass, last, k):
    m = held.shape[1]
    return [[*range(min(4, k)), *range(m - k + min(4, k), m)]] * len(held)


def tova(held, mass, last, k):
    return [sorted(last.sort(descending=True, stable=True).indices[:k].tolist())] * len(held)


def h2o(held, mass, last, k):
    m, recent = held.shape[1], k // 2
    old = mass[:, : m - recent].sort(dim=-1, descending=True, stable=True).indices[:, : k - recent]
    return [sorted([*row, *range(m - recent, m)]) for row in old.tolist()]


def stepped(model, ids, k, every, choose):
    """Read a prompt, keep k tokens a head of a real cache, go on by one token, cut again every so many.

    Returns the logits after the prompt and the tokens held at the end, of each layer (heads, tokens).
    """
    before, cache, logits = model.config._attn_implementation, DynamicCache(), []
    model.set_attn_implementation("eager")
    held = [torch.arange(N).expand(2, -1) for _ in range(2)]
    mass = [torch.zeros(2, N, dtype=torch.float64) for _ in range(2)]
    for place in range(N - 1, ids.shape[1]):
        part = slice(0, N) if place == N - 1 else slice(place, place + 1)
        with torch.no_grad():
            found = model(
                ids[:, part], past_key_values=cache, position_ids=torch.arange(N + MORE)[None, part],
                output_attentions=True,
            )  # fmt: skip
        logits.append(found.logits)
        for at, layer in enumerate(cache.layers):
            attention = found.attentions[at][0]
            if place >= N:
                held[at] = torch.cat([held[at], torch.full((2, 1), place)], 1)
                mass[at] = torch.nn.functional.pad(mass[at], (0, 1))
            mass[at] = mass[at] + attention.sum(1).unflatten(0, (2, -1)).mean(1)
            if (place - N + 1) % every == 0:
                stay = torch.tensor(choose(held[at], mass[at], attention[:, -1].mean(0), k))
                held[at], mass[at] = (each.gather(1, stay) for each in (held[at], mass[at]))
                for name in ("keys", "values"):
                    whole = getattr(layer, name)
                    index = stay[None, ..., None].expand(-1, -1, -1, whole.shape[-1])
                    setattr(layer, name, whole.gather(2, index))
    model.set_attn_implementation(before)
    return torch.cat(logits[1:], 1), held


def ours(model, ids, spec, mask=None):
    """Logits after the prompt, read one by one on a cache."""
    cache, logits, n = DynamicCache(), [], ids.shape[1] - MORE
    with torch.no_grad(), attnbench.apply(model, spec):
        for place in range(n - 1, ids.shape[1]):
            part = slice(0, n) if place == n - 1 else slice(place, place + 1)
            more = {}
            if mask is not None:
                more = {"attention_mask": mask[:, : part.stop], "position_ids": (mask.cumsum(1) - 1)[:, part]}
            logits.append(model(ids[:, part], past_key_values=cache, **more).logits)
    return torch.cat(logits[1:], 1)


CASES = {
    "evict50:streamingllm:every=1": (9, 1, streaming),
    "evict:streamingllm:every=5:keep=6": (6, 5, streaming),
    "evict50:tova:every=1": (9, 1, tova),
    "evict70:tova:every=3": (6, 3, tova),
    "evict50:h2o:every=1": (9, 1, h2o),
    "evict:h2o:every=4:keep=8": (8, 4, h2o),
}


@pytest.mark.parametrize("spec", CASES)
def test_it_is_a_plain_model_whose_cache_is_cut_again(spec, model, ids):
    expected, held = stepped(model, ids, *CASES[spec])
    assert max(int(each.min(-1).values.max()) for each in held) < N < int(held[0].max())
    found = ours(model, ids, spec)
    # transformers' eager attention, which says what it attended to, is in single precision
    close(found.float(), expected.float(), layers=2, says=spec)
    once = ours(model, ids, spec.replace(f":every={CASES[spec][1]}", ""))
    assert (found - once).abs().max() > 1e-4  # which is another thing than one cut


@pytest.mark.parametrize("spec", ["evict50:h2o:every=2", "evict50:tova:every=2", "evict50:random:every=2"])
def test_rows_of_a_padded_batch_are_those_alone(spec, model, ids):
    short = ids[:, 4:]
    both = torch.cat([ids, torch.nn.functional.pad(short, (4, 0), value=0)])
    mask = torch.ones_like(both)
    mask[1, :4] = 0
    found = ours(model, both, spec, mask)
    for row, alone in zip(found, (ids, short), strict=True):
        close(row[None], ours(model, alone, spec), layers=2, says=spec)


def test_what_is_drawn_is_a_budget_that_holds(model, ids):
    with torch.no_grad(), attnbench.apply(model, "evict50:random:every=3:window=2") as applied:
        output = model(ids[:, :N], use_cache=True)
        for place in range(N, N + MORE):
            output = model(ids[:, place : place + 1], past_key_values=output.past_key_values)
            memory = output.past_key_values._attnbench_prompts
            for left in memory.left.values():
                stays = ~left[0].gone
                assert (stays.sum(1) == 9).all() and stays[:, :4].all() and stays[:, -2:].all()
                assert stays.shape[1] == N + (place - N + 1) // 3 * 3
    assert applied.cached() == pytest.approx({"cache": 9 / N, "kv": 9 / N})


def test_generated_texts_are_those_of_the_steps(model, ids):
    found = []
    text = ids[:, :N]
    for _ in range(MORE):
        padded = torch.nn.functional.pad(text, (0, N + MORE - text.shape[1]))
        if text.shape[1] == N:
            with torch.no_grad():
                found.append(int(model(text).logits[0, -1].argmax()))
        else:
            logits, _ = stepped(model, padded, 9, 2, h2o)
            found.append(int(logits[0, text.shape[1] - N - 1].argmax()))
        text = torch.cat([text, torch.tensor([[found[-1]]])], 1)
    with torch.no_grad(), attnbench.apply(model, "evict50:h2o:every=2"):
        made = model.generate(ids[:, :N], max_new_tokens=MORE, do_sample=False, eos_token_id=None)
    assert made[0, N:].tolist() == found


@pytest.mark.parametrize(
    "name, spec, cached, said",
    [
        ("llama", "evict50:tova:every=2", False, "while it generates"),
        ("llama", "evict50:tova:every=2+kvint4", True, "and alone"),
        ("mistral", "evict50:tova:every=2", True, "has a window"),
    ],
)
def test_where_it_is_not_applicable(name, spec, cached, said, ids):
    with (
        torch.no_grad(),
        attnbench.apply(chosen := tiny(name), spec),
        attnbench.prompts(chosen, [N]),
        pytest.raises(NotApplicable, match=said),
    ):
        chosen(ids, use_cache=cached)


def test_beams_and_cropped_caches_are_told(model, ids):
    with torch.no_grad(), attnbench.apply(model, "evict50:tova:every=2"):
        with pytest.raises(UserError, match="as beams do"):
            model.generate(ids[:, :N], max_new_tokens=8, do_sample=False, num_beams=3, eos_token_id=None)
        cache = DynamicCache()
        model(ids[:, :N], past_key_values=cache)
        for place in (N, N + 1, N + 2):
            model(ids[:, place : place + 1], past_key_values=cache)
        cache.crop(-1)
        with pytest.raises(UserError, match="cropped"):
            model(ids[:, N + 2 : N + 3], past_key_values=cache)


def test_it_is_only_simulated(model):
    with (
        pytest.raises(NotApplicable, match="only simulated"),
        attnbench.realize(model, "evict50:tova:every=2"),
    ):
        pass
