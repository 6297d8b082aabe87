"""Cut heads out of one attention module's weights, by its projections' names, and put them back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from attnbench.engine.places.routing import HEADLESS
from attnbench.errors import NotApplicable

QUERY = ("query", "q_lin", "q_proj", "q")
KEY = ("key", "k_lin", "k_proj", "k")
VALUE = ("value", "v_lin", "v_proj", "v")
FUSED = ("c_attn", "Wqkv")  # queries, keys and values in three equal parts
OUTPUT = ("dense", "out_lin", "out_proj", "o_proj", "c_proj", "o", "Wo")
_ABSENT = object()


class Edits:
    """Attributes set, each with its value before, so that all can be undone."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], object]] = []

    def set(self, owner: Any, name: str, value: Any) -> None:
        held = owner._parameters if name in owner._parameters else vars(owner)
        before = held.get(name, _ABSENT)
        self._undo.append(
            (lambda: delattr(owner, name)) if before is _ABSENT else lambda: setattr(owner, name, before)
        )
        setattr(owner, name, value)

    def on_undo(self, function: Callable[[], object]) -> None:
        self._undo.append(function)

    def undo(self) -> None:
        while self._undo:
            self._undo.pop()()


class Projections(NamedTuple):
    """The linear maps of one attention module; `fused`: the first holds queries, keys and values."""

    inputs: tuple[Any, ...]
    output: Any
    fused: bool


def find(model: nn.Module, path: str) -> Projections:
    """Find the projections of the attention module at a path. Raises NotApplicable where there are none."""
    module = model.get_submodule(path)
    around = model.get_submodule(path.rpartition(".")[0])
    output = _child(module, OUTPUT) or _child(
        getattr(around, "output", nn.Module()), OUTPUT
    )  # BERT's stands apart
    fused = _child(module, FUSED)
    inputs = (fused,) if fused else tuple(_child(module, names) for names in (QUERY, KEY, VALUE))
    if output is None or any(projection is None for projection in inputs):
        raise NotApplicable(f"{type(module).__name__} has no projections that heads could be cut out of")
    return Projections(inputs, output, fused is not None)


def _child(module: nn.Module, names: Sequence[str]) -> nn.Module | None:
    found = (getattr(module, name, None) for name in names)
    return next((child for child in found if isinstance(getattr(child, "weight", None), nn.Parameter)), None)


def cut(edits: Edits, model: nn.Module, path: str, heads: int, head_dim: int, kept: Sequence[int]) -> None:
    """Keep some of a module's heads: rows of Q, K and V, columns of O. Raises NotApplicable.

    A module that keeps none returns its output's bias; for its code it attends with one head of zeros. With
    grouped keys and values, a group goes with its last query head; where groups then differ in size, keys and
    values are copied until every copy serves equally many query heads.
    """
    module, parts = model.get_submodule(path), find(model, path)
    rows_there = parts.inputs[0].weight.shape[_axis(parts.inputs[0])]
    if parts.fused and rows_there != 3 * heads * head_dim:
        raise NotApplicable(
            f"{path} makes queries, keys and values in one map of unequal parts (multi-query attention): no "
            "head can be cut out of it"
        )
    if not kept:
        _empty(edits, module, parts, head_dim)
    else:
        groups = heads if parts.fused else parts.inputs[1].weight.shape[_axis(parts.inputs[1])] // head_dim
        group_of = [head * groups // heads for head in kept]
        shared = math.gcd(*(group_of.count(group) for group in set(group_of)))
        if "num_key_value_groups" in vars(module):
            edits.set(module, "num_key_value_groups", shared)
        elif len(kept) // shared > len(set(group_of)):
            raise NotApplicable(f"{path} shares keys and values among heads in a way that cannot be changed")
        rows = _rows(kept, head_dim)
        if parts.fused:
            _slice(
                edits, parts.inputs[0], [part * heads * head_dim + row for part in range(3) for row in rows]
            )
        else:
            grouped = _rows(group_of[::shared], head_dim)
            for projection, chosen in zip(parts.inputs, (rows, grouped, grouped), strict=True):
                _slice(edits, projection, chosen)
        _slice(edits, parts.output, rows, inputs=True)
    left = max(len(kept), 1)
    for name, value in (("split_size", left * head_dim), ("num_heads", left)):
        if name in vars(module):
            edits.set(module, name, value)
    if hasattr(module, "has_relative_attention_bias"):
        _index_bias(edits, module, heads, list(kept) or [0])


def _axis(projection: nn.Module) -> int:
    """Return the axis of a weight that counts outputs: Linear has it first, GPT-2's Conv1D last."""
    return 0 if isinstance(projection, nn.Linear) else 1


def _rows(heads: Sequence[int], head_dim: int) -> list[int]:
    return [head * head_dim + k for head in heads for k in range(head_dim)]


def _slice(edits: Edits, projection: Any, rows: list[int], inputs: bool = False) -> None:
    axis = _axis(projection)
    index = torch.tensor(rows, dtype=torch.long, device=projection.weight.device)
    for name, parameter in list(projection.named_parameters(recurse=False)):
        if name == "weight" or not inputs:
            along = axis if parameter.dim() == 2 else 0
            cut = parameter.detach().index_select(1 - axis if inputs else along, index).contiguous()
            edits.set(projection, name, nn.Parameter(cut, requires_grad=parameter.requires_grad))
    for name in ("in_features", "nx") if inputs else ("out_features", "nf"):
        if name in vars(projection):
            edits.set(projection, name, len(rows))


def _empty(edits: Edits, module: nn.Module, parts: Projections, head_dim: int) -> None:
    def zeros(width: int) -> Callable[[Tensor], Tensor]:
        return lambda hidden: hidden.new_zeros(()).expand(*hidden.shape[:-1], width)

    def bias(context: Tensor) -> Tensor:
        own = getattr(output, "bias", None)
        return (context.new_zeros(()) if own is None else own).expand(*context.shape[:-1], size)

    output = parts.output
    size = output.weight.shape[_axis(output)]
    for projection in parts.inputs:
        _slice(edits, projection, [])
        edits.set(projection, "forward", zeros(head_dim * (3 if parts.fused else 1)))
    _slice(edits, output, [], inputs=True)
    edits.set(output, "forward", bias)
    edits.set(module, HEADLESS, True)
    if "num_key_value_groups" in vars(module):
        edits.set(module, "num_key_value_groups", 1)


def _index_bias(edits: Edits, module: Any, heads: int, kept: list[int]) -> None:
    """Give T5's attention the columns of its heads of a bias that all layers share, and pass on the whole."""
    whole: list[Tensor] = []
    compute = module.compute_bias

    def of_own_heads(*args: Any, **kwargs: Any) -> Tensor:
        whole[:] = [compute(*args, **kwargs)]
        return whole[0][:, kept]

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = kwargs.get("position_bias")
        if (
            given is None and not module.has_relative_attention_bias
        ):  # cross attention: no bias, of every head
            hidden = args[0] if args else kwargs["hidden_states"]
            keys = kwargs.get("key_value_states", hidden).shape[1]
            given = hidden.new_zeros(()).expand(1, heads, hidden.shape[1], keys)
        if given is None:
            return None
        whole[:] = [given]
        return args, {**kwargs, "position_bias": given[:, kept]}

    def after(_: nn.Module, args: tuple[Any, ...], output: tuple[Any, ...]) -> tuple[Any, ...]:
        return (output[0], whole.pop(), *output[2:])

    if module.has_relative_attention_bias:
        edits.set(module, "compute_bias", of_own_heads)
    edits.on_undo(module.register_forward_pre_hook(before, with_kwargs=True).remove)
    edits.on_undo(
        module.register_forward_hook(after, prepend=True).remove
    )  # a later cut sees this one's heads


def head_columns(model: nn.Module, path: str, head: int, head_dim: int) -> Tensor:
    """Return the part of a module's output weight that reads one head, a view of the weight's data."""
    output = find(model, path).output
    return output.weight.data.narrow(1 - _axis(output), head * head_dim, head_dim)
