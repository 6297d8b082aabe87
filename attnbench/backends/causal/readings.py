"""Prompts that were read, kept for the methods to come in a temporary file that ends with the process."""

from __future__ import annotations

import contextlib
import math
import shutil
import tempfile
import weakref
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attnbench.engine.serving import recalled
from attnbench.engine.serving.recalled import Reading

SHARE = 2  # of the space that is free one part in so many is taken at most


@dataclass
class Stored:
    """A reading whose tensors lie in a file, from `start` on, one after the other."""

    reading: Reading
    start: int
    shapes: dict[str, list[tuple[torch.Size, torch.dtype]]]


class Readings:
    """The prompts that one model has read on a CPU, with as many threads as torch has now."""

    def __init__(self, model: nn.Module) -> None:
        self._model, self._threads = weakref.ref(model), torch.get_num_threads()
        self._end = 0
        self._plain = True  # until one of the model's prompts was seen not to be
        self._known: dict[tuple[int, ...], Stored] = {}
        self._file: Any = None

    def of_model(self, model: nn.Module) -> bool:
        """Tell whether they are what this model would read now."""
        return self._model() is model and self._threads == torch.get_num_threads()

    def serve(self, device: torch.device) -> bool:
        """Tell whether what is applied now takes from here what it cuts. A GPU reads faster than a disk."""
        model = self._model()
        return self._plain and device.type == "cpu" and model is not None and recalled.recalls(model)

    def of(self, model: nn.Module, ids: tuple[int, ...]) -> Reading | None:
        """Return what a prompt left, read now where it is not known; None where it cannot be told."""
        if ids in self._known:
            return self._load(self._known[ids])
        reading = recalled.read(model, torch.tensor([ids])) if self._plain else None
        self._plain = reading is not None
        if reading is not None:
            with contextlib.suppress(OSError):  # no folder, or no room: it is read again
                if (size := sum(map(_bytes, _flat(reading)))) <= self._room():
                    self._known[ids] = self._store(reading, size)
        return reading

    def _room(self) -> int:
        free = shutil.disk_usage(tempfile.gettempdir()).free
        return (free + self._end) // SHARE - self._end

    def _store(self, reading: Reading, size: int) -> Stored:
        if self._file is None:
            # without a name: nothing is left of it, however this process ends
            self._file = tempfile.TemporaryFile()  # noqa: SIM115
            weakref.finalize(self, self._file.close)
        start = self._end
        self._file.seek(start)
        for tensor in _flat(reading):
            self._file.write(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
        self._file.flush()
        self._end += size
        shapes = {key: [(each.shape, each.dtype) for each in found] for key, found in reading.tensors.items()}
        return Stored(replace(reading, tensors={}), start, shapes)

    def _load(self, stored: Stored) -> Reading:
        sizes = [math.prod(s) * d.itemsize for each in stored.shapes.values() for s, d in each]
        whole = np.memmap(self._file, np.uint8, "c", stored.start, (sum(sizes),))
        parts, tensors = iter(torch.from_numpy(whole).split(sizes)), {}
        for key, found in stored.shapes.items():
            query, k, v = (next(parts).view(dtype).view(shape) for shape, dtype in found)
            tensors[key] = query, k, v
        return replace(stored.reading, tensors=tensors)


def _flat(reading: Reading) -> list[Tensor]:
    return [tensor for found in reading.tensors.values() for tensor in found]


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
