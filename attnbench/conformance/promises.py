"""What a method promises of its outputs: each check returns what it saw or raises Fault."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from attnbench.conformance import tiny
from attnbench.conformance.subject import Fault, Subject, confirmed, named, told, within, worst
from attnbench.engine.places import sites
from attnbench.engine.serving import tiles
from attnbench.engine.serving.attention import apply
from attnbench.engine.serving.guard import Guard
from attnbench.engine.serving.spies import first_nonfinite, spied  # fmt: skip
from attnbench.errors import NotApplicable
from attnbench.methods.protocol import Method, Site, overridden

# equal neighbours share a tile, so examples that mix are seen, few or many
LENGTHS = (*(12,) * 16, 9, 9, 7, 12, 5)
ALONE = (0, 1, 7, 15, 16, 18, 19, 20)  # of them, each compared with itself alone
MANY = {torch.float32: tiny.LONGEST, torch.bfloat16: 96, torch.float16: 96}  # tokens: short dtypes are slow


def sites_hit(subject: Subject, seed: int) -> str:
    """Every stage is called at every site that its method selects, and on= and layers= choose them."""
    _require_choice(subject)
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
    inputs = subject.sample(seed)
    with torch.no_grad(), apply(model, *methods) as applied, subject.prompts(model, inputs):
        subject.outputs(model, inputs)
    missed = [words for key, words in wanted.items() if key not in called]
    if missed:
        raise Fault(missed[0] + (f", and {len(missed) - 1} more" if len(missed) > 1 else ""))
    if applied.hit < applied.expected:
        raise Fault(f"{applied.hit} of {applied.expected} sites hit")
    return f"{applied.hit} of {applied.expected} sites"


def _require_choice(subject: Subject) -> None:
    """Raise Fault where a method acts at a site that its `on=` and `layers=` leave out."""
    found = sites.discover(subject.shared)
    places = dict.fromkeys((site.kind, site.layer) for site in found)
    for term in subject.terms:
        for kind, layer in places:
            for on, layers in (((kind,), ()), ((), (str(layer),))):
                try:
                    narrow = dataclasses.replace(term, on=on, layers=layers)
                except (TypeError, ValueError):  # what it acts at is in its other fields
                    continue
                for site in found:
                    if (site.layer != layer if layers else site.kind != kind) and narrow.selects(site):
                        chosen = f"layers={layer}" if layers else f"on={kind}"
                        raise Fault(f"with {chosen} {term.name} selects {site.kind} layer {site.layer} too")


def finite(subject: Subject, seed: int) -> str:
    """Outputs are finite in float32, bfloat16 and float16, dtype kept, at a few tokens and at many."""
    dtypes = [dtype for dtype in MANY if not (dtype == torch.float16 and subject.trains)]
    for dtype in dtypes:  # without float16 for Adam, who divides by less than it has
        _require_finite(subject, seed, dtype)
    return ", ".join(map(named, dtypes))


def _require_finite(subject: Subject, seed: int, dtype: torch.dtype) -> None:
    origin, look = first_nonfinite()
    model = subject.model().to(dtype)
    methods = subject.methods() if dtype == torch.float32 else copy.deepcopy(subject.terms)
    try:
        if dtype != torch.float32:
            subject.fit(model, methods)
        for lengths in (LENGTHS, (MANY[dtype],)):
            inputs = subject.batch(tiny.samples(subject.family, lengths, seed))
            found = subject.run(inputs, spied(methods, look, copies=True), model)
            found = found[tiny.real(subject.family, inputs)]
            subject.seen.setdefault(dtype, found)
            if origin or not bool(found.isfinite().all()):
                tokens = f"at {max(lengths)} tokens: {origin[0] if origin else 'the outputs are not finite'}"
                raise Fault(f"{named(dtype)}, {tokens}")
    except Fault:
        raise
    except Exception as error:
        raise Fault(f"{named(dtype)}: {told(error)}") from error


def causal(subject: Subject, seed: int) -> str:
    """Tokens after t leave outputs up to t bit-equal."""
    if not tiny.FAMILIES[subject.family].causal:
        raise NotApplicable("sees both ways")
    require_no_oracle(subject)
    inputs = subject.batch(tiny.samples(subject.family, (128, 14, 14, 10), seed))
    key = "decoder_input_ids" if "decoder_input_ids" in inputs else "input_ids"
    tokens, real = inputs[key], tiny.real(subject.family, inputs)
    last = real.sum(1) // 2
    upto = torch.arange(tokens.shape[1], device=tokens.device) <= last[:, None]
    other = torch.where(real & ~upto, tiny.VOCABULARY + tiny.PLAIN - 1 - tokens, tokens)
    before, after = (subject.run({**inputs, key: given}) for given in (tokens, other))
    for at, t in enumerate(last.tolist()):
        within(
            worst(after[at, : t + 1], before[at, : t + 1]), f"tokens after {t} change outputs up to {t}", 0.0
        )
    return "bit-equal"


def require_no_oracle(subject: Subject) -> None:
    """Raise NotApplicable for a method that says it looks ahead."""
    if any(term.ahead for term in subject.terms):
        raise NotApplicable("looks ahead, as it says: a reference")


@confirmed
def batched(subject: Subject, seed: int) -> str:
    """A sample gives the same alone and in a padded batch with many of its length, on either side."""
    chosen = tiny.samples(subject.family, LENGTHS, seed)
    alone = {at: subject.run(subject.batch([chosen[at]]))[0] for at in ALONE}
    gap = 0.0
    for side in tiny.FAMILIES[subject.family].sides:
        inputs = subject.batch(chosen, side)
        together, real = subject.run(inputs), tiny.real(subject.family, inputs)
        for at, expected in alone.items():
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


@confirmed
def generation(subject: Subject, seed: int) -> str:
    """Greedy generation with a cache gives what it gives without, where a window forgets keys too."""
    family = tiny.FAMILIES[subject.family]
    if not family.causal:
        raise NotApplicable("generates nothing")
    require_no_oracle(subject)
    if subject.again:
        raise NotApplicable("cuts again while it generates, which a text read anew has not been")
    gap = _generated(subject, seed, subject.shared, "with a cache")
    if subject.family == "llama":
        gap = max(
            gap, _generated(subject, seed, tiny.sliding(subject.shared), "with a sliding window's cache")
        )
    return f"{gap:.1g}"


def _generated(subject: Subject, seed: int, model: Any, how: str) -> float:
    seq2seq = tiny.FAMILIES[subject.family].seq2seq
    inputs = subject.batch(tiny.samples(subject.family, (8, 8, 5), seed), "right" if seq2seq else "left")
    prompts = {key: inputs[key] for key in ("input_ids", "attention_mask")}
    runs = []
    for cache in (True, False):
        told = subject.prompts(model, prompts, spare=1)
        with torch.no_grad(), apply(model, *subject.methods()), told:
            runs.append(
                model.generate(
                    **prompts, max_new_tokens=6, do_sample=False, use_cache=cache,
                    return_dict_in_generate=True, output_logits=True,
                )
            )  # fmt: skip
    cached, whole = runs
    gap, tokens = 0.0, prompts["input_ids"].shape[1] if not seq2seq else 1
    for step, (found, expected) in enumerate(zip(cached.logits, whole.logits, strict=True)):
        gap = max(gap, within(worst(found, expected), f"logits of token {step} {how}"))
        at = tokens + step
        if not torch.equal(cached.sequences[:, at], whole.sequences[:, at]):
            break  # equal scores on the edge: from here on they are two different texts
    return gap


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
        asking = subject.prompts(model, inputs)
        with torch.enable_grad(), apply(model, *spied(subject.methods(), look)), asking:
            found = subject.outputs(model, inputs)
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
