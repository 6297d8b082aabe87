"""The most memory that attention holds at a time: torch's own count on a GPU, allocator events on a CPU."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attnbench.engine.places import sites

REGION = "attnbench attention"
QUIET = ("KINETO_LOG_LEVEL", "6")  # torch's profiler tells stderr of every start and stop


def peak_memory(model: nn.Module, batch: dict[str, Tensor]) -> int:
    """Return the most bytes that one attention module holds at a time beside its inputs."""
    modules = [model.get_submodule(path) for path in dict.fromkeys(s.path for s in sites.discover(model))]
    measure = _on_gpu if batch["input_ids"].is_cuda else _by_profiler
    with torch.no_grad():
        return measure(modules, lambda: model(**batch))


def peak_of(call: Callable[[], Any], on_gpu: bool) -> int:
    """Return the most bytes that a call holds at a time beside what was there before it."""
    whole = _Whole(call)
    with torch.no_grad():
        return (_on_gpu if on_gpu else _by_profiler)([whole], whole)


class _Whole(nn.Module):
    """A call as a module."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__()
        self.forward = call


def _on_gpu(modules: Sequence[nn.Module], call: Callable[[], Any]) -> int:
    highest, before = 0, 0

    def enter(*_: Any) -> None:
        nonlocal before
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()

    def leave(*_: Any) -> None:
        nonlocal highest
        highest = max(highest, torch.cuda.max_memory_allocated() - before)

    with _hooked(modules, enter, leave):
        call()
    return highest


def _by_profiler(modules: Sequence[nn.Module], call: Callable[[], Any]) -> int:
    """Follow torch's allocator events between a module's beginning and its end."""
    from torch.profiler import ProfilerActivity, profile, record_function

    os.environ.setdefault(*QUIET)
    regions: list[Any] = []

    def enter(*_: Any) -> None:
        regions.append(record_function(REGION))
        regions[-1].__enter__()

    def leave(*_: Any) -> None:
        regions.pop().__exit__(None, None, None)

    with (
        _hooked(modules, enter, leave),
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled,
    ):
        call()
    events: Any = profiled.profiler.kineto_results.events()
    marks: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for event in events:
        if event.name() == "[memory]":
            marks[event.start_ns()].append((0, event.nbytes()))
        elif event.name() == REGION:
            marks[event.start_ns()].append((1, 0))
            marks[event.start_ns() + event.duration_ns()].append((-1, 0))
    level = highest = depth = 0
    for moment in sorted(marks):
        for step, size in marks[moment]:
            depth += step
            level = 0 if step == 1 else level + size
            highest = max(highest, level) if depth else highest
    return highest


@contextlib.contextmanager
def _hooked(modules: Sequence[nn.Module], enter: Any, leave: Any) -> Iterator[None]:
    handles = [module.register_forward_pre_hook(enter) for module in modules]
    handles += [module.register_forward_hook(leave) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
