"""Quantizing an array to levels, for numpy, torch and other array libraries."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hqtool.core.formats.block import BlockFormat
from hqtool.core.formats.format import Levels
from hqtool.vocab import Range


def quantize(x: Any, levels: Levels, noise: Any = None, xp: Any = np) -> Any:
    """The representable value for each value of x, in x's type.

    Args:
        x: array of any shape. hqtool's own analysis passes float64; what has 16 bits is computed
            in float32, so that only the result is rounded to them.
        levels: one lane as plain numbers (`Levels.one`), or lanes as arrays of `xp` that go with
            x's shape.
        noise: None rounds to nearest, ties to even. Else uniform [0, 1) of x's shape: stochastic
            rounding (`Levels.drawn`). Noise is passed in, never drawn here.
        xp: the namespace of x: numpy, torch, or any that keeps the Python array API standard.
    """
    if getattr(getattr(x, "dtype", None), "itemsize", 8) < 4:
        wide, u = (None if a is None else xp.asarray(a, dtype=xp.float32) for a in (x, noise))
        return xp.asarray(quantize(wide, levels, u, xp), dtype=x.dtype)
    alone = isinstance(levels.scale, float)
    if alone and not levels.scale:
        return x * 0
    scale = levels.scale if alone else _without_zeros(levels.scale, xp)
    return level_of(x / scale, levels, noise, xp) * levels.scale


def quantized_and_clipped(
    x: Any, levels: Levels, noise: Any = None, xp: Any = np
) -> tuple[Any, Any]:
    """`quantize`, and which values are saturated: with noise, for which a level beyond was drawn.

    Args:
        x: of 32 bits or more. NaN is never clipped.
        levels: lanes as arrays. Under a scale of 0 every other value is clipped.
        noise, xp: as for `quantize`.
    """
    if noise is None:
        lo, hi = levels.limits
        return quantize(x, levels, None, xp), (x < lo) | (x > hi)
    drawn = levels.drawn(x / _without_zeros(levels.scale, xp), noise, xp)
    beyond = (drawn < levels.lowest) | (drawn > levels.highest)
    beyond = beyond | (levels.scale == 0) & ((x < 0) | (x > 0))
    return xp.clip(drawn, levels.lowest, levels.highest) * levels.scale, beyond


def quantize_in_blocks(
    x: Any,
    format_: BlockFormat,
    wanted: Range,
    axis: int,
    noise: Any = None,
    xp: Any = np,
) -> Any:
    """The representable value for each value of x under a block format, in x's type.

    Args:
        x: array of any shape; values that are not finite count as 0 for the scale of their block.
        wanted: the range of the tensor, where the format needs one.
        axis: the channel axis, counted from the first, 0.
        noise, xp: as for `quantize`.
    """
    shape, blocks, levels, u = _in_blocks(x, format_, wanted, axis, noise, xp)
    return _as_tensor(quantize(blocks, levels, u, xp), shape, x.shape, xp)


def quantized_and_clipped_in_blocks(
    x: Any, format_: BlockFormat, wanted: Range, axis: int, noise: Any = None, xp: Any = np
) -> tuple[Any, Any]:
    """`quantize_in_blocks`, and which values are clipped, as `quantized_and_clipped` has it."""
    shape, blocks, levels, u = _in_blocks(x, format_, wanted, axis, noise, xp)
    q, beyond = quantized_and_clipped(blocks, levels, u, xp)
    return _as_tensor(q, shape, x.shape, xp), _as_tensor(beyond, shape, x.shape, xp)


def amax_of_blocks(x: Any, format_: BlockFormat, axis: int, xp: Any = np) -> Any:
    """The largest magnitude of each block, infinities apart; arguments as `quantize_in_blocks`."""
    return _amax_of(_blocks_of(x, format_, axis, xp)[1], xp)


def _in_blocks(
    x: Any, format_: BlockFormat, wanted: Range, axis: int, noise: Any, xp: Any
) -> tuple[tuple[int, ...], Any, Levels, Any]:
    """The shape and the blocks as `_blocks_of`, their levels, and the noise in blocks."""
    shape, blocks = _blocks_of(x, format_, axis, xp)
    u = None if noise is None else _as_blocks(xp.reshape(noise, shape), format_, xp)
    return shape, blocks, format_.levels(_amax_of(blocks, xp), wanted, xp=xp), u


def _blocks_of(x: Any, format_: BlockFormat, axis: int, xp: Any) -> tuple[tuple[int, ...], Any]:
    """(rows, channels, after) of x, and it in blocks."""
    shape = (math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :]))
    return shape, _as_blocks(xp.reshape(x, shape), format_, xp)


def _amax_of(blocks: Any, xp: Any) -> Any:
    magnitudes = xp.where(xp.isfinite(blocks), xp.abs(blocks), xp.zeros_like(blocks))
    largest = xp.amax if hasattr(xp, "amax") else xp.max
    return largest(magnitudes, axis=(1, 3), keepdims=True)


def _as_tensor(blocks: Any, planes: tuple[int, ...], shape: Any, xp: Any) -> Any:
    """What was made of blocks in the tensor's own shape, less what filled them up."""
    rows, height, columns, width, after = blocks.shape
    whole = xp.reshape(blocks, (rows * height, columns * width, after))
    return xp.reshape(whole[: planes[0], : planes[1], :], shape)


def _as_blocks(planes: Any, format_: BlockFormat, xp: Any) -> Any:
    """(rows, channels, after) as (…, rows of a block, …, its size, after), filled up with zeros."""
    height, width = format_.rows, format_.size
    filled = _filled_up(_filled_up(planes, 0, height, xp), 1, width, xp)
    rows, channels, after = filled.shape
    return xp.reshape(filled, (rows // height, height, channels // width, width, after))


def _filled_up(x: Any, axis: int, size: int, xp: Any) -> Any:
    """With zeros behind it, for its length along an axis to be a multiple of a size."""
    missing = -x.shape[axis] % size
    if not missing:
        return x
    shape = [*x.shape]
    shape[axis] = missing
    return xp.concat([x, xp.zeros(shape, dtype=x.dtype, device=x.device)], axis=axis)


def level_of(y: Any, levels: Levels, noise: Any = None, xp: Any = np) -> Any:
    """The level of each value in units of the scale; arguments as `quantize`."""
    if noise is None:
        return levels.nearest(y, xp)
    return xp.clip(levels.drawn(y, noise, xp), levels.lowest, levels.highest)


def _without_zeros(scale: Any, xp: Any) -> Any:
    return xp.where(scale == 0, xp.ones_like(scale), scale)
