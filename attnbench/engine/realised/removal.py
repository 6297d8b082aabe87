"""Make a model do what its methods simulate with less work."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from attnbench.engine.applicable import require_numbers, require_sites
from attnbench.engine.places import probing, routing, sites
from attnbench.engine.realised import slicing
from attnbench.engine.serving.attention import apply, methods_of
from attnbench.errors import NotApplicable, UserError
from attnbench.methods.protocol import Method, fitted, needs_fit

HeadsKept = Mapping[
    tuple[str, int], Sequence[int]
]  # (kind, layer) -> heads that stay; a layer not in it keeps all
CLOSE = 1e-4  # of float32: how far the probe's output may be from the simulated one
COARSE = 5e-2  # of less precise numbers

_present: WeakKeyDictionary[nn.Module, dict[str, list[int]]] = WeakKeyDictionary()  # path -> its heads left


@contextlib.contextmanager
def realize(model: nn.Module, *methods: Method | str) -> Iterator[nn.Module]:
    """Change a model as `apply` does, by doing less work, until the block ends.

    Within the block the model is a smaller one, its remaining heads counted anew. Raises NotApplicable for a
    method or an architecture that has no such way, UserError for a method that is not fitted yet.
    """
    wanted = methods_of(methods)
    for method in wanted:
        if needs_fit(method) and not fitted(method):
            raise UserError(f"{method.name} learns from data: call its fit(model, batches) first")
    require_sites(model, wanted)
    if routing.serving(model) is not None:
        raise UserError("methods are applied to this model: realize first, then apply")
    probe = probing.probe_batch(model, examples=2, padding=2)
    with apply(model, *wanted):
        expected = probing.run(model, probe)
    with contextlib.ExitStack() as stack:
        for method in wanted:
            stack.enter_context(method.installed(model))
        ways = [
            method.realize(model) for method in wanted
        ]  # told on the whole model: heads keep their numbers
        for way in ways:
            stack.enter_context(way)
        _compare(model, probe, expected)
        yield model


def _compare(model: nn.Module, probe: dict[str, Tensor], expected: Tensor) -> None:
    try:
        found = probing.run(model, probe)
    except RuntimeError as error:
        first = str(error).partition("\n")[0]
        raise NotApplicable(
            f"{type(model).__name__} does not run without some of its heads: {first}"
        ) from error
    if "decoder_input_ids" not in probe:  # the same queries are padding
        seen = probe["attention_mask"].bool()
        expected, found = expected[seen], found[seen]
    gap = float((found - expected).abs().max() / expected.abs().max().clamp(min=1))
    if not gap <= (CLOSE if expected.dtype.itemsize >= 4 else COARSE):
        raise NotApplicable(f"{type(model).__name__} differs by {gap:.2g} when its heads are cut out")


def without_heads(model: nn.Module, kept: HeadsKept) -> contextlib.AbstractContextManager[None]:
    """Return a context manager in which a model has only some of its heads, numbered as they are now."""
    numbers = {path: _numbers(model, path, heads) for path, heads, _ in _modules(model, {})}
    chosen = {
        path: [numbers[path][head] for head in own if head < len(numbers[path])]
        for path, _, own in _modules(model, kept)
    }
    return _without(model, chosen)


def shrink(model: nn.Module, kept: HeadsKept) -> None:
    """Cut heads out of a model for good."""
    _shrink(slicing.Edits(), model, {path: list(own) for path, _, own in _modules(model, kept)})


def kept_heads(model: nn.Module) -> dict[tuple[str, int], list[int]]:
    """Return the heads left at every site, by their numbers in the whole model."""
    found = sites.discover(model, headless=True)
    return {(site.kind, site.layer): _numbers(model, site.path, site.heads) for site in found}


@contextlib.contextmanager
def _without(model: nn.Module, chosen: Mapping[str, Sequence[int]]) -> Iterator[None]:
    edits, before = slicing.Edits(), dict(_present.get(model, {}))
    try:
        _shrink(edits, model, chosen)
        yield
    finally:
        edits.undo()
        _present[model] = before
        sites.forget(model)


def _shrink(edits: slicing.Edits, model: nn.Module, chosen: Mapping[str, Sequence[int]]) -> None:
    require_numbers(model, "heads are cut out of weights")
    left = _present.setdefault(model, {})
    dims = {site.path: site.head_dim for site in sites.discover(model)}
    for path, heads, _ in _modules(model, {}):
        present = _numbers(model, path, heads)
        stay = [place for place, head in enumerate(present) if head in chosen[path]]
        if len(stay) < len(present):
            slicing.cut(edits, model, path, heads, dims[path], stay)
            left[path] = [present[place] for place in stay]
    sites.forget(model)


def _numbers(model: nn.Module, path: str, heads: int) -> list[int]:
    return _present.get(model, {}).get(path, list(range(heads)))


def _modules(model: nn.Module, kept: HeadsKept) -> list[tuple[str, int, Sequence[int]]]:
    """List (path, heads, heads that stay). Raises NotApplicable where layers that share weights differ."""
    found: dict[str, list[tuple[int, Sequence[int]]]] = defaultdict(list)
    for site in sites.discover(model):
        found[site.path].append((site.heads, kept.get((site.kind, site.layer), range(site.heads))))
    for path, calls in found.items():
        if len({tuple(own) for _, own in calls}) > 1:
            raise NotApplicable(
                f"{path} serves {len(calls)} layers, which lose different heads: weights are shared"
            )
    return [(path, *calls[0]) for path, calls in found.items()]
