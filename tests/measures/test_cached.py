"""What a realised cache costs: bytes counted by hand, its tokens are the simulated ones."""

from __future__ import annotations

import copy

import asked_contexts
import pytest
import tiny_causal
import tiny_tasks
import torch
from tiny_models import tiny

import attnbench
from attnbench import Kept, Method, parse
from attnbench.backends import lm_eval
from attnbench.inputs.settings import Settings
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


def test_a_run_fills_the_columns_of_a_task_with_marked_contexts(tmp_path, tmp_path_factory):
    folder = asked_contexts.write(tmp_path)
    checkpoint = tiny_tasks.built_once(tmp_path_factory, tiny_causal.build)("llama", 64)
    methods = ["evict50:streamingllm", "kvint4"]
    asked = {"include_path": folder, "records": str(tmp_path / "records"), "measure": True}
    found = attnbench.run(f"tiny={checkpoint.path}", methods, "asked@context", **asked)
    cells = {item.cell["method"]: item for item in found.records}
    prepared = lm_eval.prepare("asked@context", checkpoint, Settings(include_path=folder))
    tokens = max(int(batch["attention_mask"].sum(1).max()) for batch in prepared.batches(16))
    held = cells["evict50:streamingllm"].measured["held"]
    # two layers, keys and values, 2 heads of 4 channels, 4 bytes; a token, and room for one of 32
    assert held["dense"] == 2 * 2 * 2 * 4 * 4 * (tokens + 1)
    kept = tokens - tokens // 2 + 1
    assert held["ratio"] == pytest.approx((kept + kept // 32) / (tokens + 1))
    told = cells["evict50:streamingllm"].measured
    assert told["latency"]["tokens"] == told["first"]["tokens"] == tokens and told["memory"]["ratio"] > 0
    assert "packed storage" in cells["kvint4"].measured["latency"]["why"]
    shown = " ".join(found.table().split())
    assert "KV bytes" in shown and "kvint4 has no latency: kvint gives values fewer bits" in shown
