"""What a method promises of its outputs: each check returns what it saw or raises Fault."""

from __future__ import annotations

import contextlib
import copy
import gc
import json
from typing import Any
from unittest import mock

import torch
from torch import Tensor, UntypedStorage
from torch.multiprocessing.reductions import StorageWeakRef

from attnbench import sites, tiles
from attnbench.attention import apply
from attnbench.conformance import anew, seeds, tiny
from attnbench.conformance.subject import (
    TOLERANCE,
    Fault,
    Subject,
    confirmed,
    first_nonfinite,
    spied,
    told,
    within,
    worst,
)  # fmt: skip
from attnbench.errors import NotApplicable
from attnbench.guard import Guard, StageError, require_nothing_kept, tensors_in
from attnbench.measure import summary
from attnbench.method import Method, Site, fitted, needs_fit, overridden

LENGTHS = (12, 12, 12, 9, 9, 7, 12, 5)  # equal neighbours share a tile, so examples that mix are seen


def sites_hit(subject: Subject, seed: int) -> str:
    """Every stage is called at every site that its method selects."""
    called: set[tuple[int, str, str, int]] = set()
    model, methods = subject.shared, subject.methods()
    order = {id(method): at for at, method in enumerate(methods)}
    spied(methods, lambda m, stage, site, *_: called.add((order[id(m)], stage, site.kind, site.layer)))
    wanted = {
        (at, stage, site.kind, site.layer): f"{Guard(method, stage).at(site)} was never called"
        for at, method in enumerate(methods)
        for stage in set(overridden(method)) - {"hidden"}  # a layer with two sites has one input
        for site in sites.discover(model)
        if method.selects(site)
    }
    with torch.no_grad(), apply(model, *methods) as applied:
        tiny.outputs(model, subject.sample(seed))
    missed = [words for key, words in wanted.items() if key not in called]
    if missed:
        raise Fault(missed[0] + (f", and {len(missed) - 1} more" if len(missed) > 1 else ""))
    if applied.hit < applied.expected:
        raise Fault(f"{applied.hit} of {applied.expected} sites hit")
    return f"{applied.hit} of {applied.expected} sites"


def finite(subject: Subject, seed: int) -> str:
    """Outputs are finite in float32 and bfloat16, dtype kept."""
    for dtype in (torch.float32, torch.bfloat16):
        _require_finite(subject, seed, dtype)
    return "float32, bfloat16"


def _require_finite(subject: Subject, seed: int, dtype: torch.dtype) -> None:
    origin, look = first_nonfinite()
    model = subject.model().to(dtype)
    methods = subject.methods() if dtype == torch.float32 else copy.deepcopy(subject.terms)
    name = str(dtype).removeprefix("torch.")
    try:
        if dtype != torch.float32:
            subject.fit(model, methods)
        inputs = subject.batch(tiny.samples(subject.family, LENGTHS, seed))
        found = subject.run(inputs, spied(methods, look, copies=True), model)
    except Exception as error:
        raise Fault(f"{name}: {told(error)}") from error
    if origin or not bool(found[tiny.real(subject.family, inputs)].isfinite().all()):
        raise Fault(f"{name}: {origin[0] if origin else 'the outputs are not finite'}")


def causal(subject: Subject, seed: int) -> str:
    """Tokens after t leave outputs up to t bit-equal."""
    if not tiny.FAMILIES[subject.family].causal:
        raise NotApplicable("sees both ways")
    inputs = subject.batch(tiny.samples(subject.family, (14, 14, 10), seed))
    key = "decoder_input_ids" if "decoder_input_ids" in inputs else "input_ids"
    last = inputs[key].shape[1] // 2
    other = {**inputs, key: inputs[key].clone()}
    later = other[key][:, last + 1 :]
    later.copy_(torch.where(later >= tiny.PLAIN, tiny.VOCABULARY + tiny.PLAIN - 1 - later, later))
    before, after = (subject.run(given)[:, : last + 1] for given in (inputs, other))
    within(worst(after, before), f"tokens after {last} change outputs up to {last}", 0.0)
    return "bit-equal"


@confirmed
def batched(subject: Subject, seed: int) -> str:
    """A sample gives the same alone and in a padded batch of 8, on either side."""
    chosen = tiny.samples(subject.family, LENGTHS, seed)
    alone = [subject.run(subject.batch([sample]))[0] for sample in chosen]
    gap = 0.0
    for side in tiny.FAMILIES[subject.family].sides:
        inputs = subject.batch(chosen, side)
        together, real = subject.run(inputs), tiny.real(subject.family, inputs)
        for at, expected in enumerate(alone):
            found = together[at][real[at]]
            gap = max(gap, within(worst(found, expected), f"sample {at} in a batch padded on the {side}"))
    return f"{gap:.1g}"


@confirmed
def tiled(subject: Subject, seed: int) -> str:
    """Tiles of one query row give what whole examples give."""
    inputs = subject.batch(tiny.samples(subject.family, (12,), seed))
    whole = subject.run(inputs)
    with mock.patch.dict(tiles.TILE_BYTES, dict.fromkeys(tiles.TILE_BYTES, 1)):
        parts = subject.run(inputs)
    return f"{within(worst(parts, whole), 'in tiles of one query row'):.1g}"


def deterministic(subject: Subject, seed: int) -> str:
    """Made and fitted anew, or the same fitted again, it gives the same; nobody sets everybody's seed."""
    inputs, again = subject.sample(seed), subject.terms
    expected = subject.run(inputs)
    same = 0.0 if subject.device == "cpu" else TOLERANCE
    ends = []
    with seeds.kept():
        for draw, words in enumerate(("a second method of the same spec", "the same method fitted again")):
            seeds.sow(20210409 + draw)  # nobody begins with it, as many do with 0
            fresh = anew.made(subject.terms)
            again = again if draw else fresh
            if any(map(needs_fit, again)):
                subject.fit(subject.model(), again)
            within(worst(subject.run(inputs, copy.deepcopy(again)), expected), words, same)
            ends.append(seeds.states())
    reset = [name for name in ends[0] if ends[0][name] == ends[1][name]]
    if reset:
        raise Fault(f"sets the seed of {reset[0]}, which is everybody's: draw from a generator of its own")
    return "bit-equal" if not same else f"{same:g}"


def recorded(subject: Subject, seed: int) -> str:
    """A record can hold what fit learned."""
    learned = [fitted(method) for method in subject.methods() if needs_fit(method)]
    if not learned:
        raise NotApplicable("learns nothing")
    try:
        json.dumps(list(map(summary, learned)), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise Fault(told(error)) from error
    return ", ".join(dict.fromkeys(key for each in learned for key in each))


def stateless(subject: Subject, seed: int) -> str:
    """The order of samples does not matter, and no stage keeps its tensor or a view of its memory."""
    first, second, third = (subject.sample(seed + at) for at in range(3))
    methods, names = subject.methods(), list[tuple[str, StorageWeakRef]]()
    memory: list[UntypedStorage] = []  # alive to the end, so that no address is used twice
    own = {tensor.untyped_storage().data_ptr() for m in methods for _, tensor in tensors_in(vars(m))}

    def see(method: Method, stage: str, site: Site, tensor: Tensor, result: Tensor) -> None:
        names.append((Guard(method, stage).at(site), StorageWeakRef(tensor.untyped_storage())))
        memory.extend([tensor.untyped_storage(), result.untyped_storage()])

    spied(methods, see)
    seen = [subject.run(inputs, methods) for inputs in (first, second, third, third, second, first)]
    for at in range(3):
        within(worst(seen[5 - at], seen[at]), "the same sample after others", 0.0)
    first_ever = _first_ever(subject, third)
    if first_ever is not None:
        within(worst(first_ever, seen[2]), "the same sample as the first that its file ever sees", 0.0)
    try:
        require_nothing_kept(methods, [lent for lent in memory if lent.data_ptr() not in own])
    except StageError as error:
        raise Fault(str(error)) from None
    del memory[:], seen
    gc.collect()
    kept = [name for name, lent in names if not lent.expired()]
    if kept:
        raise Fault(f"{kept[0]}: its tensor is kept, or an array that shares its memory. Clone it.")
    return "bit-equal"


def _first_ever(subject: Subject, inputs: dict[str, Tensor]) -> Tensor | None:
    """Return the outputs where the methods' files have seen no sample, or None where they do not run so."""
    with anew.reloaded(subject.fitted) as methods:
        if methods is not None:
            with contextlib.suppress(Exception):
                return subject.run(inputs, methods)
    return None


@confirmed
def generation(subject: Subject, seed: int) -> str:
    """Greedy generation with a cache gives what it gives without."""
    family = tiny.FAMILIES[subject.family]
    if not family.causal:
        raise NotApplicable("generates nothing")
    inputs = subject.batch(
        tiny.samples(subject.family, (8, 8, 5), seed), "right" if family.seq2seq else "left"
    )
    prompts = {key: inputs[key] for key in ("input_ids", "attention_mask")}
    cached, whole = (_generate(subject, prompts, cache) for cache in (True, False))
    gap, tokens = 0.0, prompts["input_ids"].shape[1] if not family.seq2seq else 1
    for step, (found, expected) in enumerate(zip(cached.logits, whole.logits, strict=True)):
        gap = max(gap, within(worst(found, expected), f"logits of token {step} with a cache"))
        at = tokens + step
        if not torch.equal(cached.sequences[:, at], whole.sequences[:, at]):
            break  # equal scores on the edge: from here on they are two different texts
    return f"{gap:.1g}"


def _generate(subject: Subject, prompts: dict[str, Tensor], cache: bool) -> Any:
    model = subject.shared
    with torch.no_grad(), apply(model, *subject.methods()):
        return model.generate(
            **prompts, max_new_tokens=6, do_sample=False, use_cache=cache,
            return_dict_in_generate=True, output_logits=True,
        )  # fmt: skip


@confirmed
def gradients(subject: Subject, seed: int) -> str:
    """Where a gradient is needed, no stage edits in place, and the outputs are the same."""
    inputs, model = subject.sample(seed), subject.model()
    expected = subject.run(inputs)
    touched: list[str] = []

    def look(method: Method, stage: str, site: Site, given: Tensor, result: Tensor) -> None:
        if result.requires_grad and not bool(result.detach().isfinite().all()) and stage != "scores":
            touched.append(f"{Guard(method, stage).at(site)} is not finite where a gradient is needed")

    try:
        with torch.enable_grad(), apply(model, *spied(subject.methods(), look)):
            found = tiny.outputs(model, inputs)
            if found.requires_grad:
                found.square().mean().backward()
    except Exception as error:
        raise Fault(told(error)) from error
    if touched:
        raise Fault(touched[0])
    for path, weight in model.named_parameters():
        if weight.grad is not None and not bool(weight.grad.isfinite().all()):
            raise Fault(f"the gradient of {path} is not finite")
    return f"{within(worst(found.detach(), expected), 'outputs with gradients enabled'):.1g}"
