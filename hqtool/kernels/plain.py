"""The plain form of the kernels, in numpy: the oracle, and what works everywhere."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqtool.kernels.sums import ArraySums, added

#: Elements read at a time: few enough to stay in the cache from one pass to the next.
CHUNK_ELEMENTS = 1 << 20

#: Rows of values are summed up in the values' own type: the longest row that is exact enough, the
#: shortest that saves time, and how many values there must be for the rows' errors to cancel.
_LONGEST_ROW, _SHORTEST_ROW, _FEWEST_VALUES = 128, 32, 1 << 12

#: The largest magnitude that float32 can square and sum up.
_LARGE = 1e15

#: Below this variance/mean², Σx²/n − mean² of sums made in float32 loses digits.
_LEAST_SPREAD = 1.0

_F64 = np.dtype(np.float64)
_ONES = {size: np.ones(_LONGEST_ROW, f"f{size}") for size in (4, 8)}
_UNSIGNED = {size: np.dtype(f"u{size}") for size in (4, 8)}
_SIGNED = {size: np.dtype(f"i{size}") for size in (4, 8)}


def array_sums(values: NDArray[Any]) -> ArraySums:
    """`hqtool.kernels.array_sums`, a chunk at a time."""
    flat = values.reshape(-1)
    if flat.size <= CHUNK_ELEMENTS:
        return _sums(_widened(flat))
    starts = range(0, flat.size, CHUNK_ELEMENTS)
    return added(_sums(_widened(flat[start : start + CHUNK_ELEMENTS])) for start in starts)


def _widened(values: NDArray[Any]) -> NDArray[Any]:
    """Values of 16 bits as float32; uint16 are the bits of bfloat16."""
    if values.dtype in (np.float32, np.float64):
        return values
    if values.dtype == np.float16:
        with np.errstate(invalid="ignore"):  # signaling NaNs
            return values.astype(np.float32)
    if values.dtype == np.uint16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    raise TypeError(f"no sums of values of the type {values.dtype}")


def _sums(values: NDArray[Any]) -> ArraySums:
    if not values.size:
        return ArraySums()
    lo, hi = float(np.minimum.reduce(values)), float(np.maximum.reduce(values))
    if not -math.inf < lo <= hi < math.inf:
        return _sums_beside_nonfinite(values)
    smallest, nzero = _smallest(values)
    total, squares = _row_sums(values) if max(-lo, hi) < _LARGE else (math.nan, math.nan)
    size = values.size
    return ArraySums(
        lo + 0.0, hi + 0.0, smallest, size, total, squares, nzero, least_spread=_LEAST_SPREAD
    )


def _sums_beside_nonfinite(values: NDArray[Any]) -> ArraySums:
    finite = values[np.isfinite(values)]
    nnan = int(np.count_nonzero(np.isnan(values)))
    return _sums(finite)._replace(nnan=nnan, ninf=values.size - finite.size - nnan)


def _smallest(values: NDArray[Any]) -> tuple[float, int]:
    """The smallest nonzero magnitude, and how many values are zero.

    Of floats whose bits are read as unsigned integers, the least is the positive one nearest to
    zero; of signed integers, it is the negative one.
    """
    bits = values.view(_UNSIGNED[values.itemsize])
    positive = float(np.minimum.reduce(bits).view(values.dtype))
    if positive:
        negative = np.minimum.reduce(bits.view(_SIGNED[values.itemsize]))
        smallest = min(abs(positive), abs(float(negative.view(values.dtype))))
        if smallest:
            return smallest, 0
    return _smallest_beside_zeros(bits, values.dtype)


def _smallest_beside_zeros(bits: NDArray[Any], dtype: np.dtype[Any]) -> tuple[float, int]:
    magnitudes = bits << 1  # drops the sign
    nzero = bits.size - int(np.count_nonzero(magnitudes))
    magnitudes -= 1  # a zero becomes the largest integer
    least = (int(np.minimum.reduce(magnitudes)) + 1) >> 1
    smallest = abs(float(np.array(least, bits.dtype).view(dtype)))
    return smallest or math.inf, nzero


def _row_sums(values: NDArray[Any]) -> tuple[float, float]:
    """Σx and Σx²: within a row summed in the values' own type, over the rows in float64."""
    length = min(values.size & -values.size, _LONGEST_ROW)
    if length < _SHORTEST_ROW or values.size < _FEWEST_VALUES:
        return sums_in_float64(values.astype(_F64))
    rows, ones = values.reshape(-1, length), _ONES[values.itemsize][:length]
    try:
        totals, squares = np.vecdot(rows, ones), np.vecdot(rows, rows)
    except FloatingPointError:  # an underflow, where numpy was told to raise it
        return math.nan, math.nan
    return float(np.add.reduce(totals, dtype=_F64)), float(np.add.reduce(squares, dtype=_F64))


def sums_in_float64(wide: NDArray[np.float64]) -> tuple[float, float]:
    """Σx and Σx² of a vector."""
    return float(np.add.reduce(wide)), float(np.einsum("i,i->", wide, wide))
