"""What a tensor takes in memory under a quantizer: its elements, and its scales."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

from hqtool.core.formats.block import BlockFormat
from hqtool.core.formats.format import Format
from hqtool.core.formats.householder import HouseholderFormat
from hqtool.estimators.quantizer import Quantizer
from hqtool.traffic.pricing.looks import entries_per
from hqtool.traffic.pricing.store import Stored

#: Bits of the range of a channel, sample or row that has one of its own: a float32 scale.
ENTRY_SCALE_BITS = 32


@lru_cache(maxsize=4096)  # shapes recur
def stored(quantizer: Quantizer, shape: tuple[int, ...], channel_axis: int) -> Stored:
    """A tensor under a quantizer: whole bits, for blocks and ranges are counted.

    Args:
        channel_axis: the axis along which blocks and rows lie; negative ones count from the last.
    """
    format_, numel = quantizer.format.value, math.prod(shape)
    payload = math.ceil(numel * Fraction(_element_bits(format_)))
    if isinstance(format_, BlockFormat):
        return Stored(payload, blocks(format_, shape, channel_axis) * format_.scaling.bits)
    per = "sample" if isinstance(format_, HouseholderFormat) else entries_per(quantizer)
    return Stored(payload, _entries(per, shape, channel_axis) * ENTRY_SCALE_BITS)


def blocks(format_: BlockFormat, shape: tuple[int, ...], channel_axis: int) -> int:
    """How many blocks a tensor has: short ones at the ends of rows and of tiles count, too."""
    axis = channel_axis % len(shape)
    before, after = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    return -(-before // format_.rows) * -(-shape[axis] // format_.size) * after


def _element_bits(format_: Format) -> float:
    """Bits of an element alone."""
    return format_.element.bits if isinstance(format_, BlockFormat) else format_.bits


def _entries(per: str, shape: tuple[int, ...], channel_axis: int) -> int:
    """How many parts of a tensor have a range of their own beside that of the whole."""
    channels = shape[channel_axis]
    counts = {"channel": channels, "sample": shape[0], "row": math.prod(shape) // max(1, channels)}
    return counts.get(per, 0)
