"""What quantized a tensor, as the bytes a trace stores (see `schema`), and back."""

from __future__ import annotations

import zlib
from collections.abc import Callable

from hqtool.trace.channel_extremes import extremes_start
from hqtool.trace.schema import (
    CRC_BYTES,
    USED,
    USED_KNOWN,
    USED_LOOKED,
    USED_RANGE,
    USED_SCALED,
)
from hqtool.vocab import Range, UsedRange


def used_bytes(used: UsedRange | None) -> bytes:
    """What quantized a tensor as it is stored; None: it was not quantized."""
    if used is None:
        return _sealed(0.0, 0.0, 0.0, 0)
    bits = USED_KNOWN
    for flag, holds in (
        (USED_RANGE, used.range is not None),
        (USED_LOOKED, used.looked),
        (USED_SCALED, used.carries_scale),
    ):
        bits |= flag if holds else 0
    lo, hi = used.range or (0.0, 0.0)
    return _sealed(lo, hi, used.clipped, bits)


def _sealed(lo: float, hi: float, clipped: float, bits: int) -> bytes:
    body = USED.pack(lo, hi, clipped, bits, 0)[:-CRC_BYTES]
    return body + zlib.crc32(body).to_bytes(CRC_BYTES, "little")


def used_before(end: int, read: Callable[[int, int], bytes], *, extremes: bool) -> UsedRange | None:
    """What quantized the tensor whose values begin there; None: it was not quantized.

    Args:
        end: where the values are, in bytes of the payload.
        read: gives the bytes from one place to another.
        extremes: the extremes of channels stand in between.

    Raises:
        ValueError: it does not match its checksum.
    """
    end = extremes_start(end, read) if extremes else end
    data = read(end - USED.size, end)
    lo, hi, clipped, bits, crc = USED.unpack(data)
    if zlib.crc32(data[:-CRC_BYTES]) != crc:
        raise ValueError("the range used of a record does not match its checksum")
    if not bits & USED_KNOWN:
        return None
    found = Range(lo, hi) if bits & USED_RANGE else None
    return UsedRange(found, bool(bits & USED_LOOKED), clipped, bool(bits & USED_SCALED))
