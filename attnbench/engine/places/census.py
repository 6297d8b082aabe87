"""Count every attention of a forward pass, whoever computes it: what we reach is held against it.

An attention is a softmax, or what stands for one, over the product of two tensors that both come from the
input, or a fused one of queries that do. A router's softmax is over the product with a weight; state spaces
and linear attention have none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

aten = torch.ops.aten
SOFTMAX = (
    torch.softmax, Tensor.softmax, functional.softmax, torch.special.softmax, aten.softmax, aten._softmax
)  # fmt: skip
# what makes weights of scores: softmaxes, which written out begin with exp, and the sigmoid; a relu of scores
# is how sparse attention finds its keys
NORMALISED = frozenset(
    {
        *SOFTMAX, torch.logsumexp, Tensor.logsumexp, torch.exp, Tensor.exp,
        torch.log_softmax, Tensor.log_softmax, functional.log_softmax, torch.special.log_softmax,
        aten.log_softmax, aten._log_softmax,
        torch.sigmoid, Tensor.sigmoid, functional.sigmoid,
    }
)  # fmt: skip
FUSED = frozenset(
    {
        functional.scaled_dot_product_attention,
        aten.scaled_dot_product_attention,
        functional.multi_head_attention_forward,
        torch._native_multi_head_attention,
        torch._transformer_encoder_layer_fwd,
    }
)
PRODUCTS = frozenset(
    {
        torch.matmul, Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__, torch.bmm, Tensor.bmm,
        torch.baddbmm, Tensor.baddbmm, torch.einsum, functional.bilinear, torch.mm, Tensor.mm,
        torch.inner, Tensor.inner, torch.tensordot, torch.cdist, aten.matmul, aten.bmm, aten.baddbmm, aten.mm,
    }
)  # fmt: skip
LINEAR = frozenset({functional.linear, torch.addmm, Tensor.addmm, functional.conv1d})


class Census(TorchFunctionMode):
    """Notes the module, innermost, of each attention that nobody says is reached, while it is open."""

    def __init__(self, model: nn.Module, inputs: dict[str, Tensor]) -> None:
        super().__init__()
        self.model = model
        self.attending: list[nn.Module] = []
        self._inside: list[nn.Module] = []
        self._latest: Any = None
        # tensors that come from the input, True where they are a product of two such
        self._from_input: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        for tensor in inputs.values():
            self._from_input[tensor] = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        func = getattr(func, "overloadpacket", func)
        known = [self._from_input[each] for each in _tensors((args, kwargs)) if each in self._from_input]
        if func in FUSED:  # of queries that are learned, not read, there is nothing to prune
            attends = next(_tensors((args, kwargs)), None) in self._from_input
        else:
            attends = func in NORMALISED and any(known)
        if attends:
            self.attending.append(self._inside[-1] if self._inside else self.model)
            self._latest = result
        if known:
            if func in PRODUCTS:
                product = len(known) > 1
            else:
                product = any(known) and func not in LINEAR and func not in FUSED and func not in SOFTMAX
            for each in _tensors(result):
                self._from_input[each] = product
        return result

    def reached(self, probs: Tensor) -> None:
        """Leave out the attention that was noted last, where this is its result: a method gets it."""
        if self._latest is probs:
            self.attending.pop()
            self._latest = None

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Count until the block ends."""
        handles = []
        for module in self.model.modules():
            handles.append(module.register_forward_pre_hook(self._enter))
            handles.append(module.register_forward_hook(self._leave, always_call=True))
        try:
            with self:
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, module: nn.Module, _: Any) -> None:
        self._inside.append(module)

    def _leave(self, module: nn.Module, *_: Any) -> None:
        while self._inside and self._inside.pop() is not module:
            pass


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)
