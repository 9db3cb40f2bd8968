"""Each kernel in the form that is in use."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqtool.kernels.form import form_in_use
from hqtool.kernels.plain import array_sums as plain_sums
from hqtool.kernels.plain import quantized_nearest as plain_nearest
from hqtool.kernels.sums import ArraySums

#: From this variance/mean² on the compiled sums, in float64, lose no more than 5e-9.
_LEAST_SPREAD = 1e-4


def array_sums(values: NDArray[Any]) -> ArraySums:
    """The sums of a contiguous array.

    Extremes and counts are exact, and the same in both forms. The compiled form makes the sums in
    float64 and in a fixed order: the same bits on every machine, whatever its vectors' width.

    Args:
        values: contiguous, of float16, float32 or float64; uint16 are the bits of bfloat16.

    Raises:
        TypeError: values of another type.
        UsageError: the environment asks for a form that is not there.
    """
    return sums_in_form(form_in_use().name)(values)


def quantized_nearest(
    values: NDArray[np.float32],
    out: NDArray[np.float32],
    clipped: NDArray[np.bool_] | None,
    scale: float,
    first: float,
    last: float,
    lo: float,
    hi: float,
) -> int:
    """Quantize to the nearest of uniform levels, in one pass, in float32.

    The same bits in both forms: rint(x/scale), ties to even, clamped, times scale. NaN stays NaN;
    infinities become the ends.

    Args:
        values, out: contiguous, as many; out is filled.
        clipped: filled with where values lie below `lo` or above `hi`; None: nothing is.
        scale: > 0; what the levels `first` … `last` are multiplied by.

    Returns:
        how many values are clipped; 0 where that was not asked for.
    """
    read = nearest_in_form(form_in_use().name)
    return read(values, out, clipped, scale, first, last, lo, hi)


@functools.cache
def nearest_in_form(form: str) -> Callable[..., int]:
    """`quantized_nearest` in the plain or the compiled form.

    Raises:
        ImportError: the compiled form was not built.
    """
    if form == "plain":
        return plain_nearest
    from hqtool.kernels._compiled import quantized_nearest as compiled_nearest

    return compiled_nearest


@functools.cache
def sums_in_form(form: str) -> Callable[[NDArray[Any]], ArraySums]:
    """`array_sums` in the plain or the compiled form.

    Raises:
        ImportError: the compiled form was not built.
    """
    if form == "plain":
        return plain_sums
    from hqtool.kernels._compiled import array_sums as compiled_sums

    return lambda values: ArraySums(*compiled_sums(values), _LEAST_SPREAD)
