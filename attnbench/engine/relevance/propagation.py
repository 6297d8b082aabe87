"""Follow what a model computes of its first layer's input: by rules, or by what needs none, or refuse it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from attnbench.engine.places.sites import discover
from attnbench.errors import NotApplicable

PART_OF_METHODS = True  # heads:lrp ranks by what is propagated here

# (propagation, function, args, kwargs) -> result; NotImplemented where it is no case for the rule
Rule = Callable[["Propagation", Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
# a module -> what makes its output of (input, output), None for one that is followed inside
Whole = Callable[[nn.Module], Callable[[Tensor, Tensor], Any] | None]

# steps of autograd's graph that only move values: what is written at one place is read at others
MOVING = frozenset([
    "AccumulateGrad", "Alias", "AsStrided", "Cat", "Clone", "ConstantPadNd", "Copy", "CopySlices", "Expand",
    "Gather", "Index", "IndexSelect", "MaskedFill", "Narrow", "Permute", "Repeat", "ReshapeAlias", "Roll",
    "Select", "Slice", "Split", "SplitWithSizes", "Squeeze", "Stack", "T", "ToCopy", "Transpose", "Unbind",
    "Unsafe", "UnsafeSplit", "UnsafeView", "Unsqueeze", "View", "Where",
])  # fmt: skip
# and steps that are linear in what is followed; which of a product's operands may be followed, one of them
LINEAR = frozenset(["Add", "Cumsum", "Mean", "Neg", "Rsub", "Sub", "Sum"])
PRODUCTS: dict[str, tuple[int, ...]] = {
    "Addmm": (1, 2), "Baddbmm": (1, 2), "Bmm": (0, 1), "Convolution": (0, 1), "Mm": (0, 1), "Mul": (0, 1),
    "Mv": (0, 1),
}  # fmt: skip


class Propagation(TorchFunctionMode):
    """Put rules in the place of functions, while a model runs, and look at all else that it does.

    Followed is every tensor that requires a gradient: the model's weights do not until `open` ends.
    `rules` stand for functions by name, `whole` for modules; every other step that autograd notes is one of
    `passing`, or a product of which one operand is followed where `products` is set. Raises NotApplicable,
    which names the module, for any other.
    """

    def __init__(
        self,
        model: nn.Module,
        rules: Mapping[str, Rule],
        whole: Whole,
        passing: Collection[str],
        products: bool = False,
    ) -> None:
        super().__init__()
        self.model, self.rules, self.whole = model, rules, whole
        self.passing, self.products = passing, products
        self.known: set[Any] = set()
        self.inside: list[nn.Module] = []
        self.waiting: list[tuple[nn.Module, Tensor]] = []  # modules that are taken as a whole, their inputs
        self.paused = False
        self.paths = {module: path for path, module in model.named_modules()}
        self.attending = {site.path for site in discover(model)}

    @property
    def path(self) -> str:
        """Name the module that computes now."""
        return self.paths[self.inside[-1]] if self.inside else ""

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Follow the model, which is in eval mode with frozen weights until the block ends."""
        handles = []
        for module in self.paths:
            handles.append(module.register_forward_pre_hook(self._enter))
            handles.append(module.register_forward_hook(self._leave))
        try:
            with frozen(self.model), torch.enable_grad(), self:
                yield
        finally:
            self.inside.clear()
            self.known.clear()
            for handle in handles:
                handle.remove()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.paused or not (given := [*followed(args), *followed(kwargs)]):
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        self.require(given, "what it was given")
        rule = self.rules.get(name)
        result = NotImplemented if rule is None else rule(self, func, args, kwargs)
        if result is not NotImplemented:
            self.trust(result)
            return result
        result = func(*args, **kwargs)
        self.require(followed(result), name)
        return result

    def require(self, tensors: Collection[Tensor], name: str) -> None:
        """Raise NotApplicable where one was made of what is followed by a step that no rule covers."""
        with self.pause():
            waiting = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
        while waiting:
            node = waiting.pop()
            if node in self.known:
                continue
            if not self._passes(node):
                raise self.refusal(f"{name} ({node.name()})")
            self.known.add(node)
            waiting += [before for before, _ in node.next_functions if before is not None]

    def refusal(self, what: str) -> NotApplicable:
        """Build the error for a step that no rule covers, by the module that takes it."""
        module = self.inside[-1] if self.inside else self.model
        where = self.paths[module] or "the model itself"
        return NotApplicable(
            f"{type(self.model).__name__}: no rule of relevance covers {what} in {where} "
            f"({type(module).__name__})"
        )

    def _passes(self, node: Any) -> bool:
        step = re.sub(r"(Backwards?\d*|Backward_?\w*)$", "", node.name().rpartition("::")[2])
        if step in self.passing:
            return True
        made_of = [before for before, _ in node.next_functions]
        if not self.products:
            return False
        if step == "Div":
            return made_of[1] is None if len(made_of) > 1 else True
        return step in PRODUCTS and sum(made_of[k] is not None for k in PRODUCTS[step]) < 2

    def trust(self, result: Any) -> None:
        waiting = [tensor.grad_fn for tensor in followed(result) if tensor.grad_fn is not None]
        while waiting:
            node = waiting.pop()
            if node not in self.known:
                self.known.add(node)
                waiting += [before for before, _ in node.next_functions if before is not None]

    def _enter(self, module: nn.Module, args: tuple[Any, ...]) -> Any:
        self.inside.append(module)
        if self.paused:
            return None
        with self.pause():
            if not followed(args[:1]) or self.whole(module) is None:
                return None
            self.require(followed(args), "what it was given")
            self.waiting.append((module, args[0]))
            return (args[0].detach(), *args[1:])

    def _leave(self, module: nn.Module, _: Any, output: Any) -> Any:
        result = None
        if self.waiting and self.waiting[-1][0] is module:
            _, given = self.waiting.pop()
            make = self.whole(module)
            assert make is not None
            with self.pause():
                result = make(given, output)
                if result is NotImplemented:
                    raise self.refusal("what is computed")
                self.trust(result)
        self.inside.pop()
        return result

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Let what is done in the block be no step of the model."""
        before, self.paused = self.paused, True
        try:
            yield
        finally:
            self.paused = before


def followed(value: Any) -> list[Tensor]:
    """List the tensors that require a gradient, in nested tuples, lists and dicts too."""
    if isinstance(value, Tensor):
        return [value] if value.requires_grad else []
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, tuple | list):
        return [tensor for item in value for tensor in followed(item)]
    return []


@contextlib.contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Keep a model in eval mode, its weights without gradients, until the block ends."""
    training = [module for module in model.modules() if module.training]
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    try:
        model.eval()
        for weight in learning:
            weight.requires_grad_(False)
        yield
    finally:
        for weight in learning:
            weight.requires_grad_(True)
        for module in training:
            module.training = True
