"""A record's arrays as the bytes of an .npz: packed, and unpacked as far as they are asked for and fit."""

from __future__ import annotations

import functools
import io
import math
import zipfile
import zlib
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

LARGEST = 1 << 30  # bytes of all arrays of a record, packed or not
AXES = 4
MAGIC, SIZES = 8, {(1, 0): 2, (2, 0): 4}  # bytes of a file's first mark, and of its header's length
HEADERS, ALIKE = 256, 256
LONG = 1 << 20  # bytes of an array that is too long to be held for the next record
LOCAL, ENCRYPTED = 30, 1  # bytes of a member's own header, the flag of one that needs a password


def pack(arrays: dict[str, np.ndarray]) -> bytes:
    """Return what np.savez_compressed writes, which takes no array of the name of its own `file`."""
    import numpy as np

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)
    return buffer.getvalue()


def unpack(packed: bytes, wanted: Iterable[str], alike: Collection[str] = ()) -> dict[str, np.ndarray]:
    """Return those of the wanted arrays that are there; no other is unpacked.

    Those that are `alike` in many files are unpacked once, and read-only.

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
            make = _alike if name in alike and info.file_size < LONG else _plain
            data = _member(name, packed, info)
            found[name] = make(name, data, info.compress_type, info.file_size, info.CRC)
    return found


def _member(name: str, packed: bytes, info: zipfile.ZipInfo) -> bytes:
    """Return what one member holds, still packed."""
    begin = info.header_offset + LOCAL
    mark, lengths = packed[info.header_offset : begin][:4], packed[begin - 4 : begin]
    if mark != b"PK\3\4" or len(lengths) < 4 or info.flag_bits & ENCRYPTED:
        raise ValueError(f"{name} is not where the archive says, or is encrypted")
    begin += sum(int.from_bytes(lengths[k : k + 2], "little") for k in (0, 2))  # its name and what is added
    return packed[begin : begin + info.compress_size]


def _plain(name: str, data: bytes, kind: int, size: int, check: int) -> np.ndarray:
    """Unpack an array, never more than the size that it says; zipfile itself takes three times as long."""
    if kind == zipfile.ZIP_DEFLATED:
        data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
    elif kind != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is packed in a way that is not read")
    if len(data) != size or zlib.crc32(data) != check:
        raise ValueError(f"{name} is damaged")
    return _array(name, data)


@functools.lru_cache(ALIKE)
def _alike(name: str, data: bytes, kind: int, size: int, check: int) -> np.ndarray:
    """Unpack an array once for all records that hold it, as those of a column hold the same samples."""
    found = _plain(name, data, kind, size, check)
    found.flags.writeable = False
    return found


def _array(name: str, data: bytes) -> np.ndarray:
    """Return the array that the bytes of an .npy hold."""
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
    return values.reshape(shape, order="F" if in_columns else "C").copy()  # where arithmetic is fast


@functools.lru_cache(HEADERS)
def _header(version: tuple[int, int], text: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read a header, once where many arrays have the same."""
    import numpy as np

    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    file = io.BytesIO(text)
    np.lib.format.read_magic(file)
    return read(file)
