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
from hqtool.core.quantize import quantize, quantize_in_blocks, saturated_in_blocks
from hqtool.kernels import form_in_use, quantized_nearest
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


class Quantized(NamedTuple):
    """A tensor as a quantizer leaves it.

    Args:
        values: of the tensor's shape and type.
        clipped: where it was saturated (of stochastic rounding: clipped); None: nowhere.
    """

    values: Tensor
    clipped: Tensor | None

    @property
    def share_clipped(self) -> float:
        """Of all values."""
        if self.clipped is None or not self.clipped.numel():
            return 0.0
        return int(self.clipped.count_nonzero()) / self.clipped.numel()


def quantized(
    x: Tensor,
    format_: Format,
    wanted: AnyRange | None,
    axes: Axes,
    noise: np.random.Generator | None = None,
    stats: Stats | None = None,
) -> Quantized:
    """A tensor quantized.

    Args:
        x: of a floating-point type; detached.
        wanted: its range; None where the format needs none, or nothing is known: it stays then.
        noise: of stochastic rounding; None: to nearest.
        stats: of x, where they are known: they save a pass over it.
    """
    if not x.numel() or (wanted is None and format_.needs_range):
        return Quantized(x, None)
    wide = x.float() if x.element_size() < 4 else x
    wide = wide.double() if _exceeds_float32(wanted) else wide
    u = None if noise is None else _noise(wide, noise)
    if isinstance(format_, BlockFormat):
        q, clipped = _in_blocks(wide, format_, wanted, axes, u)
    elif isinstance(wanted, EntryRanges):
        q, clipped = _by_entry(wide, format_, wanted, axes, u)
    else:
        assert wanted is not None
        q, clipped = _under(wide, levels_over(format_, wanted), u, stats)  # type: ignore[arg-type]
    if stats is None or stats.nnan or stats.ninf:
        q = torch.where(wide.isfinite(), q, wide)
    return Quantized(q.to(x.dtype), clipped)


def _exceeds_float32(wanted: AnyRange | None) -> bool:
    found = None if wanted is None else wanted.widest
    reach = 0.0 if found is None else max(abs(found.lo), abs(found.hi))
    return reach > _LARGEST or 0 < reach < _SMALLEST


def _noise(x: Tensor, noise: np.random.Generator) -> Tensor:
    """Uniform [0, 1) of a tensor's shape and type, drawn on the CPU."""
    drawn = torch.from_numpy(noise.random(x.numel(), np.float32)).view(x.shape)
    return drawn.to(x.device, x.dtype)


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
    if u is None and _in_one_pass(x):
        return _nearest(x, levels, stats)
    first, last = levels.first, levels.last
    y = x / levels.scale
    if u is None:
        clipped = _saturated(x, levels, stats)
        y.round_()
    else:
        y.add_(u).floor_()
        clipped = None if _reach_within(stats, levels) else _some((y < first) | (y > last))
    return y.clamp_(first, last).mul_(levels.scale), clipped


def _in_one_pass(x: Tensor) -> bool:
    """Whether a tensor is one that a compiled kernel reads faster than torch."""
    plain_memory = x.is_cpu and x.dtype == torch.float32 and x.is_contiguous()
    return plain_memory and form_in_use().name == "compiled"


def _nearest(x: Tensor, levels: UniformLevels, stats: Stats | None) -> tuple[Tensor, Tensor | None]:
    """As `_uniform`, with the same bits, by the compiled kernel."""
    lo, hi = levels.limits
    out = torch.empty_like(x, requires_grad=False)
    clipped = None if _within(stats, lo, hi) else torch.empty(x.shape, dtype=torch.bool)
    mask = None if clipped is None else clipped.numpy()
    arrays = (x.numpy(force=True), out.numpy(), mask)
    found = quantized_nearest(*arrays, levels.scale, levels.first, levels.last, lo, hi)
    return out, clipped if found else None


def _within(stats: Stats | None, lo: float, hi: float) -> bool:
    """Whether all values are known to lie between two ends."""
    return stats is not None and not stats.ninf and stats.min >= lo and stats.max <= hi


def _reach_within(stats: Stats | None, levels: Levels) -> bool:
    """Whether no value lies beyond the ends of the levels; infinities do."""
    if stats is None or stats.ninf:
        return False
    lo, hi = levels.lowest * levels.scale, levels.highest * levels.scale
    return bool(stats.min >= lo * (1 - 1e-6) and stats.max <= hi * (1 - 1e-6))


def _saturated(x: Tensor, levels: Levels, stats: Stats | None) -> Tensor | None:
    """Where values lie beyond an end by more than half a gap."""
    lo, hi = levels.limits
    if _within(stats, lo, hi):
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
    q = quantize(x, levels, u, torch)
    lo, hi = levels.limits
    if u is None:
        return q, _some((x < lo) | (x > hi))
    return q, _some((x < levels.lowest * levels.scale) | (x > levels.highest * levels.scale))


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
    """Under a block format. A value is clipped where a level beyond the highest would be nearer."""
    ends = (None if wanted is None else wanted.widest) or Range(0.0, 0.0)
    axis = channel_axis_of(tuple(x.shape), axes.channel)
    x = x.reshape(1) if not x.dim() else x
    q = quantize_in_blocks(x, format_, ends, axis, u, torch)
    return q, _some(saturated_in_blocks(x, format_, ends, axis, torch))
