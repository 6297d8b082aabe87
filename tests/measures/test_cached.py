"""What a realised cache costs: bytes counted by hand, its tokens are the simulated ones."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_models import tiny

from attnbench import Kept, Method, parse
from attnbench.measures import cached, cost


@pytest.fixture(scope="module")
def costs():
    model = copy.deepcopy(tiny("llama"))
    ids = torch.randint(3, 97, (2, 40), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 30:] = 0
    batch = {"input_ids": ids * mask, "attention_mask": mask}
    return cost.Costs(model, [batch], batch)


def test_a_cache_that_is_half_as_large(costs):
    found = costs.of(parse("evict50:tova"))
    # two layers, keys and values, 2 heads of 8 channels, 4 bytes; a token, and room for one of 32
    assert found["held"]["dense"] == 2 * 2 * 2 * 8 * 4 * 41
    assert found["held"]["ratio"] == pytest.approx(21 / 41)
    assert found["latency"]["tokens"] == found["first"]["tokens"] == 40
    for name in ("latency", "first"):
        told = found[name]
        assert "noise" in told["why"] if "why" in told else told["low"] <= told["ratio"] <= told["high"]
    assert found["memory"]["ratio"] > 0


@pytest.mark.parametrize(
    ("spec", "said"), [("kvint4", "packed storage"), ("evict50:tova+prune50", "prune is only simulated")]
)
def test_what_is_only_simulated_says_so(costs, spec, said):
    found = costs.of(parse(spec))
    assert said in found["latency"]["why"] and len(found["latency"]) == 1 and "held" not in found


class Moody(Method):
    """Keep of a prompt longer than a probe's another token each time it is asked."""

    name = "moody"
    asked = 0

    def cache(self, prompt, site):
        kept = torch.ones(prompt.keys.shape[:2], dtype=torch.bool)
        if prompt.tokens > 24:
            kept[:] = False
            kept[:, Moody.asked % prompt.tokens] = True
            Moody.asked += 1
        return Kept(tokens=kept)


def test_other_tokens_than_the_simulated_ones_are_refused(costs):
    assert "tokens it differs by" in costs.of([Moody()])["latency"]["why"]


def test_prompts_leave_room_for_what_comes_after(costs):
    samples = [{"input_ids": torch.zeros(1, size, dtype=torch.long)} for size in (1, 30, 5, 9, 9, 9)]
    assert [ids.shape[1] for ids in cached.prompts_of(iter(samples), 32)] == [16, 5, 9, 9]
