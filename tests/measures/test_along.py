"""What methods do to attention, seen in an evaluation's own passes, is what passes for it alone see."""

from __future__ import annotations

import contextlib

import pytest
import tapped_models
import torch
from closeness import close, sharpness
from tiny_models import ENCODERS, padded, tiny

from attnbench import apply, parse
from attnbench.inputs.settings import Settings
from attnbench.matrix.bench import Bench
from attnbench.measures.along import Along
from attnbench.measures.measure import measure

SPECS = (
    "prune80",
    "logquant3:unpruned",
    "heads:fixed:off=0.1:off=1",
    "window3",
    "kvint8:everywhere",
    "uniform",
)


def rows_of(batch, rows, more=0):
    """Take rows of a batch, in their order, with `more` places of padding at the end."""
    found = {name: tensor[list(rows)] for name, tensor in batch.items()}
    return {name: torch.nn.functional.pad(tensor, (0, more)) for name, tensor in found.items()}


def same(found, expected):
    """Counts are the same; sums in single precision and of logarithms are, but for rounding."""
    assert {*found} == {*expected}
    for name in ("sparsity", "nominal", "bits", "heads", "samples"):
        assert found[name] == expected[name], name
    for name in ("entropy", "divergence"):
        assert (found[name] is None) == (expected[name] is None), name
        if expected[name] is not None:
            close(found[name], expected[name], roundings=200)


@contextlib.contextmanager
def counted(model):
    """Count the rows that a model reads."""
    rows = []
    handle = model.register_forward_pre_hook(
        lambda _, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    yield rows
    handle.remove()


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("name", [*ENCODERS, "gpt2", "llama", "gemma"])
def test_samples_are_found_in_the_passes_that_read_them(name, spec):
    model, methods = tiny(name), parse(spec)
    texts = padded(model, examples=8)
    samples = [rows_of(texts, (1, 2)), rows_of(texts, (6,))]
    expected = measure(model, samples, methods)
    along = Along(model, samples, methods)
    passes = [rows_of(texts, (7, 2, 0, 6), 3), rows_of(texts, (5, 4)), rows_of(texts, (3, 1)), texts]
    with along.applied() as applied, torch.no_grad():
        found = [model(**each).logits for each in passes]
    with counted(model) as rows:
        same(along.found(), expected)
    assert rows == [] and applied.hit == applied.expected > 0
    with apply(model, *methods), torch.no_grad():
        for each, logits in zip(passes, found, strict=True):
            plain = model(**each).logits
            there = each["attention_mask"].bool() if plain.dim() == 3 else slice(None)
            close(logits[there], plain[there], layers=3, gain=sharpness(model, each) ** 3)


@pytest.mark.parametrize("name", ["deberta-v2", "xlnet", "bloom"])
def test_samples_are_found_through_a_tap(name):
    model, texts = tapped_models.tiny(name), tapped_models.padded(name)
    samples, methods = [rows_of(texts, (1, 3))], parse("prune80")
    expected = measure(model, samples, methods)
    along = Along(model, samples, methods)
    with along.applied(), torch.no_grad():
        model(**rows_of(texts, (2, 0)))
        model(**texts)
    with counted(model) as rows:
        same(along.found(), expected)
    assert rows == []


@pytest.mark.parametrize(
    "samples, passes, after",
    [
        ([(0, 1, 2), (3,)], [], [3, 1]),
        ([(0, 1, 2), (3,)], [(0, 1)], [1, 1]),
        ([(0, 1, 2), (3,)], [(0, 0, 0)], [2, 1]),  # one sample, however often it is read
        ([(0, 1, 2), (3, 3)], [(3,), (3,)], [3]),  # two samples of one text
        ([(0, 1, 2), (3, 3)], [(3, 3, 0), (1, 2)], []),
    ],
)
def test_what_no_pass_reads_is_read_after(samples, passes, after):
    model, methods = tiny("bert"), parse("prune80")
    texts = padded(model, examples=5)
    batches = [rows_of(texts, rows) for rows in samples]
    expected = measure(model, batches, methods)
    along = Along(model, batches, methods)
    with along.applied(), torch.no_grad():
        for rows in passes:
            model(**rows_of(texts, rows))
    with counted(model) as read:
        same(along.found(), expected)
    assert read == after


def test_a_pass_that_goes_on_from_a_cache_is_no_sample():
    model, methods = tiny("llama"), parse("prune80")
    samples = [rows_of(padded(model), (7,))]
    along = Along(model, samples, methods)
    with along.applied(), torch.no_grad():
        cache = model(input_ids=torch.full((1, 3), 5), use_cache=True).past_key_values
        model(input_ids=samples[0]["input_ids"], past_key_values=cache)
    with counted(model) as read:
        same(along.found(), measure(model, samples, methods))
    assert read[0] == 1


def test_a_pass_that_breaks_off_leaves_nothing_watched():
    model, methods = tiny("bert"), parse("prune80")
    texts = padded(model)
    along = Along(model, [rows_of(texts, (0,))], methods)
    with along.applied(), torch.no_grad():
        with pytest.raises(IndexError):
            model(input_ids=torch.full((1, 3), 1000), attention_mask=torch.ones(1, 3, dtype=int))
        model(**texts)
        assert along.found()["samples"] == 1
    with torch.no_grad():
        before = model(**texts).logits
    assert torch.equal(before, model(**texts).logits.detach())


def test_where_caches_are_cut_nothing_is_watched():
    model = tiny("llama")
    methods = parse("evict50:tova+prune80")
    samples = [padded(model, side="left")]
    along = Along(model, samples, methods)
    with along.applied(), torch.no_grad():
        model(**samples[0], use_cache=True)
    with counted(model) as read:
        same(along.found(), measure(model, samples, methods))
    assert read[0] == 8
    assert Along(model, samples, parse("evict50:tova")).found() == {}


@pytest.mark.parametrize(
    "name, task, read",
    [("bert", "pocket-sentiment", 0), ("bert", "pocket-qa", 0), ("llama", "pocket-agreement", 0),
     ("gpt", "pocket-perplexity", 0), ("marian", "pocket-translation", 16)],
)  # fmt: skip
def test_a_task_reads_its_samples_once(name, task, read):
    bench, methods = Bench(name, task, Settings(limit=40)), parse("prune80")
    samples = bench.batches(16)
    expected = measure(bench.model, samples, methods)
    along = Along(bench.model, samples, methods)
    with along.applied():
        found = bench.prepared.evaluate(bench.model, None, **bench.serving)
    with counted(bench.model) as rows:
        same(along.found(), expected)
    assert sum(rows) == read
    with apply(bench.model, *methods):
        plain = bench.prepared.evaluate(bench.model, None, **bench.serving)
    assert {each: value["value"] for each, value in found.metrics.items()} == {
        each: value["value"] for each, value in plain.metrics.items()
    }
