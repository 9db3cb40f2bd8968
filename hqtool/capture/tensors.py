"""Statistics and values of torch tensors, read without disturbing them.

Nothing here draws from torch's random numbers, and every result is a copy or a number: training
may change the tensor as soon as the call returns.
"""

from __future__ import annotations

import functools
import hashlib
import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hqtool.vocab import Stats

#: Elements read at a time on a CPU: its copies stay in the cache.
CHUNK_ELEMENTS = 1 << 18

#: Below this ratio of variance to squared mean, the difference of moments loses digits.
_SHARP = 1e-8


class Values(NamedTuple):
    """Values as `TraceWriter.write` takes them: bfloat16 as raw bits, named in `dtype`."""

    array: NDArray[Any] | None
    dtype: str | None
    sampled: bool


def flat_view(tensor: Tensor) -> Tensor:
    """All elements, detached, in memory order; a view wherever the memory has no gaps."""
    if tensor.is_contiguous():
        return tensor.detach().view(-1)
    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    return tensor.detach().permute(order).reshape(-1)


# --- statistics ---------------------------------------------------------------------------------


class _Sums(NamedTuple):
    """What chunks of a tensor add up to; sums in float64, over finite values."""

    lo: float = math.inf
    hi: float = -math.inf
    smallest: float = math.inf  # nonzero magnitude
    size: int = 0  # finite values
    total: float = 0.0
    squares: float = 0.0
    nzero: int = 0
    nnan: int = 0
    ninf: int = 0

    def plus(self, other: _Sums) -> _Sums:
        lo, hi = min(self.lo, other.lo), max(self.hi, other.hi)
        return _Sums(
            lo,
            hi,
            min(self.smallest, other.smallest),
            self.size + other.size,
            self.total + other.total,
            self.squares + other.squares,
            self.nzero + other.nzero,
            self.nnan + other.nnan,
            self.ninf + other.ninf,
        )


def stats_of_tensor(tensor: Tensor) -> Stats:
    """Exact statistics of a floating-point tensor on any device, accumulated in float64.

    The counterpart of `hqtool.core.stats.stats_of`, in as few passes as sensible: where all
    values are finite and none is zero, which is the rule, there is one reduction for each.
    """
    chunks = _chunks(flat_view(tensor))
    sums = functools.reduce(_Sums.plus, map(_sums, chunks))
    smallest = sums.smallest if sums.smallest < math.inf else math.nan
    if not sums.size:
        lo = hi = mean = std = l2 = math.nan
    else:
        lo, hi, mean = sums.lo, sums.hi, sums.total / sums.size
        std, l2 = math.sqrt(_variance(sums, mean, chunks)), math.sqrt(sums.squares)
    nzero, nnan, ninf = sums.nzero, sums.nnan, sums.ninf
    return Stats(lo, hi, max(-lo, hi), mean, std, l2, nzero, nnan, ninf, smallest)


def _chunks(flat: Tensor) -> tuple[Tensor, ...]:
    """Pieces to read at a time; elsewhere than on a CPU, launching work costs more than memory."""
    if flat.numel() <= CHUNK_ELEMENTS or flat.device.type != "cpu":
        return (flat,)
    return torch.split(flat, CHUNK_ELEMENTS)


def _sums(chunk: Tensor) -> _Sums:
    if not chunk.numel():
        return _Sums()
    values = chunk if chunk.dtype in (torch.float32, torch.float64) else chunk.float()
    lo, hi = (extreme.item() for extreme in torch.aminmax(values))
    if not math.isfinite(hi - lo):
        return _sums_beside_nonfinite(values)
    smallest, nzero = _magnitudes(values)
    wide = _wide(values)
    total, squares = wide.sum().item(), torch.dot(wide, wide).item()
    return _Sums(lo, hi, smallest, values.numel(), total, squares, nzero)


def _sums_beside_nonfinite(values: Tensor) -> _Sums:
    finite = values[torch.isfinite(values)]
    nnan = int(torch.isnan(values).sum().item())
    return _sums(finite)._replace(nnan=nnan, ninf=values.numel() - finite.numel() - nnan)


def _magnitudes(values: Tensor) -> tuple[float, int]:
    """The smallest nonzero magnitude, and how many values are zero."""
    magnitudes = torch.abs(values, out=_scratch(values, values.dtype))
    smallest = magnitudes.min().item()
    if smallest > 0:
        return smallest, 0
    nzero = values.numel() - int(torch.count_nonzero(magnitudes).item())
    return magnitudes.masked_fill_(magnitudes == 0, math.inf).min().item(), nzero


def _wide(values: Tensor) -> Tensor:
    return _scratch(values, torch.float64).copy_(values)


def _variance(sums: _Sums, mean: float, chunks: tuple[Tensor, ...]) -> float:
    """Population variance; a second pass only where all values nearly agree."""
    variance = sums.squares / sums.size - mean * mean
    if variance > _SHARP * mean * mean:
        return variance
    deviations = sum(_deviations(chunk, mean) for chunk in chunks)
    return deviations / sums.size


def _deviations(chunk: Tensor, mean: float) -> float:
    wide = _wide(chunk).sub_(mean)
    wide = wide[torch.isfinite(wide)]
    return float(torch.dot(wide, wide).item())


def _scratch(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Memory for a copy of a chunk; valid until the next call, and never for two threads."""
    return _piece(values.device, dtype, values.numel())


@functools.lru_cache(maxsize=256)
def _piece(device: torch.device, dtype: torch.dtype, size: int) -> Tensor:
    return _buffer(device, dtype, max(size, CHUNK_ELEMENTS))[:size]


@functools.lru_cache(maxsize=4)
def _buffer(device: torch.device, dtype: torch.dtype, size: int) -> Tensor:
    with torch.inference_mode(False):
        return torch.empty(size, dtype=dtype, device=device)


# --- values -------------------------------------------------------------------------------------


def all_values(tensor: Tensor) -> Values:
    """The whole tensor, in its shape."""
    return Values(*_to_numpy(tensor.detach()), False)


def sampled_values(tensor: Tensor, count: int, seed: int, key: str) -> Values:
    """A uniform random sample of `count` values without replacement, 1-D.

    Args:
        count: below the tensor's number of elements.
        seed, key: the same ones choose the same values again.

    One random choice serves all tensors of a size, turned by an offset of its own for each key:
    every sample by itself is uniform, at a hundredth of a fresh choice's cost.
    """
    flat = flat_view(tensor)
    chosen = _choice(flat.numel(), count, seed, flat.device)
    offset = _hash(f"{seed}/{key}") % flat.numel()
    cut = int(torch.searchsorted(chosen, flat.numel() - offset).item())
    places = torch.cat((chosen[cut:] + (offset - flat.numel()), chosen[:cut] + offset))
    return Values(*_to_numpy(flat[places]), True)


@functools.lru_cache(maxsize=32)
def _choice(size: int, count: int, seed: int, device: torch.device) -> Tensor:
    """`count` places out of `size`, rising."""
    places = np.random.default_rng((seed, size)).choice(size, count, replace=False, shuffle=False)
    return torch.from_numpy(np.sort(places)).to(device)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def _to_numpy(tensor: Tensor) -> tuple[NDArray[Any], str | None]:
    tensor = tensor.cpu()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(np.uint16), "bfloat16"
    return tensor.numpy(), None
