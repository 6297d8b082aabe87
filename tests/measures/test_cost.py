"""What is measured beside the score: FLOPs against a count by hand, times and memory as ratios to dense."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

import attnbench
from attnbench import Method, apply, parse
from attnbench.backends.encoders.prepared import Prepared
from attnbench.boards import checks
from attnbench.cli.main import main
from attnbench.measures import cost, peak, turns
from attnbench.records import record

WIDTH, LAYERS, HEADS, INNER = 32, 2, 4, 64


@pytest.fixture(scope="module")
def bert():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        intermediate_size=INNER, max_position_embeddings=64,
    )  # fmt: skip
    return BertForSequenceClassification(config).eval()


def batch(*lengths):
    ids = torch.arange(len(lengths) * max(lengths)).view(len(lengths), -1) % 45 + 4
    return {
        "input_ids": ids,
        "attention_mask": (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long(),
    }


def by_hand(tokens, heads=HEADS):
    """Multiplications and additions of BERT on one sample, two a product."""
    size = WIDTH // HEADS
    linear = tokens * (4 * WIDTH * heads * size + 2 * WIDTH * INNER)
    return 2 * (LAYERS * (linear + 2 * heads * tokens**2 * size) + WIDTH * WIDTH + 2 * WIDTH)


def test_flops_are_those_of_the_samples_without_padding(bert):
    assert cost.flops(bert, [batch(9, 5), batch(7)]) == by_hand(9) + by_hand(5) + by_hand(7)


def test_a_sample_alone_has_no_padding_on_either_side():
    inputs = batch(4, 4) | {"decoder_input_ids": torch.arange(6).view(2, 3)}
    inputs["attention_mask"][0, :2] = 0
    inputs["attention_mask"][1, 3:] = 0
    first, second = cost.alone(inputs)
    assert first["input_ids"].tolist() == [inputs["input_ids"][0, 2:].tolist()]
    assert second["input_ids"].tolist() == [inputs["input_ids"][1, :3].tolist()]
    assert second["decoder_input_ids"].tolist() == [[3, 4, 5]]


class Zero(Method):
    """Zero every probability of key 0, which saves the product with its value."""

    def probs(self, probs, site):
        probs[..., 0] = 0
        return probs


class Hide(Method):
    """Hide key 0, which saves the product with the key too."""

    def scores(self, scores, site):
        scores[..., 0] = -torch.inf
        return scores


class Close(Method):
    """Close head 1, which saves both products of all it sees."""

    def context(self, context, site):
        context[:, 1] = 0
        return context


@pytest.mark.parametrize(
    "methods, saved",
    [
        ([Zero()], lambda n: HEADS * n),
        ([Hide()], lambda n: 2 * HEADS * n),
        ([Close()], lambda n: 2 * n * n),
        ([Zero(), Close()], lambda n: (HEADS - 1) * n + 2 * n * n),
        ([Hide(), Zero()], lambda n: 2 * HEADS * n),
    ],
)
def test_what_zeros_could_save(bert, methods, saved):
    size = WIDTH // HEADS
    expected = sum(2 * size * LAYERS * saved(n) for n in (9, 5))
    assert cost.skipped(bert, methods, [batch(9, 5)]) == expected


def test_causal_zeros_are_no_saving():
    torch.manual_seed(0)
    gpt = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=32, n_embd=16, n_layer=2, n_head=2)).eval()
    gpt.config.use_cache = False
    inputs = batch(6, 6)
    assert cost.skipped(gpt, parse("threshold0"), [inputs]) == 0
    assert cost.skipped(gpt, [Zero()], [inputs]) == 2 * 2 * 8 * 2 * 2 * 6  # samples, layers, heads, rows
    costs = cost.Costs(gpt, [inputs], inputs)
    assert costs.memory > 0 and costs.of(parse("prune50"))["latency"] == {}


@pytest.fixture
def quiet(monkeypatch):
    """Take any ratio, however busy the machine is that runs the tests."""
    monkeypatch.setattr(cost, "NOISY", np.inf)


def test_only_what_is_realised_has_latency_and_memory(bert, quiet):
    inputs = batch(12, 8)
    costs = cost.Costs(bert, [inputs], inputs)
    assert costs.of(())["flops"] == {
        "dense": (by_hand(12) + by_hand(8)) / 2, "simulated": None, "realised": None
    }  # fmt: skip
    masked = costs.of(parse("prune50"))
    assert masked["flops"]["simulated"] < 1 and masked["flops"]["realised"] is None
    assert masked["latency"] == {} and set(masked["memory"]) == {"dense"}
    assert costs.of(parse("hidden-quant8"))["flops"]["simulated"] is None
    heads = parse("heads50:random")
    heads[0].fit(bert, [])
    found = costs.of(heads)
    assert found["flops"]["realised"] == pytest.approx((by_hand(12, 2) + by_hand(8, 2)) / costs.flops)
    assert found["flops"]["realised"] < found["flops"]["simulated"] < 1
    assert found["latency"]["low"] <= found["latency"]["ratio"] <= found["latency"]["high"]
    assert found["latency"]["samples"] == 2 and found["latency"]["tokens"] == 12
    assert found["latency"]["threads"] == torch.get_num_threads()
    assert 0.3 < found["memory"]["ratio"] < 0.9
    with torch.no_grad(), apply(bert, "prune0"):  # the model is whole again
        assert cost.flops(bert, [inputs]) == costs.flops


def test_a_layer_may_lose_all_its_heads(bert):
    inputs = batch(6)
    costs = cost.Costs(bert, [inputs], inputs)
    found = costs.of(parse("heads:fixed:off=0"))
    assert found["flops"]["realised"] < costs.of(parse("heads:fixed:off=0.1"))["flops"]["realised"] < 1
    assert all(parameter.requires_grad for parameter in bert.parameters())


def test_memory_is_what_a_module_holds_beside_its_inputs(bert):
    class Holds(torch.nn.Module):
        def forward(self, x):
            kept = x.repeat(5, 1)  # 5 MB, one more at a time
            return (kept + 1).sum()

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = torch.nn.Identity(), Holds()

        def forward(self, input_ids):
            before = torch.zeros(20_000_000)
            return self.second(self.first(input_ids)) + before[0]

    model = Model()
    found = peak._by_profiler([model.second], lambda: model(torch.zeros(1, 250_000)))
    assert 10_000_000 <= found < 10_100_000


@pytest.mark.parametrize("count", [7, 12, 31])
def test_the_interval_holds_the_median(count):
    rng = np.random.default_rng(count)
    inside = 0
    for _ in range(2000):
        low, high = turns.median_interval(list(rng.exponential(size=count)))
        inside += low <= np.log(2) <= high
    assert inside / 2000 > 0.94


def test_windows_are_measured_where_texts_are_long_enough(bert, quiet):
    short = batch(12, 8)
    found = cost.Costs(bert, [short], short).of(parse("window2"))
    assert "would not pay" in found["latency"]["why"] and found["flops"]["realised"] is None
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=128, num_hidden_layers=1, num_attention_heads=8, intermediate_size=32,
        max_position_embeddings=400,
    )  # fmt: skip
    long, inputs = BertForSequenceClassification(config).eval(), batch(400)
    found = cost.Costs(long, [inputs], inputs).of(parse("window8"))
    assert found["flops"]["simulated"] < found["flops"]["realised"] < 1
    assert found["latency"]["ratio"] > 0 and found["memory"]["ratio"] > 0


def test_a_ratio_that_noise_swamps_is_not_told(bert, monkeypatch):
    monkeypatch.setattr(cost, "NOISY", 0.0)
    inputs, heads = batch(12, 8), parse("heads50:random")
    heads[0].fit(bert, [])
    found = cost.Costs(bert, [inputs], inputs).of(heads)["latency"]
    assert "ratio" not in found and found["why"].startswith("noise: its ratio to dense lies anywhere from")


def test_a_run_measures_on_top_of_what_is_recorded(tiny_folder, tmp_path, capfd, quiet, monkeypatch):
    words = ["run", "--models", tiny_folder, "--tasks", "pocket-sentiment"]
    words += ["--methods", "prune80,heads50:random", "--limit", "8", "--repeats", "1"]
    words += ["--records", str(tmp_path)]
    assert main(words) == 0
    before = {item.cell["method"]: item for item in record.read_all(tmp_path)}
    assert not any("flops" in item.measured for item in before.values())
    with monkeypatch.context() as patched:
        patched.setattr(Prepared, "evaluate", None)  # nothing is evaluated again
        assert main([*words, "--measure"]) == 0
    captured = capfd.readouterr()
    assert "latency" in captured.out and "USDT" not in captured.err
    after = {item.cell["method"]: item for item in record.read_all(tmp_path)}
    for name, item in after.items():
        assert item.metrics == before[name].metrics and set(item.measured) >= {"flops", "latency", "memory"}
        assert item.measured.items() >= before[name].measured.items() and item.date == before[name].date
        assert item.provenance | {"arrays": ""} == before[name].provenance | {"arrays": ""}
        assert item.seconds == before[name].seconds
        assert {key: values.tolist() for key, values in item.scores.items()} == {
            key: values.tolist() for key, values in before[name].scores.items()
        }
        told = item.measured["costs"]
        assert told["environment"] == item.environment
        assert told["date"] >= item.date and set(told["seconds"]) == {"fit", "measure"}
    assert not list(checks.problems(tmp_path))
    assert after["heads50:random"].measured["latency"]["rounds"] >= turns.ROUNDS[0]
    asked = {"records": str(tmp_path), "limit": 8, "measure": True}
    again = attnbench.run(tiny_folder, "prune80", "pocket-sentiment", **asked)
    assert [item.date for item in again.records] == [after[m].date for m in ("dense", "uniform", "prune80")]
    assert main(["leaderboard", "--records", str(tmp_path)]) == 0
    shown = capfd.readouterr().out
    for words in ("sim. FLOPs", "latency", "memory", "GFLOPs a sample", "interleaved rounds"):
        assert words in shown


def test_costs_that_cannot_be_measured_leave_a_record_as_it_was(tiny_folder, tmp_path, capfd, monkeypatch):
    asked = {"records": str(tmp_path), "limit": 8}
    attnbench.run(tiny_folder, "prune80", "pocket-sentiment", **asked)
    before = {item.cell["method"]: item for item in record.read_all(tmp_path)}

    def broken(model, methods, batches):
        raise RuntimeError("no counter here")

    monkeypatch.setattr(cost, "skipped", broken)
    words = ["run", "--models", tiny_folder, "--tasks", "pocket-sentiment", "--methods", "prune80"]
    words += ["--limit", "8", "--records", str(tmp_path), "--measure"]
    assert main(words) == 0
    assert "its score stays, without costs: RuntimeError: no counter here" in capfd.readouterr().err
    found = {item.cell["method"]: item for item in record.read_all(tmp_path)}
    assert found["prune80"] == before["prune80"] and "flops" in found["dense"].measured
    monkeypatch.undo()
    assert main(words) == 0
    after = {item.cell["method"]: item for item in record.read_all(tmp_path)}
    assert "flops" in after["prune80"].measured and after["dense"] == found["dense"]
