"""Quantizing torch tensors: the same levels as replay's, in the tensor's own type.

float16 and bfloat16 are quantized in float32, and then rounded to their own type. A range or a
scale that float32 cannot hold is worked with in float64. NaN and infinities stay as they are: loss
scaling looks for them.

On a CPU this is tested. On an accelerator the same operations of torch run; that was not tried.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hqtool.core.arrangement import channel_axis_of
from hqtool.core.entry_ranges import filled
from hqtool.core.formats.block import BlockFormat
from hqtool.core.formats.format import Format, Levels
from hqtool.core.formats.lanes import levels_over
from hqtool.core.formats.uniform import UniformLevels
from hqtool.core.quantize import (
    amax_of_blocks,
    quantize,
    quantized_and_clipped,
    quantized_and_clipped_in_blocks,
)
from hqtool.kernels import NoiseKey
from hqtool.training.tensors.memory import Into, new_memory
from hqtool.training.tensors.noise import dense, noise_like
from hqtool.training.tensors.one_pass import can_be_read, grid_of, in_one_pass, unclipped
from hqtool.training.tensors.quantized import Quantized, known_within
from hqtool.vocab import AnyRange, EntryRanges, Range, Stats

#: Scales and ends within these bounds can be worked with in float32.
_SMALLEST, _LARGEST = 1e-30, 1e30


class Axes(NamedTuple):
    """Which axes of a tensor are the channels'.

    Args:
        channel: counted from the last one, -1.
        entry: of a weight or its gradient, the axis of the output channels; None: the same.
    """

    channel: int
    entry: int | None = None


def quantized(
    x: Tensor,
    format_: Format,
    wanted: AnyRange | None,
    axes: Axes,
    key: NoiseKey | None = None,
    stats: Stats | None = None,
    into: Into = new_memory,
) -> Quantized:
    """A tensor quantized; its statistics are read on the way where that saves a pass over it.

    Args:
        x: of a floating-point type; detached.
        wanted: its range; None where the format needs none, or nothing is known: it stays then.
        key: of the noise of stochastic rounding; None: to nearest.
        stats: of x, where they are known: they save a pass over it.
        into: where a kernel puts it.
    """
    if not x.numel() or (wanted is None and format_.needs_range):
        return Quantized(x, None, stats)
    done = quantized_by_kernel(x, format_, wanted, key, stats, into)
    if done is None:
        done = quantized_in_torch(x, format_, wanted, axes, key, stats)
        done = done._replace(values=_finite_or_kept(done.values, x, stats))
    return done


def quantized_by_kernel(
    x: Tensor,
    format_: Any,
    wanted: AnyRange | None,
    key: NoiseKey | None = None,
    stats: Stats | None = None,
    into: Into = new_memory,
) -> Quantized | None:
    """A tensor quantized and read in one pass; None where no compiled kernel does that.

    Arguments as for `quantized`.
    """
    if isinstance(format_, BlockFormat) or not isinstance(wanted, Range):
        return None
    if _exceeds_float32(wanted) or not can_be_read(x):
        return None
    grid = grid_of(levels_over(format_, wanted), stochastic=key is not None)
    if grid is None:
        return None
    return in_one_pass(x, grid, key, stats, into)


def _finite_or_kept(q: Tensor, x: Tensor, stats: Stats | None) -> Tensor:
    """Quantized values, but NaN and infinities as they were."""
    if stats is not None and not (stats.nnan or stats.ninf):
        return q
    return torch.where(x.isfinite(), q, x)


def quantized_in_torch(
    x: Tensor,
    format_: Any,
    wanted: AnyRange | None,
    axes: Axes,
    key: NoiseKey | None,
    stats: Stats | None,
) -> Quantized:
    """By operations of torch."""
    wide = dense(x.float() if x.element_size() < 4 else x)
    wide = wide.double() if _needs_float64(wide, format_, wanted, axes) else wide
    u = None if key is None else noise_like(wide, key)
    if isinstance(format_, BlockFormat):
        q, clipped = _in_blocks(wide, format_, wanted, axes, u)
    elif isinstance(wanted, EntryRanges):
        q, clipped = _by_entry(wide, format_, wanted, axes, u)
    else:
        assert wanted is not None
        q, clipped = _under(wide, levels_over(format_, wanted), u, stats)
    return Quantized(q.to(x.dtype), clipped, stats)


def _needs_float64(x: Tensor, format_: Any, wanted: AnyRange | None, axes: Axes) -> bool:
    """Whether a range, a scale or a level is beyond what float32 can be worked with."""
    in_blocks = isinstance(format_, BlockFormat)
    element = format_.element if in_blocks else format_
    if _exceeds_float32(wanted) or levels_over(element, Range(-1.0, 1.0)).highest > _LARGEST:
        return True
    x, axis = _with_channel_axis(x, axes)
    return in_blocks and _any_exceeds(amax_of_blocks(x, format_, axis, torch))


def _exceeds_float32(wanted: AnyRange | None) -> bool:
    if isinstance(wanted, EntryRanges):
        return _any_exceeds(np.maximum(np.abs(wanted.lo), np.abs(wanted.hi)))
    reach = 0.0 if wanted is None else max(abs(wanted.lo), abs(wanted.hi))
    return reach > _LARGEST or 0 < reach < _SMALLEST


def _any_exceeds(reaches: Any) -> bool:
    """Whether any is too large or, other than 0, too small; NaN is neither."""
    return bool(((reaches > _LARGEST) | ((reaches > 0) & (reaches < _SMALLEST))).any())


def _under(
    x: Tensor, levels: Levels, u: Tensor | None, stats: Stats | None
) -> tuple[Tensor, Tensor | None]:
    """Under one lane as plain numbers."""
    if not levels.scale:
        return torch.zeros_like(x), _some(x != 0)
    if isinstance(levels, UniformLevels):
        return _uniform(x, levels, u, stats)
    q = quantize(x, levels, u, torch)
    if u is None:
        return q, _saturated(x, levels, stats)
    drawn = levels.drawn(x / levels.scale, u, torch)
    return q, _some((drawn < levels.lowest) | (drawn > levels.highest))


def _uniform(
    x: Tensor, levels: UniformLevels, u: Tensor | None, stats: Stats | None
) -> tuple[Tensor, Tensor | None]:
    """As `quantize`, in few passes and one new tensor."""
    first, last = levels.first, levels.last
    y = x / levels.scale
    if u is None:
        clipped = _saturated(x, levels, stats)
        y.round_()
    else:
        y.add_(u).floor_()
        ends = unclipped(levels, stochastic=True)
        clipped = None if known_within(stats, *ends) else _some((y < first) | (y > last))
    return y.clamp_(first, last).mul_(levels.scale), clipped


def _saturated(x: Tensor, levels: Levels, stats: Stats | None) -> Tensor | None:
    """Where values lie beyond an end by more than half a gap."""
    lo, hi = levels.limits
    if known_within(stats, lo, hi):
        return None
    return _some((x < lo) | (x > hi))


def _some(where: Tensor) -> Tensor | None:
    """The mask itself; None where it is empty."""
    return where if bool(where.any()) else None


def _by_entry(
    x: Tensor, format_: Any, wanted: EntryRanges, axes: Axes, u: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """With levels for each channel, sample or row."""
    shape = _shape_of_entries(x.shape, wanted.per, axes)
    known = filled(wanted, math.prod(shape))
    made = format_.levels(known.lo, known.hi)

    def column(each: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(each)).to(x.device, x.dtype).view(shape)

    levels = made.changed(column)
    q, beyond = quantized_and_clipped(x, levels, u, torch)
    return q, _some(beyond)


def _shape_of_entries(shape: torch.Size, per: str, axes: Axes) -> list[int]:
    """The tensor's shape where entries differ, 1 elsewhere."""
    channel = channel_axis_of(tuple(shape), axes.channel)
    if per == "row":
        return [1 if axis == channel else size for axis, size in enumerate(shape)]
    axis = 0 if per == "sample" else channel if axes.entry is None else axes.entry
    return [size if place == axis else 1 for place, size in enumerate(shape)]


def _in_blocks(
    x: Tensor, format_: BlockFormat, wanted: AnyRange | None, axes: Axes, u: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Under a block format."""
    ends = (None if wanted is None else wanted.widest) or Range(0.0, 0.0)
    x, axis = _with_channel_axis(x, axes)
    q, beyond = quantized_and_clipped_in_blocks(x, format_, ends, axis, u, torch)
    return q, _some(beyond)


def _with_channel_axis(x: Tensor, axes: Axes) -> tuple[Tensor, int]:
    """A tensor of one axis or more, and its channel axis, counted from the first, 0."""
    return x if x.dim() else x.reshape(1), channel_axis_of(tuple(x.shape), axes.channel)
