"""Vectors of heads and layers: those that plain transformers has for one text alone, whatever the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from closeness import close
from tiny_models import padded, tiny

from attnbench.errors import UserError
from attnbench.methods.views import Batch, Sample, Tokens
from attnbench.studies.probes import pooled
from attnbench.studies.probes.pooled import EMBEDDINGS, Place, Pooled, one_pass

CLS = 50
# the module whose input is the heads' contexts side by side, and on which sides a text may be padded
PROJECTIONS = {
    "bert": ("attention.output.dense", ("right",)),
    "distilbert": ("attention.out_lin", ("right",)),
    "albert": ("attention.dense", ("right",)),
    "gpt2": ("attn.c_proj", ("right",)),
    "llama": ("self_attn.o_proj", ("right", "left")),
    "gemma": ("self_attn.o_proj", ("right",)),
    "t5": ("SelfAttention.o", ("right", "left")),
}
CASES = [(name, side) for name, (_, sides) in PROJECTIONS.items() for side in sides]


def plain(name, ids, pooling, special):
    """Read one text alone by hooks: (layer, head) -> vector, layer -> vector."""
    model = tiny(name)
    reader = model.get_encoder() if model.config.is_encoder_decoder else model
    caught = []
    hooks = [
        module.register_forward_pre_hook(lambda module, args: caught.append(args[0][0]))
        for path, module in reader.named_modules()
        if path.endswith(PROJECTIONS[name][0])
    ]
    with torch.no_grad():
        output = reader(
            input_ids=ids[None], attention_mask=torch.ones_like(ids[None]), output_hidden_states=True
        )
    for hook in hooks:
        hook.remove()
    own = [k for k in range(len(ids)) if not special[k]]
    at = {"cls": [ids.tolist().index(CLS)], "first": own[:1], "last": own[-1:], "mean": own}[pooling]
    heads = {}
    count = model.config.num_attention_heads
    for layer, context in enumerate(caught):
        for head, each in enumerate(context[at].mean(0).chunk(count)):
            heads[layer, head] = each
    layers = {
        k - 1: hidden[0, own if k == 0 else at].mean(0) for k, hidden in enumerate(output.hidden_states)
    }
    return heads, layers


@pytest.mark.parametrize("pooling", ["cls", "first", "last", "mean"])
@pytest.mark.parametrize(("name", "side"), CASES)
def test_a_batch_has_the_vectors_of_each_text_alone(name, side, pooling):
    model = tiny(name)
    inputs = padded(model, side, examples=5)
    inputs.pop("decoder_input_ids", None)
    shown = inputs["attention_mask"].bool()
    samples = []
    for k, mask in enumerate(shown):
        first = int(mask.nonzero()[0])
        inputs["input_ids"][k, first] = CLS
        ids = inputs["input_ids"][k][mask]
        special = np.arange(len(ids)) % (len(ids) - 1) == 0  # the first and the last
        samples.append(Sample(k, Tokens(ids.numpy(), special, ("w",) * len(ids))))
    reader = model.get_encoder() if model.config.is_encoder_decoder else model
    found = one_pass(model, reader, Batch(inputs, tuple(samples)), pooling, CLS)
    for k, sample in enumerate(samples):
        heads, layers = plain(name, torch.from_numpy(sample.source.ids), pooling, sample.source.special)
        kinds = {kind for kind, _, _ in found}
        assert kinds == {"decoder" if name in ("gpt2", "llama", "gemma") else "encoder"}
        kind = kinds.pop()
        assert {(layer, head) for layer, head in heads} == {
            (layer, head)
            for _, layer, whole in found
            if not whole
            for head in range(found[kind, layer, False].shape[1])
        }
        size = max(float(each.abs().max()) for each in (*heads.values(), *layers.values()))
        for (layer, head), vector in heads.items():
            close(found[kind, layer, False][k, head], vector, layers=3, gain=8 * size, says=f"{layer} {head}")
        assert sorted(layers) == sorted(layer for _, layer, whole in found if whole)
        for layer, vector in layers.items():
            close(found[kind, layer, True][k, 0], vector, layers=3, gain=8 * size, says=f"layer {layer}")


def kept(values: torch.Tensor, later: torch.Tensor | None = None) -> Pooled:
    store = Pooled(len(values) + (0 if later is None else len(later)))
    store.begin({("encoder", 0, False): values, ("encoder", EMBEDDINGS, True): values[:, :1]})
    store.write(
        range(len(values)), {("encoder", 0, False): values, ("encoder", EMBEDDINGS, True): values[:, :1]}
    )
    if later is not None:
        store.write(range(len(values), store.texts), {("encoder", 0, False): later})
    return store


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6, 1e12])
@pytest.mark.parametrize("memory", [0, 10**9])
def test_what_is_kept_is_off_by_half_precision_whatever_its_size(size, memory, monkeypatch):
    monkeypatch.setattr(pooled, "IN_MEMORY", memory)
    values = torch.randn(6, 2, 5, generator=torch.Generator().manual_seed(0)) * size
    store = kept(values)
    folder = store.folder
    assert (folder is not None) == (memory == 0)
    half = torch.finfo(torch.float16).eps / 2
    found = store.vectors([Place("encoder", 0, 1), Place("encoder", 0, 0)], np.array([4, 0]))
    wanted = torch.cat([values[[4, 0], 1], values[[4, 0], 0]], 1)
    assert (abs(found - wanted) <= half * wanted.abs()).all()
    u, v = wanted, torch.cat([values[[1, 2], 1], values[[1, 2], 0]], 1)
    pair = store.vectors([Place("encoder", 0, 1), Place("encoder", 0, 0)], np.array([4, 0]), np.array([1, 2]))
    assert (abs(pair[:, :10] - (u - v).abs()) <= half * (u.abs() + v.abs())).all()
    assert (abs(pair[:, 10:] - u * v) <= 3 * half * (u * v).abs()).all()
    del store
    assert folder is None or not folder.exists()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e9])
def test_a_value_that_cannot_be_kept_is_refused(bad):
    with pytest.raises(ArithmeticError, match="encoder layer 0: not finite, or beyond half precision"):
        kept(torch.ones(2, 2, 3), torch.full((1, 2, 3), bad))


def test_pooling_says_which_token():
    def sample(special):
        return Sample(0, Tokens(np.array([CLS, 7, 8, 51]), np.array(special), ("w",) * 4))

    usual = sample([True, False, False, True])
    for pooling, wanted in (
        ("cls", [1, 0, 0, 0]), ("first", [0, 1, 0, 0]), ("last", [0, 0, 1, 0]), ("mean", [0, 0.5, 0.5, 0]),
    ):  # fmt: skip
        assert pooled.shares(usual, pooling, CLS).tolist() == wanted
    assert pooled.shares(sample([True] * 4), "mean", CLS).tolist() == [0.25] * 4
    for cls in (None, 99):
        with pytest.raises(UserError, match="no classification token: pooling=first, last or mean"):
            pooled.shares(usual, "cls", cls)
