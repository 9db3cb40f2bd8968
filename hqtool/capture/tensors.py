"""Statistics and copies of torch tensors, read without disturbing them.

Nothing here draws from torch's random numbers, and every result is a copy or a number: training
may change the tensor as soon as the call returns.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hqtool.capture.memory import array_over
from hqtool.kernels import ArraySums, array_sums
from hqtool.kernels.plain import sums_in_float64
from hqtool.vocab import SampleLayout, Stats

#: Elements converted to float64 at a time, on a CPU and elsewhere: it bounds the copies' memory.
_CAREFUL_ELEMENTS, _DEVICE_ELEMENTS = 1 << 15, 1 << 22

#: Mean squares whose sums float32 and float64 can hold, with none of their digits lost.
_TINY_SQUARE, _LARGE_SQUARE = 1e-30, 1e300

_NOTHING = (math.nan,) * 6
_F64 = np.dtype(np.float64)
_SUMMED_TYPES = (torch.float32, torch.float64)


class KeptValues(NamedTuple):
    """Values as `TraceWriter.write` takes them: bfloat16 as raw bits, named in `dtype`.

    Args:
        array: the tensor in its shape, or a 1-D sample of it; None: no values.
        layout: where the sample lies in the tensor; None for a whole tensor.
    """

    array: NDArray[Any] | None
    dtype: str | None
    layout: SampleLayout | None = None

    @property
    def nbytes(self) -> int:
        """Their size in a trace, with four bytes for each place: huge tensors' places take more."""
        values = 0 if self.array is None else self.array.nbytes
        if self.layout is None:
            return values
        known = self.layout
        return values + known.extremes.nbytes + 4 * (known.extreme_places.size + known.fibres.size)


def widened(tensor: Tensor) -> Tensor:
    """The same values in a type that a trace can hold: 8-bit floats as float16 or float32."""
    if tensor.element_size() > 1:
        return tensor
    exponents = getattr(torch, "float8_e8m0fnu", None)  # from torch 2.7 on
    wide = torch.float32 if tensor.dtype == exponents else torch.float16
    return tensor.detach().to(wide)


def flat_view(tensor: Tensor) -> Tensor:
    """All elements, detached, in memory order; a view wherever the memory has no gaps."""
    if tensor.is_contiguous():
        return tensor.detach().view(-1)
    return tensor.detach().permute(memory_order(tensor)).reshape(-1)


def memory_order(tensor: Tensor) -> list[int]:
    """The dimensions from the one with the largest steps in memory to that with the smallest."""
    return sorted(range(tensor.dim()), key=tensor.stride, reverse=True)


# --- statistics on a CPU ------------------------------------------------------------------------


class _MeanStd(NamedTuple):
    mean: float
    std: float
    l2: float


def stats_of_tensor(tensor: Tensor) -> Stats:
    """Statistics of a floating-point tensor on any device: `hqtool.core.stats.stats_of`, faster.

    Extremes and counts are exact; mean, std and l2 are good to about 1e-7, the mean in terms of
    the root mean square.

    Tensors on a CPU are read by the kernels, on one thread and in one call: between two layers of a
    network, waking threads and loading code into the caches again costs more than reading.
    """
    if not tensor.is_cpu:
        return stats_of_vector(deferred_stats(tensor).tolist())
    return stats_of_sums(array_sums(_array_of(tensor)), tensor)


def stats_of_sums(sums: ArraySums, tensor: Tensor) -> Stats:
    """The statistics that the sums of a tensor's values come to.

    Args:
        tensor: it is read where the sums are not exact enough.
    """
    if not sums.size:
        return Stats(*_NOTHING, 0, sums.nnan, sums.ninf, math.nan)
    moments = _quick_moments(sums) or _careful_moments(sums, tensor)
    smallest = sums.smallest if sums.smallest < math.inf else math.nan
    absmax = max(abs(sums.lo), abs(sums.hi))
    return Stats(sums.lo, sums.hi, absmax, *moments, sums.nzero, sums.nnan, sums.ninf, smallest)


def _array_of(tensor: Tensor) -> NDArray[Any]:
    """The values in memory order, as the kernels take them: those of bfloat16 as their bits."""
    if tensor.dtype not in (torch.float16, torch.bfloat16, *_SUMMED_TYPES):
        tensor = tensor.detach().float()
    return array_over(tensor).ravel("K")


def _chunks(tensor: Tensor, elements: int) -> Iterator[NDArray[Any]]:
    """The values in memory order, so many at a time, as float32 or float64."""
    for piece in torch.split(flat_view(tensor), elements):
        yield array_over(piece if piece.dtype in _SUMMED_TYPES else piece.float())


def _quick_moments(sums: ArraySums) -> _MeanStd | None:
    """Mean, std and L2 norm from the sums; None where these are missing or not exact enough."""
    mean, square = sums.total / sums.size, sums.squares / sums.size
    variance = square - mean * mean
    if variance > sums.least_spread * mean * mean and _TINY_SQUARE < square < _LARGE_SQUARE:
        return _MeanStd(mean, math.sqrt(variance), math.sqrt(sums.squares))
    return None


@np.errstate(all="ignore")
def _careful_moments(sums: ArraySums, tensor: Tensor) -> _MeanStd:
    """The same from d = (x - middle) / unit in float64: nothing cancels, over- or underflows."""
    lo, hi, size = sums.lo, sums.hi, sums.size
    if lo == hi:
        return _MeanStd(lo, 0.0, abs(lo) * math.sqrt(size))
    middle, absmax = lo / 2 + hi / 2, max(-lo, hi)
    unit = 1.0 if 1e-100 < absmax < 1e100 else absmax
    parts = _shifted(tensor, middle, unit, bool(sums.nnan or sums.ninf))
    total, squares = map(sum, zip(*map(sums_in_float64, parts), strict=True))
    mean, shift = total / size, middle / unit
    variance = squares / size - mean * mean
    square_sum = squares + 2 * shift * total + shift * shift * size
    return _MeanStd(middle + unit * mean, unit * math.sqrt(variance), unit * math.sqrt(square_sum))


def _shifted(
    tensor: Tensor, middle: float, unit: float, has_nonfinite: bool
) -> Iterator[NDArray[np.float64]]:
    for chunk in _chunks(tensor, _CAREFUL_ELEMENTS):
        d = chunk.astype(_F64)
        d -= middle
        if unit != 1.0:
            d /= unit
        yield d[np.isfinite(d)] if has_nonfinite else d


# --- statistics on any device -------------------------------------------------------------------


def deferred_stats(tensor: Tensor) -> Tensor:
    """A tensor's statistics without waiting for its device.

    Returns:
        a vector on that device, in the order of `Stats`, in float64 (float32 where the device
        lacks it). Stack many and fetch them at once for `stats_of_vector`.

    It uses device operations only. None of them takes a number or a size from another one's result,
    or a scalar that has to be copied to the device first: each of these would wait.
    """
    dtype, count = _sum_dtype(tensor.device), tensor.numel()
    if not count:
        return torch.tensor([*_NOTHING, 0, 0, 0, math.nan], dtype=dtype, device=tensor.device)
    fits = torch.finfo(tensor.dtype).max < math.sqrt(torch.finfo(dtype).max)
    norm = _norm if fits else _scaled_norm
    pieces = torch.split(flat_view(tensor), _DEVICE_ELEMENTS)
    sums = torch.stack([_piece_sums(piece, norm, dtype) for piece in pieces])
    lo, below, smallest = sums[:, :3].amin(0).unbind()
    counts, hi = sums[:, 3:6].sum(0), -below
    size = count - counts[1] - counts[2]
    mean = sums[:, 6].sum() / size
    deviations = torch.stack([norm(_deviations(piece, mean), dtype) for piece in pieces])
    std, l2 = norm(deviations, dtype) / size.sqrt(), norm(sums[:, 7], dtype)
    floats = torch.stack([lo, hi, torch.maximum(lo.abs(), hi.abs()), mean, std, l2])
    smallest = smallest.masked_fill(smallest == math.inf, math.nan)
    return torch.cat([floats.masked_fill(size == 0, math.nan), counts, smallest[None]])


def stats_of_vector(row: Sequence[float]) -> Stats:
    """The statistics in a fetched vector of `deferred_stats`."""
    return Stats._make((*row[:6], *map(int, row[6:9]), row[9]))


@functools.lru_cache
def _sum_dtype(device: torch.device) -> torch.dtype:
    try:
        return torch.empty(0, dtype=torch.float64, device=device).dtype
    except (RuntimeError, TypeError):
        return torch.float32


def _piece_sums(
    piece: Tensor, norm: Callable[[Tensor, torch.dtype], Tensor], dtype: torch.dtype
) -> Tensor:
    """Least x, least -x, least |x| > 0, numbers of zeros, NaNs and infinities, Σx and √Σx²."""
    x = piece if piece.dtype in _SUMMED_TYPES else piece.float()
    inf, magnitudes, zero, finite = math.inf, x.abs(), x == 0, x.nan_to_num(0.0, 0.0, 0.0)
    nonzero = magnitudes.masked_fill(zero, inf)
    least = [values.nan_to_num(inf, inf, inf).amin() for values in (x, -x, nonzero)]
    counts = [which.sum() for which in (zero, x != x, magnitudes == inf)]
    sums = finite.sum(dtype=dtype), norm(finite, dtype)
    return torch.cat([torch.stack(part).to(dtype) for part in (least, counts, sums)])


def _deviations(piece: Tensor, mean: Tensor) -> Tensor:
    return (piece.to(mean.dtype) - mean).nan_to_num(0.0, 0.0, 0.0)


def _norm(values: Tensor, dtype: torch.dtype) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(values, dtype=dtype)
    return norm


def _scaled_norm(values: Tensor, dtype: torch.dtype) -> Tensor:
    """The norm of values whose squares may overflow or underflow in `dtype`."""
    unit = values.abs().amax().clamp_min(torch.finfo(dtype).tiny)
    return _norm(values / unit, dtype) * unit


# --- values -------------------------------------------------------------------------------------


def all_values(tensor: Tensor) -> KeptValues:
    """A copy of the whole tensor, in its shape."""
    return KeptValues(*to_numpy(tensor.detach().to("cpu", copy=True)))


def to_numpy(tensor: Tensor) -> tuple[NDArray[Any], str | None]:
    """A CPU tensor's memory as an array, and the name of its type where numpy lacks the type."""
    return array_over(tensor), "bfloat16" if tensor.dtype == torch.bfloat16 else None
