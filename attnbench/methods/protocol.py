"""The method protocol: what a compression method is, and where in attention it acts."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from attnbench.errors import NotApplicable
from attnbench.methods.prompt import Kept, Prompt

if TYPE_CHECKING:
    from torch import Tensor, nn

STAGES = ("hidden", "queries", "keys", "values", "cache", "scores", "normalize", "probs", "context")
BY_SITE = (
    "queries",
    "keys",
    "values",
    "cache",
)  # words that helpers have too: a stage has the argument `site`
KINDS = ("encoder", "decoder", "cross")
SCORED, LEFT = ("scores_", "gates_"), "alive_"  # learned per head, (kind, layer) -> (heads,): drawn as a map


@dataclass(frozen=True)
class Site:
    """One place where a model attends, as a stage sees it: to read, not to write.

    `path` is the module's path in the model, `kind` is encoder, decoder or cross, `layer` the place of its
    layer in the model's own list, from 0: layers that do not attend count too. `visible` is (batch, 1,
    queries, keys) and tells which keys each query may see (None: all of them). `offset` is the position of
    the first query row among the keys: 0, but for a KV cache or a tile of queries. Padding at either end of
    an example is cut off before a stage sees it: key 0 is the example's first real token. `examples` are
    those of the batch that the tensor holds; none are named for `hidden`, which holds them all. `layers`
    counts the layers that have a cache and `rank`, from 0, is this one's place among them: for `cache` alone.
    """

    path: str
    kind: Literal["encoder", "decoder", "cross"]
    layer: int
    heads: int
    head_dim: int
    visible: Tensor | None = None
    offset: int = 0
    examples: range = range(0)
    layers: int = 0
    rank: int = 0


@dataclass
class Term:
    """What one term of a spec stands for: `on=` and `layers=` choose the sites that it is about."""

    on: tuple[str, ...] = field(default=(), kw_only=True)
    layers: tuple[str, ...] = field(default=(), kw_only=True)

    def selects(self, site: Site) -> bool:
        """Tell whether `on=` and `layers=` include this site."""
        return (not self.on or site.kind in self.on) and (
            not self.layers or any(site.layer in layer_range(r) for r in self.layers)
        )


@dataclass
class Method(Term):
    """One change to attention: a dataclass whose first field is its spec's amount (`prune80` is Prune(80)).

    Override the stages it changes; each gets a tensor and its `site`, and returns the tensor's replacement:

        hidden     (batch, tokens, hidden)                 input of a layer
        queries    (batch, heads, tokens, head_dim)        as they enter attention, each token by itself
        keys       (batch, key-value heads, tokens, head_dim)          likewise
        values     (batch, key-value heads, tokens, head_dim)          likewise
        scores     (batch, heads, queries, keys)           before the softmax, masked; hide a key with -inf
        normalize  (batch, heads, queries, keys) -> same   instead of the softmax (entmax)
        probs      (batch, heads, queries, keys)           after it
        context    (batch, heads, queries, head_dim)       probs @ values, before the output projection

    Override `cache(prompt, site)` instead to change what the queries after a prompt see of it.
    Override `fit(model, batches)` to learn from data first (`batches`: a list of dicts for `model(**batch)`,
    labels included where the task has them); what it learns ends in an underscore and is stored with the
    record. Raise ValueError in `__post_init__` for an amount out of range. A stage may edit its tensor in
    place where `tensor.requires_grad` is false. `installed` and `realize` are for methods that change the
    model itself.
    """

    name: ClassVar[str] = ""  # "prune", or "heads:entropy" for a variant
    examples: ClassVar[
        tuple[str, ...]
    ] = ()  # specs that tests and docs run: seconds each, on an encoder, no files
    rows: ClassVar[Literal["one", "all"]] = "one"  # "all": statistics beyond one query row
    zero: ClassVar[float | None] = None  # the amount that changes nothing, which `attnbench check` then tests
    grows: ClassVar[str] = ""  # "sparsity": a larger amount leaves more attention exactly zero
    criterion: ClassVar[bool] = False  # `attnbench heads` takes it: at amount 0 `fit` only learns `scores_`
    empty: ClassVar[Literal["zeros", "uniform"]] = "zeros"  # what a query with no visible key left attends to
    ahead: ClassVar[bool] = False  # `cache` looks at the queries after the prompt: a reference

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in inspect.get_annotations(cls):
            if name in STAGES and name not in vars(cls):
                setattr(cls, name, dataclasses.field())  # else the stage would be the field's default

    def hidden(self, hidden: Tensor, site: Site) -> Tensor:
        """Replace the input of a layer: (batch, tokens, hidden)."""
        return hidden

    def queries(self, queries: Tensor, site: Site) -> Tensor:
        """Replace the queries, each token by itself: (batch, heads, tokens, head_dim)."""
        return queries

    def keys(self, keys: Tensor, site: Site) -> Tensor:
        """Replace the keys, each token by itself: (batch, key-value heads, tokens, head_dim)."""
        return keys

    def values(self, values: Tensor, site: Site) -> Tensor:
        """Replace the values, each token by itself: (batch, key-value heads, tokens, head_dim)."""
        return values

    def cache(self, prompt: Prompt, site: Site) -> Kept:
        """Say what is kept of one example's prompt at one site, once, when the prompt is complete.

        The prompt's own queries have attended to all of it; those after it see what is kept. Nothing of a
        prompt may be remembered. Not applicable where there is no cache: encoders, encoder-decoders, layers
        without softmax.
        """
        return Kept()

    def interval(self) -> int:
        """Return after how many tokens read after a prompt `cache` is asked again, 0 for never.

        It may only let tokens go then. Such a method is for generation, and cuts caches alone.
        """
        return 0

    def scores(self, scores: Tensor, site: Site) -> Tensor:
        """Replace the masked scores before the softmax: (batch, heads, queries, keys)."""
        return scores

    def normalize(self, scores: Tensor, site: Site) -> Tensor:
        """Turn scores into probabilities, instead of the softmax: (batch, heads, queries, keys)."""
        return scores.softmax(-1)

    def probs(self, probs: Tensor, site: Site) -> Tensor:
        """Replace the probabilities after the softmax: (batch, heads, queries, keys)."""
        return probs

    def context(self, context: Tensor, site: Site) -> Tensor:
        """Replace what each head read, before the output projection: (batch, heads, queries, head_dim)."""
        return context

    def fit(self, model: nn.Module, batches: list[dict[str, Tensor]]) -> None:
        """Learn from calibration batches; what is learned goes to attributes that end in an underscore."""
        return None

    def installed(self, model: nn.Module) -> contextlib.AbstractContextManager[None]:
        """Prepare the model while the method is applied: put trained weights in place, check what it names.

        The context manager leaves the model as it found it.
        """
        return contextlib.nullcontext()

    def realize(self, model: nn.Module) -> contextlib.AbstractContextManager[None]:
        """Make the model compute the same with less work until the block ends.

        Raises NotApplicable for a method, or a model, where there is no such way.
        """
        raise NotApplicable(f"{self.name} is only simulated: it saves no work")


def layer_range(text: str) -> range:
    """Read "3" or "0-5" (both ends included). Raises ValueError."""
    first, dash, last = text.partition("-")
    if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
        raise ValueError(f"layers={text} is not a layer or a range such as 0-5")
    return range(int(first), int(last if dash else first) + 1)


def overridden(method: Method) -> tuple[str, ...]:
    """List the stages that a method changes."""
    return stages_of(type(method))


def stages_of(cls: type[Method]) -> tuple[str, ...]:
    """List the stages that a class overrides; a field or a helper of the same name is none."""
    found = ((stage, getattr(cls, stage, None)) for stage in STAGES)
    return tuple(
        name
        for name, own in found
        if callable(own) and own is not getattr(Method, name) and (name not in BY_SITE or _takes_site(own))
    )


def _takes_site(function: Callable[..., Any]) -> bool:
    return "site" in inspect.signature(function).parameters


def needs_fit(method: Method) -> bool:
    return type(method).fit is not Method.fit


def fitted(method: Method) -> dict[str, Any]:
    """Return what `fit` learned: the attributes whose name ends in an underscore."""
    return {
        key: value for key, value in vars(method).items() if key.endswith("_") and not key.startswith("_")
    }
