"""Torch's modes: what anybody can switch and everybody's numbers, or their speed, then depend on."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable
from typing import Any

import torch

PRECISE = (
    "",
    "cuda.matmul",
    "cudnn",
    "cudnn.conv",
    "cudnn.rnn",
    "mkldnn",
    "mkldnn.matmul",
    "mkldnn.conv",
    "mkldnn.rnn",
)
BACKENDS = (
    ("mkldnn", "enabled"),
    ("cudnn", "enabled"),
    ("cudnn", "benchmark"),
    ("cudnn", "deterministic"),
    ("cuda.matmul", "allow_fp16_reduced_precision_reduction"),
    ("cuda.matmul", "allow_bf16_reduced_precision_reduction"),
    *((path, "fp32_precision") for path in PRECISE),  # the general one before those that follow it
)
ATTENTIONS = ("flash", "mem_efficient", "math", "cudnn")


def _flags() -> dict[tuple[str, str], Any]:
    return {(path, name): getattr(backend(path), name) for path, name in BACKENDS}


def _set_flags(flags: dict[tuple[str, str], Any]) -> None:
    for (path, name), value in flags.items():
        if getattr(backend(path), name) != value:
            setattr(backend(path), name, value)


def backend(path: str) -> Any:
    return operator.attrgetter(path)(torch.backends) if path else torch.backends


def _matmul_precision() -> str | None:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # a backend has one of its own: it is among the flags
        return None


def _set_matmul_precision(precision: str | None) -> None:
    if precision is not None:
        torch.set_float32_matmul_precision(precision)


def _attentions() -> dict[str, bool]:
    return {name: getattr(torch.backends.cuda, f"{name}_sdp_enabled")() for name in ATTENTIONS}


def _set_attentions(enabled: dict[str, bool]) -> None:
    for name, value in enabled.items():
        getattr(torch.backends.cuda, f"enable_{name}_sdp")(value)


def _autocast() -> dict[str, tuple[bool, torch.dtype]]:
    return {
        device: (torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))
        for device in ("cpu", "cuda")
    }


def _set_autocast(known: dict[str, tuple[bool, torch.dtype]]) -> None:
    for device, (enabled, dtype) in known.items():
        torch.set_autocast_enabled(device, enabled)
        torch.set_autocast_dtype(device, dtype)


MODES: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "torch's grad mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "torch's default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "torch's default device": (
        torch.get_default_device,
        lambda device: torch.set_default_device(None if device.type == "cpu" else device),
    ),
    "torch's number of threads": (torch.get_num_threads, torch.set_num_threads),
    "torch's deterministic mode": (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    "torch's denormal numbers": (  # that they are, for only the processor tells
        lambda: sys.float_info.min / 2 > 0,
        lambda kept: torch.set_flush_denormal(not kept),
    ),
    "torch's float32 matmul precision": (_matmul_precision, _set_matmul_precision),
    "torch's backends": (_flags, _set_flags),
    "torch's kinds of fused attention": (_attentions, _set_attentions),
    "torch's autocast": (_autocast, _set_autocast),
    "torch's anomaly mode": (
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        lambda known: torch.autograd.set_detect_anomaly(*known),
    ),
}
