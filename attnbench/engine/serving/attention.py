"""Apply methods to a model for a while, watch what its attention does, try a stage on a tensor."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from attnbench.engine.places import routing, sites, softmax
from attnbench.engine.serving import tapped
from attnbench.engine.serving.applied import Applied, require_nothing_kept, require_reach
from attnbench.engine.serving.dispatch import Engine
from attnbench.errors import UserError
from attnbench.methods.protocol import Method, Site, fitted, needs_fit, overridden

Watcher = Callable[[Tensor, Site], None]


def methods_of(specs: Iterable[Method | str]) -> tuple[Method, ...]:
    """Read specs, keep methods."""
    methods: list[Method] = []
    for item in specs:
        if isinstance(item, str):
            from attnbench.methods.spec import parse

            methods += parse(item)
        else:
            methods.append(item)
    return tuple(methods)


@contextlib.contextmanager
def apply(model: nn.Module, *methods: Method | str) -> Iterator[Applied]:
    """Change a model's attention by methods or a spec string, until the block ends.

    Nested blocks compose: inner methods act after outer ones. `output_attentions=True` gets the probabilities
    that were used, after all methods, 0 where nothing is seen. Raises UserError for a method that is not
    fitted yet or an architecture that is not supported, NotApplicable for a method whose `on=` and `layers=`
    reach nothing there, or that does more than change `probs` of a model whose attention is not on
    transformers' interface.
    """
    if not isinstance(model, nn.Module):
        raise UserError(f"{model!r} is no model: load it, as by AutoModel.from_pretrained, and give that")
    wanted = methods_of(methods)
    for method in wanted:
        if needs_fit(method) and not fitted(method):
            raise UserError(
                f"{method.name} learns from data: give fit_on=batches, or call its fit(model, batches) first"
            )
    applied = Applied(wanted, sites.discover(model))
    with contextlib.ExitStack() as stack:
        engine = _engine(model)
        if engine is None:
            engine = tapped.TapEngine(model) if softmax.needed(model) else Engine(model)
            stack.enter_context(engine.attached(model))
            stack.enter_context(engine.hooks(model))
        for method in wanted:
            if method.on or method.layers:
                require_reach(method, method.name or type(method).__name__, engine.places)
            stack.enter_context(method.installed(model))
        stack.callback(engine.pop, applied)
        engine.push(applied)
        yield applied
        if engine.applied[-1] is not applied:
            raise UserError("a block of applied methods is left before one inside it: leave that one first")
        require_nothing_kept(engine.applied, engine.lent())


def _engine(model: nn.Module) -> Engine | None:
    """Return what serves this very model already."""
    engines = {served for module in model.modules() if isinstance(served := routing.serving(module), Engine)}
    if any(engine.model() is not model for engine in engines):
        raise UserError(
            f"{type(model).__name__}: methods are applied to a part of it or to what it is part of already"
        )
    if not engines and routing.serving(model) is not None:
        raise UserError("caches are realised on this model: leave that block before methods are applied")
    return next(iter(engines), None)


def pause(model: nn.Module, chosen: Sequence[Applied], paused: bool) -> None:
    """Let blocks that are open on a model rest for some passes, as if they were not there, or act again."""
    engine = _engine(model)
    assert engine is not None
    engine.pause(chosen, paused)


def watch(
    model: nn.Module,
    *,
    scores: Watcher | None = None,
    probs: Watcher | None = None,
    context: Watcher | None = None,
    hidden: Watcher | None = None,
) -> contextlib.AbstractContextManager[Applied]:
    """Show each stage's tensor and site to a function, after the methods applied so far, in a block.

    The functions must not change the tensor, and clone what they keep: its memory is used again for the
    next tile. What is applied in a block around this one is seen, what is applied in a block inside it is
    not: there the watcher sees what the inner methods are given.

    >>> kept = []
    >>> with apply(model, "prune80"):  # doctest: +SKIP
    ...     with watch(model, probs=lambda probs, site: kept.append((site.layer, (probs > 0).sum().item()))):
    ...         model(**batch)  # counts what prune80 leaves; with the two blocks swapped, what dense has
    """
    watchers = {"scores": scores, "probs": probs, "context": context, "hidden": hidden}
    stages = {stage: _showing(function) for stage, function in watchers.items() if function is not None}
    return apply(model, type("Watch", (Method,), stages)())


def _showing(function: Watcher) -> Callable[[Method, Tensor, Site], Tensor]:
    def show(self: Method, tensor: Tensor, site: Site) -> Tensor:
        function(tensor, site)
        return tensor

    return show


def transform(spec: Method | str, tensor: Tensor, visible: Tensor | None = None) -> Tensor:
    """Apply the one stage that each fit-less method of a spec overrides to a copy of a tensor.

    >>> transform("prune50", torch.tensor([0.1, 0.2, 0.3, 0.4]))  # doctest: +SKIP
    tensor([0.0000, 0.0000, 0.3000, 0.4000])

    `tensor` has the stage's shape or its last axes only: a row of probabilities is enough. `visible` tells
    which keys count. Raises UserError for a method that is fitted or changes several stages, and for methods
    of different stages.
    """
    shape = (1,) * (4 - tensor.dim()) + tuple(tensor.shape)
    result = tensor.clone()
    methods = methods_of([spec])
    stages = list(dict.fromkeys(stage for method in methods for stage in overridden(method)))
    for method in methods:
        changed = overridden(method)
        if needs_fit(method) or len(changed) != 1:
            raise UserError(
                f"{method.name} cannot be tried on a tensor: it needs a fit or changes {len(changed)} stages"
            )
        if len(stages) > 1:
            raise UserError(
                f"'{spec}' changes {' and '.join(stages)}: a tensor is of one stage. Try each alone."
            )
        stage = changed[0]
        full = result if stage == "hidden" else result.view(shape)
        seen = None if visible is None else visible.expand(tensor.shape).reshape(shape)
        if seen is not None and stage in ("scores", "normalize"):
            full = full.masked_fill(~seen, torch.finfo(full.dtype).min / 2)  # as in a model
        site = Site("", "encoder", 0, heads=shape[1], head_dim=shape[3], visible=seen)
        full = getattr(method, stage)(full, site)
        if seen is not None and stage in ("scores", "normalize", "probs"):
            full = full.masked_fill(~seen, -torch.inf if stage == "scores" else 0)
        result = full.reshape(tensor.shape)
    return result
