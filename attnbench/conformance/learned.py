"""What a method learns, draws and remembers: each check returns what it saw or raises Fault."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import gc
import json

import torch
from torch import Tensor, UntypedStorage
from torch.multiprocessing.reductions import StorageWeakRef

from attnbench.conformance import anew, seeds
from attnbench.conformance.subject import TOLERANCE, Fault, Subject, confirmed, told, within, worst
from attnbench.engine.serving.guard import Guard, StageError, require_not_held, tensors_in
from attnbench.engine.serving.spies import spied
from attnbench.errors import NotApplicable
from attnbench.measures.measure import summary
from attnbench.methods.protocol import Method, Site, fitted, needs_fit

OTHER_BATCHES = ((1, 6, 5), (7, 2, 3))  # of the 12 samples that are else three times four
LONGER = 40  # tokens, of which more are kept than what is protected
DRAWS = 3  # other seeds, of which one has to be seen


def deterministic(subject: Subject, seed: int) -> str:
    """Made and fitted anew, or the same fitted again, it gives the same, in another process too.

    Nobody sets everybody's seed.
    """
    inputs, again = subject.sample(seed), subject.terms
    expected = subject.run(inputs)
    same = 0.0 if subject.device == "cpu" else TOLERANCE
    ends = []
    with seeds.kept():
        for draw, words in enumerate(("a second method of the same spec", "the same method fitted again")):
            seeds.sow(20210409 + draw)  # nobody begins with it, as many do with 0
            with seeds.rehashed() as callers:
                fresh = anew.made(subject.terms)
                again = again if draw else fresh
                if any(map(needs_fit, again)):
                    subject.fit(subject.model(), again, seeded=False)
                gap = worst(subject.run(inputs, copy.deepcopy(again)), expected)
            if gap > same and callers:
                words += f", in another process, where {callers[0]} would get another hash()"
            within(gap, words, same)
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


@confirmed
def rebatched(subject: Subject, seed: int) -> str:
    """It learns the same from the same samples in other batches, padded more."""
    if not any(map(needs_fit, subject.terms)):
        raise NotApplicable("learns nothing")
    if subject.trains:
        raise NotApplicable("trains with an optimizer, which takes its steps batch by batch")
    inputs = subject.sample(seed)
    expected = subject.methods()
    if seed:
        expected = copy.deepcopy(subject.terms)
        subject.fit(subject.model(), expected, seed=seed)
    methods = copy.deepcopy(subject.terms)
    subject.fit(subject.model(), methods, seed=seed, sizes=OTHER_BATCHES[seed % 2], wider=3)
    gap = worst(subject.run(inputs, methods), subject.run(inputs, expected))
    return f"{within(gap, 'fitted on the same samples in other batches'):.1g}"


def reseeded(subject: Subject, seed: int) -> str:
    """Another `seed` learns something else, or gives something else."""
    drawing = {at: term.seed for at, term in enumerate(subject.terms) if hasattr(term, "seed")}
    if not drawing:
        raise NotApplicable("has no `seed`")
    inputs = subject.sample(seed, LONGER) if subject.cuts else subject.sample(seed)
    learned, outputs = list(map(fitted, subject.fitted)), subject.run(inputs)
    for at, own in drawing.items():
        for more in range(1, DRAWS + 1):
            again = list(copy.deepcopy(subject.terms))
            again[at] = dataclasses.replace(again[at], **{"seed": own + more})
            if any(map(needs_fit, again)):
                subject.fit(subject.model(), again)
            if not torch.equal(subject.run(inputs, copy.deepcopy(again)), outputs):
                break
            if summary(list(map(fitted, again))) != summary(learned):
                break
        else:
            raise Fault(f"{DRAWS} other seeds of {subject.terms[at].name} change nothing")
    return "another seed, another draw"


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
        require_not_held(methods, [lent for lent in memory if lent.data_ptr() not in own])
    except StageError as error:
        raise Fault(str(error)) from None
    del memory[:], seen
    if any(not lent.expired() for _, lent in names):
        gc.collect()  # slow with torch in memory; what is only part of a cycle is not kept
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
