"""Windows of texts whose first tokens are a prompt, against a plain model on each window alone."""

from __future__ import annotations

import math

import asked_contexts
import numpy as np
import pytest
import tiny_causal
import tiny_tasks
import torch
from closeness import close
from slow_caches import continued

import attnbench
from attnbench.backends import lm_eval
from attnbench.engine.serving.attention import apply
from attnbench.errors import UserError
from attnbench.inputs.settings import Settings

METHOD, HEADS, LAYERS, LONGEST = "evict50:streamingllm", 2, 2, 32


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_tasks.built_once(tmp_path_factory, tiny_causal.build)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_causal.write(tmp_path_factory.mktemp("tasks"), "pages")


def windows(tokens, first):
    """Part a text into inputs of at most 32 tokens and how many targets each has, the last one full too."""
    whole, start = [first, *tokens], 0
    while start < len(tokens):
        targets = min(LONGEST, len(tokens) - start)
        end = start + targets
        yield whole[max(0, end - LONGEST) : end], whole[end - targets + 1 : end + 1]
        start = end


@pytest.mark.parametrize("prompt", [2, 6, 31])
@pytest.mark.parametrize("method", [METHOD, None], ids=str)
def test_what_comes_after_a_windows_prompt_is_scored(method, prompt, checkpoint, folder):
    chosen = checkpoint("llama", LONGEST)
    prepared = lm_eval.prepare(f"made@prompt{prompt}", chosen, Settings(include_path=folder))
    model, tokenizer = chosen.load(prepared.head).double(), chosen.tokenizer()
    prepared.check(model)
    with apply(model, *([method] if method else [])) as applied:
        found = prepared.evaluate(model, batch_size=5)
    total, less, all_windows, scored = 0.0, 0, 0, found.scores["token_perplexity"]
    kept = [asked_contexts.first_and_last(prompt, HEADS)] * LAYERS
    everything = [np.ones((HEADS, prompt), bool)] * LAYERS
    for instance, (value, count) in zip(prepared.task.instances, scored, strict=True):
        likelihood, counted = 0.0, 0
        for read, targets in windows(tokenizer(instance.args[0])["input_ids"], tokenizer.bos_token_id):
            mine = targets[-(len(read) - prompt) :] if len(read) > prompt else []
            all_windows, less, counted = all_windows + 1, less + (not mine), counted + len(mine)
            if mine:
                logits = continued(model, torch.tensor([read]), prompt, kept if method else everything)[0]
                logs = logits.log_softmax(-1)[-len(mine) :]
                likelihood += float(logs[range(len(mine)), mine].sum())
        assert counted == count
        close(torch.tensor(float(value)), torch.tensor(likelihood), layers=2)
        total += likelihood
    if method:
        assert applied.scored == applied.cut == scored[:, 1].sum()
    metric = found.metrics["token_perplexity"]
    assert metric["value"] == pytest.approx(math.exp(-total / scored[:, 1].sum()), rel=1e-4)
    assert [*found.metrics] == ["token_perplexity"] and not metric["higher_is_better"]
    told = f"{less} of {all_windows} windows of task 'made@prompt{prompt}' have at most {prompt + 1} tokens"
    assert [note.startswith(told) for note in prepared.notes] == [True] * (less > 0)


def test_a_table_has_the_dense_row_after_the_same_prompts(checkpoint, folder, tmp_path):
    chosen = checkpoint("llama", LONGEST)
    found = attnbench.run(
        chosen.path, [METHOD, "logquant3"], "made", prompt=6, include_path=folder, records=str(tmp_path)
    ).records
    assert {(item.cell["task"], item.status) for item in found} == {("made@prompt6", "measured")}
    counts = [item.scores["token_perplexity"][:, 1] for item in found]
    assert all((each == counts[0]).all() for each in counts)
    cut = found[2]
    assert cut.receipt["cut"] == 1 and cut.receipt["effect"] == "applied" and cut.measured["cache"] == 0.5
    assert any("nothing of them is scored" in note for note in cut.settings["notes"])
    plain = attnbench.run(chosen.path, [METHOD], "made", include_path=folder, records=str(tmp_path)).records
    assert [item.status for item in plain] == ["measured", "measured", "not applicable"]


@pytest.mark.parametrize("prompt", [32, 4096])
def test_a_prompt_that_leaves_nothing_to_score_is_refused(prompt, checkpoint, folder):
    with pytest.raises(UserError, match=f"more than {prompt + 1} tokens, the model takes 32"):
        lm_eval.prepare(f"made@prompt{prompt}", checkpoint("llama", LONGEST), Settings(include_path=folder))


def test_what_is_learned_from_has_no_prompt(checkpoint, folder):
    made = [
        lm_eval.prepare(name, checkpoint("llama", LONGEST), Settings(include_path=folder)).calibration()
        for name in ("made", "made@prompt20")
    ]
    for plain, prompted in zip(*made, strict=True):
        assert all(torch.equal(plain[key], prompted[key]) for key in plain)
