"""Induction heads removed: which are chosen, what it costs, and draws beside them, by plain transformers."""

from __future__ import annotations

import copy

import numpy as np
import planted_heads as planted
import pytest
import torch
from closeness import close
from role_texts import looked, numbered, reading
from scipy import stats
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

from attnbench.methods.spec import parse_study
from attnbench.studies.passes import conduct
from attnbench_plugins.studies.patterns.copies import repeated

BEGIN, HALF = [0, 0], 50  # this tokenizer begins texts with its <0>, which an unknown word is too


@pytest.fixture(scope="module")
def data():
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=80, n_positions=128, n_embd=32, n_layer=3, n_head=4, n_inner=16, bos_token_id=0,
        eos_token_id=0, attn_implementation="eager",
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    for weight in model.parameters():
        weight.data.normal_(std=0.3)
    return reading(model, numbered(79, "<0> $A", bos=0))


def sequences(seed):
    return torch.tensor([repeated(range(1, 80), HALF, seed, number, BEGIN) for number in range(4)])


def without(model, gone):
    """Return a copy of a GPT-2 whose projections no longer read some (layer, head)."""
    made = copy.deepcopy(model)
    for layer, head in gone:
        made.transformer.h[layer].attn.c_proj.weight.data[8 * head : 8 * head + 8] = 0
    return made


def losses(model, ids):
    """Return the mean loss over the second half of each sequence, but for its first token."""
    with torch.no_grad():
        logits = model(ids).logits.double().log_softmax(-1)
    told = logits[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
    return -told[:, len(BEGIN) + HALF :].mean(1).numpy()


def test_the_heads_chosen_and_what_they_cost_are_those_of_plain_transformers(data):
    table = looked(data.model, data, parse_study("removal3:draws=5:sequences=4"))["dense"].tables()
    with torch.no_grad():
        maps = data.model(sequences(0), output_attentions=True).attentions
    rows = range(len(BEGIN) + HALF, len(BEGIN) + 2 * HALF)
    induction = np.array(
        [[m[:, h, rows, [r - HALF + 1 for r in rows]].mean() for h in range(4)] for m in maps]
    )
    close(table["heads"]["induction"].to_numpy().reshape(3, 4), induction, layers=4, gain=4)
    best = sorted(np.ndindex(3, 4), key=lambda at: -induction[at])[:3]
    removed = table["heads"]["removed"]
    assert {(layer, head) for _, layer, head in removed[removed == 1].index} == set(best)
    whole, gone = losses(data.model, sequences(1)), losses(without(data.model, best), sequences(1))
    found = table["removed"]
    close(found.loc["none", "loss"], whole.mean(), layers=4, gain=4)
    close(found.loc["chosen", "loss"], gone.mean(), layers=4, gain=4)
    row = found.loc["chosen"]
    low, high = stats.t.interval(0.95, 3, (gone - whole).mean(), stats.sem(gone - whole))
    np.testing.assert_allclose([row["increase_low"], row["increase_high"]], [low, high], rtol=1e-2)
    drawn = found["increase"].drop(["none", "chosen"])
    compared = table["compared"].loc["chosen"]
    assert list(drawn.index) == [f"random {k}" for k in range(5)]
    assert compared["above"] == (drawn < row["increase"]).sum() and compared["draws"] == 5
    assert compared["p"] == (6 - compared["above"]) / 6
    assert compared["lead"] == pytest.approx(row["increase"] - drawn.max())


def test_draws_have_as_many_heads_of_each_layer_and_methods_the_same_heads(data):
    from attnbench.methods.spec import parse

    study = parse_study("removal3:draws=6:sequences=2")
    (seen,) = conduct(data.model, [study], data, {"prune50": parse("prune50")})
    dense, pruned = seen.twins["dense"], seen.twins["prune50"]
    assert dense.sets == pruned.sets and dense.losses["none"] is not pruned.losses["none"]
    chosen = {key: len(heads) for key, heads in dense.sets["chosen"].items()}
    drawn = [gone for name, gone in dense.sets.items() if name.startswith("random")]
    assert len(drawn) == 6 and all({k: len(set(h)) for k, h in gone.items()} == chosen for gone in drawn)
    assert len({str(gone) for gone in drawn}) > 1
    assert not np.allclose(dense.losses["none"], pruned.losses["none"])


@pytest.mark.parametrize(
    ("model", "spec", "said"),
    [
        (BertModel(BertConfig(vocab_size=80, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
                              intermediate_size=8)), "removal2", "for language models"),
        (planted.decoder(), "removal8", "8 heads of 8 leave none"),
        (planted.decoder(), "removal2", "the model takes 96"),
    ],
)  # fmt: skip
def test_a_model_that_it_is_not_for_is_told(model, spec, said):
    found = reading(model.eval(), numbered(79, "<0> $A", bos=0))
    (seen,) = conduct(model, [parse_study(spec)], found)
    assert said in seen.absent and not seen.failed


@pytest.mark.parametrize("spec", ["removal0", "removal2:draws=0", "removal2:sequences=1"])
def test_numbers_out_of_range_are_refused(spec):
    from attnbench.errors import UserError

    with pytest.raises(UserError, match="at least"):
        parse_study(spec)
