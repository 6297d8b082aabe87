"""Find where a model attends."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, cast
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from attnbench.engine.places import depths, probing, softmax
from attnbench.engine.places.census import Census
from attnbench.engine.places.kept import kept
from attnbench.engine.places.routing import HEADLESS, attached, known, unsupported
from attnbench.errors import UserError
from attnbench.methods.protocol import Site

__all__ = ["discover", "forget"]

_known: WeakKeyDictionary[nn.Module, list[Site]] = WeakKeyDictionary()


class Attention(NamedTuple):
    """One attention of a forward pass, in the layer whose call it was."""

    path: str
    kind: str
    heads: int
    head_dim: int
    call: depths.Call


def discover(model: nn.Module, headless: bool = False) -> list[Site]:
    """List where a model attends, in the order of one forward pass.

    Run once per model on a few tokens with unequal encoder and decoder lengths; a module that is called for
    several layers (ALBERT) has as many sites. A layer without a head left does not attend: only `headless`
    lists it too, with 0 heads. Raises UserError for an architecture that is not supported: also where some
    of its attention is computed where no method reaches it.
    """
    if model not in _known:
        first = next(model.parameters(), None)
        if first is not None and first.is_meta:
            raise UserError(f"{type(model).__name__} has no weights yet: load it first (it is on 'meta')")
        found, calls = look(model, probing.probe_batch(known(model)))
        layers = depths.numbers(calls, [(each.path, each.kind, each.call) for each in found])
        _known[model] = [
            Site(each.path, cast(Any, each.kind), layer, each.heads, each.head_dim)
            for each, layer in zip(found, layers, strict=True)
        ]
    return [site for site in _known[model] if site.heads or headless]


def forget(model: nn.Module) -> None:
    """Let `discover` look again: a model's heads have changed."""
    _known.pop(model, None)


def settle(model: nn.Module, longest: Iterable[dict[str, Tensor]]) -> None:
    """Let a model that exchanges its attention for short texts do so, where the longest text is short."""
    for batch in longest:
        with kept(model) as exchanged:
            probing.answer(model, batch)
        if exchanged:
            probing.answer(model, batch)


def require_reached(model: nn.Module, batches: Iterable[dict[str, Tensor]]) -> None:
    """Raise UserError where a model attends elsewhere in these inputs than where `discover` found it to."""
    known = [site.path for site in discover(model, headless=True)]
    for batch in batches:
        found = [each.path for each in look(model, batch, whole=True)[0]]
        if found != known:
            other = next(iter(set(found) ^ set(known)), known[0])
            raise UserError(
                f"{type(model).__name__} attends at {len(found)} places in texts of "
                f"{batch['input_ids'].shape[1]} tokens, at {len(known)} in short ones ({other} is one that "
                "differs): this architecture is not supported."
            )


def look(
    model: nn.Module, batch: dict[str, Tensor], whole: bool = False
) -> tuple[list[Attention], list[depths.Call]]:
    """Return each attention of one forward pass and the calls of layers; `whole` runs a model's head too.

    The model is as it was afterwards. Raises UserError where it attends beside what can be reached, or
    exchanges what attends.
    """
    paths = {module: path for path, module in model.named_modules()}
    following, census, found = depths.Depths(model), Census(model, batch), list[Attention]()

    def record(module: nn.Module, kind: str, heads: int, head_dim: int) -> None:
        if module not in paths:  # it was exchanged just now
            raise _unsettled(model, type(module).__name__)
        found.append(Attention(paths[module], kind, heads, head_dim, following.here(paths[module])))

    shown = (
        softmax.recorded(model, batch, record, census) if softmax.needed(model) else _routed(model, record)
    )
    with kept(model) as exchanged, following.open(), census.open(), shown:
        (probing.answer if whole else probing.run)(model, batch)
    if exchanged:
        raise _unsettled(model, exchanged[0])
    if not found:
        raise unsupported(model)
    if census.attending:
        raise _partly(model, census.attending, paths, len(found))
    return _merged(found), following.calls


@contextlib.contextmanager
def _routed(model: nn.Module, record: softmax.Record) -> Iterator[None]:
    """Show `record` each attention that transformers' interface is asked for; nothing is attended to."""

    def answer(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, None]:
        kind = probing.kind_of(module, query.shape[2], key.shape[2], mask, kwargs.get("is_causal"))
        record(module, kind, 0 if hasattr(module, HEADLESS) else query.shape[1], query.shape[3])
        return query.new_zeros(query.shape[0], query.shape[2], query.shape[1], value.shape[3]), None

    with attached(model, answer):
        yield


def _merged(found: Sequence[Attention]) -> list[Attention]:
    """Take what a module attends to in the one call of its layer for one place, as DiffLlama's two halves."""
    layers: dict[str, set[depths.Call]] = defaultdict(set)
    for each in found:
        layers[each.path].add(each.call)
    once = {path for path, calls in layers.items() if len(calls) == 1}
    return [each for k, each in enumerate(found) if each.path not in once or each not in found[:k]]


def _partly(
    model: nn.Module, missed: Sequence[nn.Module], paths: dict[nn.Module, str], reached: int
) -> UserError:
    first = missed[0]
    where = paths.get(first) or "the model itself"
    return UserError(
        f"{type(model).__name__} is reached in part only: {where} ({type(first).__name__}) attends by itself "
        f"({len(missed)} calls in all), beside {reached} that are reached: "
        "this architecture is not supported."
    )


def _unsettled(model: nn.Module, part: str) -> UserError:
    return UserError(
        f"{type(model).__name__} exchanges its attention ({part}) by the length of a text: short and long "
        "texts are not read alike. Load it with one attention for all lengths, or first run a text as long "
        "as yours."
    )
