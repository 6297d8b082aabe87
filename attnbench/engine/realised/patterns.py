"""Which entries methods hide whatever the scores are: read off their own stages, with proof that it is so."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from attnbench.errors import NotApplicable
from attnbench.methods.protocol import Method, Site, overridden

# what may be done to scores: views, and what hides entries that something else has chosen
MOVED = (
    "alias", "as_strided", "clone", "detach", "expand", "permute", "select", "slice", "squeeze", "transpose",
    "t", "unsqueeze", "view", "_unsafe_view", "unbind", "split",
)  # fmt: skip
HIDES = ("add", "add_", "masked_fill", "masked_fill_", "where", "fill_", "copy_", "index_put_")
SHAPED = tuple(f"new_{name}" for name in ("zeros", "ones", "full", "empty")) + tuple(
    f"{name}_like" for name in ("zeros", "ones", "full", "empty")
)
UNSEEN = ("visible", "examples")  # of a site: what differs from text to text


def hides_alone(method: Method) -> bool:
    """Tell whether a method could have a pattern: it acts on scores alone, each query by itself."""
    own = type(method).realize is not Method.realize
    return not own and overridden(method) == ("scores",) and method.rows == "one"


class Pattern:
    """The entries that methods leave at one site, the same for every text.

    `heads` are those still there, by their numbers in the whole model. Raises NotApplicable where a stage
    looks at the scores, at the text, or does more than hide.
    """

    def __init__(self, methods: Sequence[Method], site: Site, heads: Sequence[int]) -> None:
        self.site, self.heads = site, list(heads)
        # copies: what a stage keeps by the way, such as a table of its own, goes with them
        self.methods = [copy.copy(method) for method in methods]
        self.refused = ""  # why, once it is known: of a text that goes on it is not asked again

    def kept(self, start: int, stop: int, keys: int, like: Tensor) -> Tensor:
        """Return which keys each query from `start` to `stop` keeps (heads, queries, keys)."""
        kept = None
        for method in self.methods:
            site = _Site(self.site, start)
            given = like.new_zeros(1, self.site.heads, stop - start, keys)
            with Traced(method, given):
                found = method.scores(given, site)  # type: ignore[arg-type]
            left = found == 0
            if not bool((left | found.isneginf()).all()):
                raise _more(method)
            left = left[0] if len(self.heads) == self.site.heads else left[0, self.heads]
            kept = left if kept is None else kept.logical_and_(left)
        assert kept is not None
        return kept

    def confirm(self, start: int, stop: int, keys: int, like: Tensor, fewer: int | None = None) -> None:
        """Look again, at other scores and at `fewer` keys: numpy, for one, is not traced."""
        try:
            self._confirm(start, stop, keys, like, keys if fewer is None else fewer)
        except NotApplicable as reason:
            self.refused = str(reason)
            raise

    def _confirm(self, start: int, stop: int, keys: int, like: Tensor, fewer: int) -> None:
        draw = torch.Generator(like.device).manual_seed(0)
        shape = 1, self.site.heads, stop - start, keys
        given = torch.randn(shape, generator=draw, device=like.device, dtype=torch.float32).to(like.dtype)
        expected = self.kept(start, stop, keys, like)
        found = given[0, self.heads].new_zeros(expected.shape, dtype=torch.bool).logical_not_()
        for method in self.methods:
            result = method.scores(given.clone(), _Site(self.site, start))  # type: ignore[arg-type]
            if not bool(((result == given) | result.isneginf()).all()):
                raise _more(method)
            found &= ~result[0, self.heads].isneginf()
        if not torch.equal(found, expected):
            raise _looks(self.methods[0], "the scores")
        if fewer < keys and not torch.equal(self.kept(start, stop, fewer, like), expected[..., :fewer]):
            raise _looks(self.methods[0], "how many keys there are")


def _more(method: Method) -> NotApplicable:
    return NotApplicable(f"{method.name} does more than hide entries: only simulated")


def _looks(method: Method, what: str) -> NotApplicable:
    return NotApplicable(f"{method.name} looks at {what} to choose what it hides: only simulated")


class _Site:
    """A site at which nothing is told of the text."""

    def __init__(self, site: Site, offset: int) -> None:
        self._site, self.offset = site, offset

    def __getattr__(self, name: str) -> Any:
        if name in UNSEEN:
            raise NotApplicable(f"the entries hidden depend on site.{name}: only simulated")
        return getattr(self._site, name)


class Traced(TorchDispatchMode):
    """Follow the scores through a stage. Raises NotApplicable for an operation that may look at them."""

    def __init__(self, method: Method, scores: Tensor) -> None:
        super().__init__()
        self.method = method
        self.scores: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self.scores[scores] = True

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise NotApplicable(f"{self.method.name} draws what it hides: only simulated")
        told = [self._told(value) for value in args]
        others = any(told[1:]) or any(map(self._told, kwargs.values()))
        if any(told) or others:
            shifted = name in HIDES and (not others or (name == "where" and not told[0]))
            if name not in SHAPED and not shifted and not (name in MOVED and not others):
                raise _looks(self.method, "the scores")
        result = func(*args, **kwargs)
        if (any(told) or others) and name not in SHAPED:
            for each in tree_leaves(result):
                if isinstance(each, Tensor):
                    self.scores[each] = True
        return result

    def _told(self, value: Any) -> bool:
        return any(isinstance(each, Tensor) and each in self.scores for each in tree_leaves(value))
