"""Whether what is left of a prompt is the same by every way to it: one pass, a cache, pieces, beams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, StaticCache

from attnbench.conformance import tiny
from attnbench.conformance.promises import require_no_oracle
from attnbench.conformance.subject import Fault, Subject, confirmed, within, worst
from attnbench.engine.serving.attention import apply
from attnbench.errors import NotApplicable

LENGTHS = (12, 12, 9)
PIECES = ((9, 3), (9, 1, 1, 1), (4, 6, 2))  # tokens a call: the prompts end after 9, 9 and, padded, 9


@confirmed
def cut(subject: Subject, seed: int) -> str:
    """One pass gives what a prompt and its cut cache give, read whole or in pieces, whatever the cache."""
    if not subject.cuts:
        raise NotApplicable("cuts no cache")
    if not tiny.FAMILIES[subject.family].causal:
        raise NotApplicable("has no cache")
    require_no_oracle(subject)
    inputs = subject.batch(tiny.samples(subject.family, LENGTHS, seed), "left")
    gap = _pieces(subject, inputs, subject.shared, PIECES, static=True)
    if subject.again:
        return f"{gap:.1g}"
    if subject.family == "llama":
        gap = max(gap, _pieces(subject, inputs, tiny.sliding(subject.shared), PIECES[:2], static=False))
    _beams(subject, inputs)
    return f"{gap:.1g}"


def _pieces(
    subject: Subject, inputs: dict[str, Tensor], model: Any, ways: Sequence[Sequence[int]], static: bool
) -> float:
    """Compare one pass with passes of so many tokens each on a cache."""
    real, gap = tiny.real(subject.family, inputs), 0.0
    expected = subject.run(inputs, model=model)[real]
    for pieces in ways:
        made: list[Any] = [DynamicCache(config=model.config)]
        made += [StaticCache(config=model.config, max_cache_len=16)] if static else []
        for cache in made:
            found, done = [], 0
            with torch.no_grad(), apply(model, *subject.methods()), subject.prompts(model, inputs):
                for size in pieces:
                    part = slice(done, done + size)
                    done += size
                    given = {name: inputs[name][:, part] for name in ("input_ids", "position_ids")}
                    given["attention_mask"] = inputs["attention_mask"][:, :done]
                    found.append(model.base_model(**given, past_key_values=cache, use_cache=True)[0])
            how = f"read in {len(pieces)} pieces on a {type(cache).__name__}"
            gap = max(gap, within(worst(torch.cat(found, 1)[real], expected), how))
    return gap


def _beams(subject: Subject, inputs: dict[str, Tensor]) -> None:
    """Beams with a cache are those without."""
    model, prompts = subject.shared, {name: inputs[name] for name in ("input_ids", "attention_mask")}
    found = []
    for cache in (True, False):
        with torch.no_grad(), apply(model, *subject.methods()), subject.prompts(model, prompts, spare=1):
            found.append(
                model.generate(**prompts, max_new_tokens=4, do_sample=False, num_beams=2, use_cache=cache)
            )
    if not torch.equal(*found):
        raise Fault("beams on a cache are others than without")
