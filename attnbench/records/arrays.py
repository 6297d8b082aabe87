"""A record's arrays as the bytes of an .npz: packed, and unpacked as far as they are asked for and fit."""

from __future__ import annotations

import functools
import io
import math
import zipfile
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

LARGEST = 1 << 30  # bytes of all arrays of a record, packed or not
AXES = 4
MAGIC, SIZES = 8, {(1, 0): 2, (2, 0): 4}  # bytes of a file's first mark, and of its header's length
HEADERS = 256


def pack(arrays: dict[str, np.ndarray]) -> bytes:
    """Return what np.savez_compressed writes, which takes no array of the name of its own `file`."""
    import numpy as np

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)
    return buffer.getvalue()


def unpack(packed: bytes, wanted: Iterable[str]) -> dict[str, np.ndarray]:
    """Return those of the wanted arrays that are there; no other is unpacked.

    Raises ValueError where they are too much together, or one says it is larger than it is.
    """
    found, left = {}, LARGEST
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        known = {info.filename: info for info in archive.infolist()}
        for name in dict.fromkeys(wanted):
            info = known.get(f"{name}.npy")
            if info is None:
                continue
            left -= info.file_size
            if left < 0:
                raise ValueError(f"its arrays are more than {LARGEST:,} bytes")
            with archive.open(info) as file:  # never gives more than the size that was added up
                found[name] = _array(name, file.read())
    return found


def _array(name: str, data: bytes) -> np.ndarray:
    import numpy as np

    version = np.lib.format.read_magic(io.BytesIO(data))
    if version not in SIZES:
        raise ValueError(f"{name} is of the format {version}")
    begin = MAGIC + SIZES[version]
    begin += int.from_bytes(data[MAGIC:begin], "little")
    shape, in_columns, kind = _header(version, data[:begin])
    size = math.prod(shape) * kind.itemsize
    if kind.hasobject or kind.fields or len(shape) > AXES or size != len(data) - begin:
        raise ValueError(f"{name} is no plain array of the size it says")
    values = np.frombuffer(data, kind, offset=begin)
    return values.reshape(shape, order="F" if in_columns else "C").copy()


@functools.lru_cache(HEADERS)
def _header(version: tuple[int, int], text: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read a header, once where many arrays have the same."""
    import numpy as np

    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    file = io.BytesIO(text)
    np.lib.format.read_magic(file)
    return read(file)
