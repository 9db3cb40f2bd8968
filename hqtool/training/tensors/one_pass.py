"""Quantizing a torch tensor on a CPU by the compiled kernels: its statistics in the same pass."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from hqtool.capture.memory import array_over
from hqtool.capture.tensors import memory_order, stats_of_sums
from hqtool.core.formats.format import Levels
from hqtool.kernels import Grid, NoiseKey, form_in_use
from hqtool.kernels import quantized as quantized_in_one_pass
from hqtool.training.tensors.memory import Into, new_memory
from hqtool.training.tensors.noise import dense
from hqtool.training.tensors.quantized import Quantized, known_within
from hqtool.vocab import Stats

_TYPES = (torch.float32, torch.float16, torch.bfloat16)

#: Powers of two that are normal in float32, with room for products of the gap.
_LEAST, _GREATEST = 2.0**-120, 2.0**120

#: A scale that float32 holds with all its digits.
_SMALLEST_SCALE = 1e-37


def can_be_read(x: Tensor) -> bool:
    """Whether a tensor is one that the compiled kernels read; empty ones are not."""
    usable = x.is_cpu and x.dtype in _TYPES and x.numel()
    return bool(usable) and form_in_use().name == "compiled"


def in_one_pass(
    x: Tensor, grid: Grid, key: NoiseKey | None, stats: Stats | None, into: Into = new_memory
) -> Quantized:
    """A tensor quantized, and read unless its statistics are known.

    NaN and infinities stay as they are.

    Args:
        x: one that `can_be_read`.
        key: of the noise of stochastic rounding; None: to nearest.
        into: where it is put.
    """
    x = dense(x.detach().resolve_neg())
    out = into(x)
    clipped = None
    if not known_within(stats, grid.lo, grid.hi):  # it takes no memory before it is written to
        clipped = torch.empty_like(x, dtype=torch.bool, requires_grad=False)
    mask = None if clipped is None else _memory(clipped)
    how = {"with_sums": stats is None, "finite": stats is not None and not stats.ninf}
    found, sums = quantized_in_one_pass(_memory(x), _memory(out), mask, grid, key, **how)
    read = stats if sums is None else stats_of_sums(sums, x)
    return Quantized(out, clipped if found else None, read, found)


def _memory(x: Tensor) -> NDArray[Any]:
    """The memory of a dense tensor as a contiguous array; that of bfloat16 as its bits."""
    return array_over(x if x.is_contiguous() else x.permute(memory_order(x)))


def grid_of(levels: Levels, *, stochastic: bool) -> Grid | None:
    """Levels on one scale as the kernels take them; None where they do not.

    Args:
        levels: one lane as plain numbers.
    """
    if levels.scale < _SMALLEST_SCALE:
        return None
    lo, hi = unclipped(levels, stochastic=stochastic)
    ends = (levels.scale, float(levels.lowest), float(levels.highest), lo, hi)
    gaps = levels.gaps
    if gaps is None or gaps.at_zero <= _LEAST or levels.highest >= _GREATEST:
        return None
    return Grid(*ends, *gaps)


def unclipped(levels: Levels, *, stochastic: bool) -> tuple[float, float]:
    """Two ends between which no value is clipped; of rounding to nearest, every other one is."""
    if not stochastic:
        lo, hi = levels.limits
        return lo, hi
    lo, hi = levels.lowest * levels.scale, levels.highest * levels.scale
    return lo * (1 - 1e-6), hi * (1 - 1e-6)
