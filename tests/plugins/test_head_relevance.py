"""`heads:lrp` against the parts of each text alone, what it ranks, and what it is not applicable to."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import tapped_models
import torch
from tiny_models import padded, tiny

from attnbench import NotApplicable, parse, relevance
from attnbench.studies.importance import criteria


def labelled(model, seed):
    """Make a padded batch with what the model's task has for labels, as calibration does."""
    batch = padded(model, examples=4, tokens=7, seed=seed)
    if model.config.is_encoder_decoder:
        batch["labels"] = batch.pop("decoder_input_ids")
        batch["labels"][1, 3:] = -100
    else:
        batch["labels"] = torch.zeros(4, dtype=torch.long)
    return batch


@pytest.mark.parametrize("spec", ["heads50:lrp", "heads50:lrp:rule=attn"])
@pytest.mark.parametrize("name", ["bert", "bart"])
def test_a_head_scores_its_share_of_what_its_layer_carries_of_the_answer(name, spec):
    model = copy.deepcopy(tiny(name)).double()
    batches = [labelled(model, seed) for seed in (1, 2)]
    (method,) = parse(spec)
    method.fit(model, batches)
    sums, count = {}, 0
    for batch in batches:
        for at in range(4):
            shown = batch["attention_mask"][at].bool()
            one = {"input_ids": batch["input_ids"][at : at + 1, shown]}
            if name == "bart":
                one["labels"] = batch["labels"][at][batch["labels"][at] != -100][None]
            for key, parts in relevance(model, one, method.rule).heads.items():
                sums[key] = sums.get(key, 0) + (parts.abs() / parts.abs().sum())[0]
            count += 1
    assert set(method.scores_) == set(sums)
    for key, total in sums.items():
        np.testing.assert_allclose(method.scores_[key], total / count, atol=1e-5)
    ranked = torch.cat([method.scores_[key] for key in sorted(sums)])
    alive = torch.cat([method.alive_[key] for key in sorted(sums)])
    assert int((alive == 0).sum()) == len(ranked) // 2
    assert ranked[alive == 0].max() <= ranked[alive == 1].min()


def test_sites_are_chosen_and_it_is_a_criterion_like_others():
    model = tiny("bert")
    (method,) = parse("heads50:lrp:layers=1-2")
    method.fit(model, [labelled(model, 1)])
    assert sorted(method.scores_) == [("encoder", 1), ("encoder", 2)]
    assert "lrp" in criteria() and criteria()["lrp"] is type(method)


def test_what_no_rule_covers_is_not_applicable():
    (method,) = parse("heads50:lrp")
    name = next(iter(tapped_models.ZOO))
    with pytest.raises(NotApplicable, match="tap"):
        method.fit(tapped_models.tiny(name), [tapped_models.padded(name)])
    model = copy.deepcopy(tiny("bert"))
    model.bert.encoder.layer[2].intermediate.intermediate_act_fn = torch.nn.Softplus()
    with pytest.raises(NotApplicable, match=r"softplus.* in bert\.encoder\.layer\.2"):
        method.fit(model, [padded(model)])
