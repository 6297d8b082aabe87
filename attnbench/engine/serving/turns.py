"""One pass through a model as caches see it: where each example's prompt ends, what is left of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from attnbench.engine.serving.prompts import SHORTEST, Told, bodies_of, told_of
from attnbench.engine.serving.rotations import Made, Turned
from attnbench.errors import UserError

HELD = "_attnbench_prompts"  # an attribute of a cache: copies of it take what is left of its prompts along


@dataclass
class Left:
    """What is left of one example's prompt at one site: from token `start` on, which a window still holds.

    `keys` and `values` (key-value heads, tokens, head_dim) are None where they stay, `gone` (key-value heads,
    tokens) is None where all tokens do.
    """

    start: int
    end: int
    keys: Tensor | None = None
    values: Tensor | None = None
    gone: Tensor | None = None


@dataclass
class Chunk:
    """The queries (heads, tokens, head_dim) of a piece of a prompt, and how they were rotated."""

    queries: Tensor
    turned: Turned | None


@dataclass
class Print:
    """The keys (key-value heads, tokens, head_dim) of a prompt from `start` to `end`: it is known by them."""

    start: int
    end: int
    keys: Tensor


@dataclass
class Since:
    """All that was read at one site by one row whose cache is cut again while it generates.

    `queries` (heads, tokens, head_dim) are of every token, `until` (key-value heads, tokens) is the first
    query that no longer saw a key. `cut` tokens were read when it was cut last, `prompt` the first time.
    `keys` (key-value heads, tokens, head_dim) are those after the prompt, by which the row is known.
    """

    queries: Tensor
    until: Tensor
    prompt: int
    cut: int
    keys: Tensor | None = None


@dataclass
class Memory:
    """What is left of the prompts in one cache, by site and row, and how its rows are known again."""

    owner: int
    end: int = 0  # tokens, padding counted, up to the end of the longest prompt
    watched: str = ""  # the place whose keys tell prompts apart
    left: dict[str, dict[int, Left]] = field(default_factory=dict)
    prints: dict[int, Print] = field(default_factory=dict)
    waiting: dict[tuple[str, int], list[Chunk]] = field(default_factory=dict)  # of prompts still being read
    short: set[int] = field(default_factory=set)  # rows without a prompt
    since: dict[tuple[str, int], Since] = field(default_factory=dict)


class Turn:
    """One pass: which of its query rows come after whose prompt, and what was left of it."""

    def __init__(self, owner: int, layers: int, told: Told | None, cache: Any, caching: bool) -> None:
        self.layers, self.told, self.caching = layers, told, caching
        self.past = cache is not None and int(cache.get_seq_length()) > 0
        self.memory = Memory(owner)
        self.rows: list[int] | None = None  # of the memory, one a row of this pass
        self.counts: list[tuple[int, int]] = []
        self.notes: set[tuple[int, str]] = set()
        self.rotations: dict[str, tuple[Tensor, Tensor]] = {}
        self.rotary: list[Made] = []
        self._counting = ""
        if self.past:
            known: Memory | None = getattr(cache, HELD, None)
            if known is None or known.owner != owner:
                raise UserError(
                    "this cache was filled before the block of applied methods, or under others: its prompt "
                    "was never cut. Fill it within the block."
                )
            if (tokens := int(cache.get_seq_length())) < known.end:
                raise UserError(
                    f"this cache was cropped to {tokens} tokens, into a prompt that ends at {known.end}: "
                    "read the prompt again"
                )
            self.memory = known

    def counts_at(self, name: str) -> bool:
        """Tell whether a place is the first of this pass where caches are cut."""
        self._counting = self._counting or name
        return self._counting == name

    def note(self, example: int, note: str) -> None:
        """Count a method's note once an example."""
        if note:
            self.notes.add((example, note))

    def length(self, example: int, examples: int, tokens: int, before: int) -> int | None:
        """Return how many of an example's tokens are its prompt, None where there is none.

        `tokens` of it have been read by now, `before` of them in earlier passes.
        """
        if self.told is not None:
            given = self.told.lengths
            if given and examples % len(given):
                raise UserError(f"{len(given)} lengths of prompts were told for a batch of {examples}")
            length = given[example // (examples // len(given))] if given else None
        else:
            length = tokens if self.caching and not self.past and not before else None
        return length if length is not None and length >= SHORTEST else None

    def count(self, example: int, examples: int, later: int, cut: int) -> None:
        """Count the query rows of an example after its prompt, and those that saw a cut cache."""
        self.counts.append((later, cut))
        if self.told is None:
            return
        share = examples // len(self.told.lengths) if self.told.lengths else 1
        place = example // share
        for table, more in ((self.told.later, later), (self.told.saw, cut)):
            table += [0] * (place + 1 - len(table))
            table[place] += more


def watching(model: nn.Module, engine: Any) -> list[Any]:
    """Hook into a model's bodies, so that every pass has its turn while the engine cuts caches."""
    paths = {module: path for path, module in model.named_modules() if path in engine.at}
    bodies = bodies_of(model, paths.values())

    def begin(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inner, engine.now.depth = engine.now.depth, engine.now.depth + 1
        if inner:
            return
        engine.now.turn = None
        if engine.cutters.number:
            given = given_to(module, args, kwargs)
            cache, caching = given.get("past_key_values"), given.get("use_cache")
            caching = bool(module.config.use_cache if caching is None else caching) or cache is not None
            told = told_of(bodies)
            engine.now.turn = Turn(engine.cutters.number, engine.layers, told, cache, caching)

    def end(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        engine.now.depth = max(0, engine.now.depth - 1)
        if engine.now.depth:
            return
        turn, engine.now.turn = engine.now.turn, None
        if turn is None or output is None:  # None where the pass broke off
            return
        cache = given_to(module, args, kwargs).get("past_key_values")
        cache = getattr(output, "past_key_values", None) if cache is None else cache
        if hasattr(cache, "get_seq_length"):
            setattr(cache, HELD, turn.memory)
        for applied in engine.applied:
            applied.notes.update(note for _, note in turn.notes)
            if turn.told is None:
                applied.scored += sum(later for later, _ in turn.counts)
                applied.cut += sum(cut for _, cut in turn.counts)
        if turn.told is None and not turn.caching:
            engine.cutters.warn()

    def turned(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        turn, given = engine.now.turn, kwargs.get("position_embeddings")
        if turn is not None and isinstance(given, tuple) and len(given) == 2:
            turn.rotations[paths[module]] = given

    def rotated(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if engine.now.turn is not None:
            engine.now.turn.rotary.append((module, args, kwargs, output))

    off: Callable[..., Any] = torch.compiler.disable
    handles = [body.register_forward_pre_hook(off(begin), with_kwargs=True) for body in bodies]
    handles += [body.register_forward_hook(off(end), with_kwargs=True, always_call=True) for body in bodies]
    handles += [module.register_forward_pre_hook(off(turned), with_kwargs=True) for module in paths]
    for module in model.modules():
        if type(module).__name__.endswith("RotaryEmbedding"):
            handles.append(module.register_forward_hook(off(rotated), with_kwargs=True))
    return handles


def given_to(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return a call's arguments by name."""
    found = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments
    return found | found.pop("kwargs", {})
