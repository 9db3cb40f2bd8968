"""Each kernel in the form that is in use."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqtool.kernels.form import form_in_use
from hqtool.kernels.grid import Grid
from hqtool.kernels.lanes import LaneGaps, LaneSums
from hqtool.kernels.noise import NoiseKey, plain_uniform
from hqtool.kernels.plain import array_sums as plain_sums
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


def uniform(key: NoiseKey, size: int, first: int = 0) -> NDArray[np.float32]:
    """The noise of so many values of a tensor, from the index `first` on: [0, 1), of 24 bits.

    The same bits in both forms; `hqtool.kernels.noise` tells what they are.
    """
    out = np.empty(size, np.float32)
    uniform_in_form(form_in_use().name)(out, key, first)
    return out


def quantized(
    values: NDArray[Any],
    out: NDArray[Any],
    clipped: NDArray[np.bool_] | None,
    grid: Grid,
    key: NoiseKey | None,
    with_sums: bool,
    finite: bool = False,
) -> tuple[int, ArraySums | None]:
    """Quantize to the levels of a grid, and read statistics, in one pass over the values.

    There is no plain form: where the kernels are not compiled, `hqtool.core.quantize` in numpy or
    torch gives the same bits. NaN and infinities stay as they are. It computes in float32.

    Args:
        values, out: contiguous, of one type: float32, float16, or the bits of bfloat16 as uint16;
            as many, and in the same memory or in memory of their own. `out` is filled.
        clipped: filled with where values are clipped, if any are; None: that is not asked for.
        key: of the noise of stochastic rounding; None: to nearest.
        with_sums: the sums of the values are wanted: they are those of `array_sums`.
        finite: the values are known to be finite, which saves time where sums are not wanted.

    Returns:
        how many values are clipped, 0 where that was not asked for, and their sums.

    Raises:
        TypeError: arrays that do not go together.
        ImportError: the compiled form was not built.
    """
    found, sums = _compiled_quantized()(values, out, clipped, grid, key, with_sums, finite)
    return found, None if sums is None else ArraySums._make((*sums, _LEAST_SPREAD))


def lane_sums(
    values: NDArray[Any],
    scale: Any,
    lowest: Any,
    highest: Any,
    gaps: LaneGaps,
    expected: bool,
) -> LaneSums:
    """Sums over values that are each quantized under the levels of their own lane.

    There is no plain form: where the kernels are not compiled, `hqtool.core.moments.grouped` does
    the same in numpy. It computes in float64; the bits do not depend on the machine's vectors.

    Args:
        values: finite, contiguous, of up to three axes; float16, float32 or float64.
        scale, lowest, highest: broadcast to the shape of the values; levels in units of the scale.
        expected: of stochastic rounding, the expectation; else to nearest.

    Raises:
        TypeError: arrays that do not go together.
        ImportError: the compiled form was not built.
    """
    columns = (np.asarray(each, np.float64) for each in (scale, lowest, highest))
    return LaneSums._make(_compiled_lane_sums()(values, *columns, gaps, expected))


@functools.cache
def _compiled_lane_sums() -> Callable[..., Any]:
    from hqtool.kernels._compiled import lane_sums as compiled

    return compiled


@functools.cache
def _compiled_quantized() -> Callable[..., Any]:
    from hqtool.kernels._compiled import quantized as compiled

    return compiled


@functools.cache
def uniform_in_form(form: str) -> Callable[[NDArray[np.float32], NoiseKey, int], None]:
    """What fills an array with noise, in the plain or the compiled form.

    Raises:
        ImportError: the compiled form was not built.
    """
    if form == "plain":
        return plain_uniform
    from hqtool.kernels._compiled import uniform as compiled_uniform

    return compiled_uniform


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
