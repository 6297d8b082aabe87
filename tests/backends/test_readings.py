"""Prompts that are read once for all methods that cut caches: the same answers, and the model is spared."""

from __future__ import annotations

import contextlib

import pytest
import tiny_causal
import torch
import transformers
from closeness import close
from lm_eval.api.instance import Instance
from tiny_causal import drawn
from transformers.cache_utils import DynamicLayer

from attnbench.backends.causal import readings
from attnbench.backends.causal.model import CausalLM
from attnbench.engine.serving import recalled
from attnbench.engine.serving.attention import apply
from attnbench.engine.serving.prompts import prompts
from attnbench.methods.protocol import Method
from attnbench.methods.spec import parse

SIZES = {
    "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 24,
    "vocab_size": 44, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GPT2 = {"n_embd": 16, "n_layer": 3, "n_head": 4, "vocab_size": 44, "n_positions": 64, "bos_token_id": 1}
BUILT = {
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, num_key_value_heads=2)),
    "gpt2": lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2, eos_token_id=2)),
    "gemma2": lambda: transformers.Gemma2ForCausalLM(
        transformers.Gemma2Config(
            **SIZES, num_key_value_heads=2, head_dim=4, layer_types=["full_attention"] * 3
        )
    ),
    "windows": lambda: transformers.MistralForCausalLM(
        transformers.MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=8)
    ),
}  # fmt: skip
SPECS = [
    "evict50:h2o", "evict50:snapkv:window=4", "evict50:tova", "evict50:expected", "evict50:streamingllm",
    "evict50:random", "evict50:snapkv:budget=adakv", "kvint4", "kvint2:kivi:group=4:residual=8",
    "evict50:h2o+kvint4", "evict50:h2o:layers=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_causal.tokenizer()


def built(name):
    torch.manual_seed(0)
    model = BUILT[name]().eval().double()
    for weight in model.parameters():
        if weight.dim() == 2:
            weight.data.normal_(std=0.5)
    return model


def requests():
    arguments = [(drawn(k, 12 + 5 * (k % 3)), " " + drawn(9 + k, 1 + k % 3)) for k in range(4)]
    arguments.append((arguments[0][0], " w7"))  # another continuation of one prompt
    return [
        Instance("loglikelihood", {}, each, k, metadata=("made", k, 1)) for k, each in enumerate(arguments)
    ]


def answers(lm, model, spec):
    """Return what is answered, how many tokens the model has read for it, and what the receipt says."""
    read = []
    hook = model.register_forward_pre_hook(
        lambda module, args, given: read.append(given["input_ids"].numel()), with_kwargs=True
    )
    with apply(model, spec) as applied, lm.serving(model, batch_size=3) as served:
        found = served.loglikelihood(requests())
    hook.remove()
    told = applied.cached(), applied.hit, applied.expected, applied.cut, applied.scored, dict(applied.notes)
    return torch.tensor(found, dtype=torch.float64), sum(read), told


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("name", BUILT)
def test_a_prompt_that_is_recalled_is_cut_as_one_that_is_read(name, spec, tokenizer, monkeypatch):
    model = built(name)
    monkeypatch.setattr(recalled, "recalls", lambda model: False)
    first, whole, told = answers(CausalLM(model.config, tokenizer), model, spec)
    monkeypatch.undo()
    lm = CausalLM(model.config, tokenizer)
    answers(lm, model, "evict75:knorm")
    second, _, told_again = answers(lm, model, spec)
    third, spared, told_last = answers(lm, model, spec)
    for found in (second, third):
        close(found, first, layers=3, gain=4)
    for shares, *counts in (told_again, told_last):
        assert shares == pytest.approx(told[0]) and counts == [*told[1:]]
    assert told[1] == told[2] > 0 and told[4] > 0
    if name == "windows":
        assert spared > whole / 2  # what more than the order of tokens hides is not kept
    else:
        assert spared < whole / 3


def test_what_installs_other_weights_is_not_recalled(tokenizer):
    class Halving(Method):
        @contextlib.contextmanager
        def installed(self, model):
            for weight in model.parameters():
                weight.data.div_(2)
            yield
            for weight in model.parameters():
                weight.data.mul_(2)

    model = built("llama")
    lm = CausalLM(model.config, tokenizer)
    answers(lm, model, "evict50:h2o")
    evict = parse("evict50:h2o")
    with apply(model, Halving(), *evict), lm.serving(model) as served:
        found = torch.tensor(served.loglikelihood(requests()), dtype=torch.float64)
    with apply(model, Halving(), *evict), CausalLM(model.config, tokenizer).serving(model) as served:
        close(found, torch.tensor(served.loglikelihood(requests()), dtype=torch.float64), layers=3, gain=4)


@pytest.mark.parametrize(
    "spec",
    ["evict50:oracle", "evict50:h2o:every=2", "prune50+evict50:h2o", "kvint4:everywhere", "prune50"],
)
def test_what_looks_ahead_or_changes_the_prompt_is_not_recalled(spec):
    model = built("llama")
    with apply(model, spec):
        assert not recalled.recalls(model)


def test_another_model_reads_for_itself(tokenizer):
    model, other = built("llama"), built("llama")
    lm = CausalLM(model.config, tokenizer)
    _, whole, _ = answers(lm, model, "evict50:h2o")
    assert answers(lm, model, "evict50:h2o")[1] < whole / 3
    assert answers(lm, other, "evict50:h2o")[1] == whole


def test_no_more_is_kept_than_there_is_room_for(tokenizer, monkeypatch):
    model = built("llama")
    lm = CausalLM(model.config, tokenizer)
    monkeypatch.setattr(readings.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 9000}))
    runs = [answers(lm, model, "evict50:h2o") for _ in range(3)]
    # one prompt of 11 tokens, 3 layers, 4 + 2 + 2 heads of 4 doubles each, is 8,448 bytes: above half of it
    assert runs[2][1] == runs[0][1]
    close(runs[2][0], runs[0][0], layers=3, gain=4)


def test_reading_leaves_what_is_applied_uncounted():
    model = built("llama")
    ids = torch.arange(4, 24)[None]
    with torch.no_grad(), apply(model, "evict50:h2o") as applied:
        with prompts(model, [19]):
            reading = recalled.read(model, ids[:, :19])
        assert reading is not None and applied.hit == 0 and applied.tally.seen == 0
        recalled.cut(model, reading)
        assert applied.tally.seen == applied.expected


def test_a_cache_of_another_form_is_not_recalled(monkeypatch):
    model = built("llama")
    whole = DynamicLayer.update

    def other(self, key, value, *args, **more):
        found = whole(self, key, value, *args, **more)
        self.keys = 2 * self.keys
        return found

    with torch.no_grad(), apply(model, "evict50:h2o"):
        assert recalled.read(model, torch.arange(4, 20)[None]) is not None
        monkeypatch.setattr(DynamicLayer, "update", other)
        assert recalled.read(model, torch.arange(4, 20)[None]) is None


def test_without_a_folder_for_what_is_kept_prompts_are_read_again(tokenizer, monkeypatch):
    def full():
        raise OSError("no space left")

    model = built("llama")
    lm = CausalLM(model.config, tokenizer)
    monkeypatch.setattr(readings.tempfile, "TemporaryFile", full)
    runs = [answers(lm, model, "evict50:h2o") for _ in range(2)]
    assert runs[0][1] == runs[1][1]
    close(runs[1][0], runs[0][0], layers=3, gain=4)
