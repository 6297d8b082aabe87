"""Run studies: every batch densely and with each method, each pass shared by all studies of its texts."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attnbench.engine.places import softmax
from attnbench.engine.places.sites import discover
from attnbench.engine.serving.attention import apply, watch
from attnbench.errors import NotApplicable, UserError, described
from attnbench.methods import spec
from attnbench.methods.protocol import Method, Site
from attnbench.methods.study import OBSERVERS, Study, alone, observed
from attnbench.methods.views import TEXT, Batch, Sample, View

if TYPE_CHECKING:
    from pandas import DataFrame

    from attnbench.studies.reading import Reading

DENSE = "dense"
Methods = Mapping[str, Sequence[Method]]  # a spec -> its methods, fitted


@dataclass
class Seen:
    """What one study saw: its twin of each method, what it `failed` or was not applicable with."""

    name: str
    twins: dict[str, Study]
    failed: str = ""
    absent: str = ""

    def tables(self) -> dict[str, dict[str, DataFrame]]:
        """Return the tables of each method, `dense` first."""
        return {method: twin.tables() for method, twin in self.twins.items()}


@dataclass
class Pass:
    """One forward pass that is watched: whose samples, of which data set, with which method."""

    data: str
    method: str
    batch: Batch
    number: int
    seen: Sequence[Seen]
    memo: dict[Any, Any] = field(default_factory=dict)

    def observers(self, shown: Sequence[str]) -> dict[str, Callable[[Tensor, Site], None]]:
        """Return a watcher for each stage that any of the studies looks at."""
        found = {}
        for stage in shown:
            looking = [each for each in self.seen if stage in observed(type(each.twins[self.method]))]
            if looking:
                found[stage] = self._watcher(stage, looking)
        return found

    def _watcher(self, stage: str, looking: Sequence[Seen]) -> Callable[[Tensor, Site], None]:
        def see(tensor: Tensor, site: Site) -> None:
            for part, view in self._parts(stage, tensor, site):
                for each in looking:
                    twin = each.twins[self.method]
                    if not each.failed and twin.selects(view):
                        try:
                            getattr(twin, stage)(part, view)
                        except Exception as error:
                            each.failed = f"{stage} at {site.path}: {described(error)}"

        return see

    def _parts(self, stage: str, tensor: Tensor, site: Site) -> Iterator[tuple[Tensor, View]]:
        """Yield a stage's tensor with whose it is; of a layer's input also without its padding."""
        if stage != "hidden":
            columns = tensor.shape[-1] if stage != "context" else self._keys(site)
            yield tensor, self._view(site, site.examples, tensor.shape[2], columns)
            return
        start = 0
        places = self.spans(site.kind)
        for stop in range(1, len(places) + 1):
            if stop == len(places) or places[stop] != places[start]:
                first, last = places[start]
                yield (
                    tensor[start:stop, first:last],
                    self._view(site, range(start, stop), last - first, last - first),
                )
                start = stop

    def _keys(self, site: Site) -> int:
        if site.visible is not None:
            return site.visible.shape[-1]
        sample = self.batch.samples[site.examples.start]
        return len(sample.tokens("keys", site.kind).ids)

    def _view(self, site: Site, examples: range, rows: int, columns: int) -> View:
        samples = self.batch.samples[examples.start : examples.stop]
        return View(
            site.path, site.kind, site.layer, site.heads, site.head_dim, site.visible, site.offset, examples,
            samples=samples, data=self.data, batch=self.number, rows=rows, columns=columns, memo=self.memo,
        )  # fmt: skip

    def spans(self, kind: str) -> list[tuple[int, int]]:
        """Return where the queries of each sample stand in the batch: first, one past the last."""
        decoder = kind != "encoder" and self.batch.samples[0].target is not None
        mask = self.batch.inputs.get("decoder_attention_mask" if decoder else "attention_mask")
        counts = [len(each.tokens("queries", kind).ids) for each in self.batch.samples]
        if mask is None:
            return [(0, count) for count in counts]
        firsts = mask.to(torch.uint8).argmax(1).tolist()
        return [(first, first + count) for first, count in zip(firsts, counts, strict=True)]


def shows(model: Any) -> tuple[str, ...]:
    """Return what of a model's attention can be watched."""
    return ("probs",) if softmax.needed(model) else OBSERVERS


def conduct(
    model: Any,
    studies: Sequence[Study],
    data: Reading,
    methods: Methods | None = None,
    batches: Sequence[Batch] = (),
    progress: Callable[[str, int], None] | None = None,
    lost: dict[str, str] | None = None,
) -> list[Seen]:
    """Let studies look at a model, dense and with each method, on the texts that `data` has been given.

    `batches` are looked at as they are instead. A study that fails, or is not for this model, says so in its
    `failed` or `absent`, the others go on; a method that fails is named in `lost` with why, and its twins are
    not to be read. `progress` gets what a pass is of and how many samples it had.
    """
    passes = {DENSE: (), **(methods or {})}
    seen = [_begun(model, study, passes) for study in studies]
    watching = [each for each in seen if not (each.absent or each.failed) and not _runs(each)]
    number = 0
    for name, looking, given in _data_sets(watching, data, batches):
        with apply(model):  # what all passes share is made ready once
            for batch in given:
                number += 1
                for method, applied in passes.items():
                    if method in (lost or ()):
                        continue
                    one = Pass(name, method, batch, number, looking)
                    try:
                        _watched(model, applied, one)
                    except Exception as error:
                        if method == DENSE or lost is None:
                            raise
                        lost[method] = described(error)
                    if progress is not None:
                        progress(name, len(batch.samples))
    for each in seen:
        if _runs(each) and not (each.absent or each.failed):
            _run(model, each, data, {name: passes[name] for name in passes if name not in (lost or ())})
    return seen


def _watched(model: Any, applied: Sequence[Method], one: Pass) -> None:
    with torch.no_grad(), apply(model, *applied), watch(model, **one.observers(shows(model))):
        model(**one.batch.inputs)


def _runs(seen: Seen) -> bool:
    return alone(type(seen.twins[DENSE]))


def _begun(model: Any, study: Study, passes: Methods) -> Seen:
    seen = Seen(spec.format([study]), {method: copy.deepcopy(study) for method in passes})
    sites = [site for site in discover(model) if study.selects(site)]
    try:
        if not sites:
            raise NotApplicable(f"{seen.name}: this model attends nowhere there")
        looks = observed(type(study))
        if looks and not {*looks} & {*shows(model)}:
            raise NotApplicable(
                f"{seen.name} looks at {' and '.join(looks)}, but {type(model).__name__} is served by a tap "
                "on its softmax, which shows probs only"
            )
        for method, twin in seen.twins.items():
            twin.dense = None if method == DENSE else seen.twins[DENSE]
            twin.begin(model, sites)
    except NotApplicable as reason:
        seen.absent = str(reason)
    except UserError:
        raise
    except Exception as error:
        seen.failed = f"begin: {described(error)}"
    return seen


def _data_sets(
    seen: Sequence[Seen], data: Reading, batches: Sequence[Batch]
) -> Iterator[tuple[str, list[Seen], Iterator[Batch] | Sequence[Batch]]]:
    """Yield each data set with the studies that look at it and its batches."""
    looking = [each for each in seen if TEXT in each.twins[DENSE].data]
    if looking:
        yield TEXT, looking, batches or data.batches(data.given)
    for each in seen:
        dense = each.twins[DENSE]
        for name in (name for name in dense.data if name != TEXT):
            own: Sequence[Sample] = ()
            try:
                own = dense.samples(name, data)
            except NotApplicable as reason:
                each.absent = str(reason)
            if own:
                yield name, [each], data.batches(own)


def _run(model: Any, seen: Seen, data: Reading, passes: Methods) -> None:
    try:
        for method, applied in passes.items():
            with apply(model, *applied):
                seen.twins[method].run(model, data)
    except NotApplicable as reason:
        seen.absent = str(reason)
    except (UserError, KeyboardInterrupt):
        raise
    except BaseException as error:
        seen.failed = described(error)
