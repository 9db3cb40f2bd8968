"""A sample's layout and extremes as the bytes a trace stores (see `schema`), and back."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqtool.errors import DataError
from hqtool.trace.schema import CRC_BYTES, LAYOUT_HEAD, place_type
from hqtool.vocab import SampleLayout


def layout_bytes(layout: SampleLayout, size: int, numel: int) -> bytes:
    """A layout as it is stored.

    Args:
        layout: its extremes as bits, of the type that the values are stored in.
        size: number of values in the sample.
        numel: elements of the full tensor.

    Raises:
        DataError: it is not a layout of such a sample of such a tensor.
    """
    _require_layout(layout, size, numel)
    places = place_type(numel)
    parts = (layout.extremes, layout.extreme_places.astype(places), layout.fibres.astype(places))
    data = b"".join(part.tobytes() for part in parts)
    head = LAYOUT_HEAD.pack(0, layout.extremes.size, layout.length, layout.stride)
    crc = zlib.crc32(data, zlib.crc32(head[CRC_BYTES:]))
    return crc.to_bytes(CRC_BYTES, "little") + head[CRC_BYTES:] + data


def bytes_after_head(head: bytes, element: np.dtype[Any], size: int, numel: int) -> int:
    """How many bytes of a layout follow its head.

    Args:
        element: what values are stored as.
        size, numel: as for `layout_bytes`.
    """
    _, extremes, length, _ = LAYOUT_HEAD.unpack(head)
    places = extremes + size // max(length, 1)
    return int(extremes * element.itemsize + places * place_type(numel).itemsize)


def layout_from(
    head: bytes, data: bytes, element: np.dtype[Any], size: int, numel: int
) -> SampleLayout:
    """The layout that was stored, its extremes as bits; arguments as for `bytes_after_head`.

    Raises:
        ValueError: it does not match its checksum.
    """
    crc, count, length, stride = LAYOUT_HEAD.unpack(head)
    if zlib.crc32(data, zlib.crc32(head[CRC_BYTES:])) != crc:
        raise ValueError("a sample's layout does not match its checksum")
    extremes = np.frombuffer(data, element, count).copy()
    places = np.frombuffer(data, place_type(numel), offset=extremes.nbytes).astype(np.int64)
    return SampleLayout(places[count:], length, stride, extremes, places[:count])


def _require_layout(layout: SampleLayout, size: int, numel: int) -> None:
    length, stride = layout.length, layout.stride
    fibres, places = layout.fibres, layout.extreme_places
    sound = (
        min(length, stride) > 0
        and numel % (length * stride) == 0
        and fibres.ndim == places.ndim == layout.extremes.ndim == 1
        and fibres.size * length == size
        and places.size == layout.extremes.size
        and _all_below(fibres, numel // length)
        and bool((np.diff(fibres) > 0).all())
        and _all_below(places, numel)
    )
    if not sound:
        cause = f"no layout of {size} values of a tensor of {numel}"
        raise DataError(cause, "give fibres, ascending, that hold them, and places within it")


def _all_below(numbers: NDArray[np.int64], end: int) -> bool:
    return bool(((numbers >= 0) & (numbers < end)).all())
