"""The extremes of each channel of a torch tensor, read without disturbing it."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def channel_extremes(tensor: Tensor, axis: int) -> Tensor | None:
    """The lowest and the highest finite value of each channel; NaN where it has none.

    Args:
        tensor: of a floating-point type, with elements.
        axis: the one of the channels; None is the answer where the tensor has no such axis.

    Returns:
        (2, channels) on the tensor's device, in float64 for float64, else in float32. No operation
        waits for an accelerator.
    """
    if not -tensor.dim() <= axis < tensor.dim():
        return None
    x, axis = tensor.detach(), axis % tensor.dim()
    others = [dim for dim in range(x.dim()) if dim != axis]
    if x.is_cpu:
        ends = _ends(x, x, others)
        if bool(ends.isfinite().all()):
            return ends
    finite = x.isfinite()
    low, high = (x.masked_fill(~finite, fill) for fill in (math.inf, -math.inf))
    ends = _ends(low, high, others)
    return ends.masked_fill(ends.isinf(), math.nan)


def _ends(low: Tensor, high: Tensor, others: list[int]) -> Tensor:
    """The least of `low` and the greatest of `high` over all axes but one."""
    ends = (low.amin(others), high.amax(others)) if others else (low, high)
    wide = torch.float64 if low.dtype == torch.float64 else torch.float32
    return torch.stack(ends).to(wide)
