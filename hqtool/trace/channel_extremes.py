"""The extremes of each channel of a tensor as the bytes a trace stores (see `schema`), and back."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqtool.errors import DataError
from hqtool.trace.schema import CHANNELS_TAIL, CRC_BYTES

Extremes = NDArray[np.float64]

#: The types they are stored in.
_TYPES: dict[int, np.dtype[Any]] = {4: np.dtype("<f4"), 8: np.dtype("<f8")}


def extremes_bytes(extremes: Any | None) -> bytes:
    """Extremes as they are stored, the tail last.

    They are stored as float32 where that holds them exactly, else as float64.

    Args:
        extremes: (2, channels), the lowest and the highest value of each channel; NaN where it has
            no finite value. None: not known.

    Raises:
        DataError: they are not such an array.
    """
    ends = np.empty((2, 0), np.float32) if extremes is None else np.asarray(extremes)
    if ends.ndim != 2 or len(ends) != 2 or ends.dtype.kind != "f":
        cause = f"extremes of channels of shape {ends.shape}, type {ends.dtype}"
        raise DataError(cause, "give floats in the shape (2, channels)")
    with np.errstate(over="ignore"):
        data = ends.astype(_TYPES[4])
    if not np.array_equal(data, ends, equal_nan=True):
        data = ends.astype(_TYPES[8])
    tail = CHANNELS_TAIL.pack(ends.shape[1], data.itemsize, 0)[:-CRC_BYTES]
    body = data.tobytes() + tail
    return body + zlib.crc32(body).to_bytes(CRC_BYTES, "little")


def extremes_start(end: int, read: Callable[[int, int], bytes]) -> int:
    """Where the extremes begin whose tail ends there; arguments as for `extremes_before`."""
    channels, itemsize, _ = CHANNELS_TAIL.unpack(read(end - CHANNELS_TAIL.size, end))
    return int(end - CHANNELS_TAIL.size - 2 * channels * itemsize)


def extremes_before(end: int, read: Callable[[int, int], bytes]) -> Extremes | None:
    """The extremes whose tail ends there, as float64; None where none are known.

    Args:
        end: where they end, in bytes of the payload.
        read: gives the bytes from one place to another.

    Raises:
        ValueError: they do not match their checksum.
    """
    tail = read(end - CHANNELS_TAIL.size, end)
    channels, itemsize, crc = CHANNELS_TAIL.unpack(tail)
    start = extremes_start(end, read)
    body = read(start, end - CRC_BYTES)
    if itemsize not in _TYPES or zlib.crc32(body) != crc:
        raise ValueError("the extremes of a record's channels do not match their checksum")
    if not channels:
        return None
    found = np.frombuffer(body, _TYPES[itemsize], 2 * channels)
    return found.reshape(2, channels).astype(np.float64)
