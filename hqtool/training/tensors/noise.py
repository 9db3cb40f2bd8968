"""Noise in the shape of a torch tensor: the same bits on any device (`hqtool.kernels.noise`)."""

from __future__ import annotations

import torch
from torch import Tensor

from hqtool.capture.tensors import memory_order
from hqtool.kernels import NoiseKey, uniform
from hqtool.kernels.noise import BITS, FIRST_FACTOR, SECOND_FACTOR, WORD


def noise_like(x: Tensor, key: NoiseKey) -> Tensor:
    """Uniform [0, 1) of a tensor's shape, type and device, counted in the order of its memory.

    Args:
        x: of float32 or float64; without gaps in its memory (`dense`).
    """
    if x.is_cpu:
        flat = torch.from_numpy(uniform(key, x.numel()))
    else:
        flat = uniform_in_torch(key, x.numel(), x.device)
    order = memory_order(x)
    placed = flat.view([x.shape[axis] for axis in order])
    return placed.permute(sorted(range(x.dim()), key=order.__getitem__)).to(x.dtype)


def uniform_in_torch(key: NoiseKey, size: int, device: torch.device) -> Tensor:
    """`hqtool.kernels.uniform` by operations of a device, without waiting for it.

    On a CPU this gives the same bits; on an accelerator it was not tried.
    """
    index = torch.arange(size, dtype=torch.int64, device=device)
    x = _mixed((index & WORD) ^ key.first)
    x = _mixed(x ^ (index >> 32) ^ key.second)
    return (x >> (32 - BITS)).to(torch.float32) * 2.0**-BITS


def _mixed(x: Tensor) -> Tensor:
    """`hqtool.kernels.noise.mixed`: of products in int64 the lower 32 bits are right."""
    x = ((x ^ (x >> 16)) * FIRST_FACTOR) & WORD
    x = ((x ^ (x >> 15)) * SECOND_FACTOR) & WORD
    return x ^ (x >> 15)


def dense(x: Tensor) -> Tensor:
    """The tensor itself, or a copy in row-major order where its memory has gaps or overlaps."""
    if x.is_contiguous() or x.permute(memory_order(x)).is_contiguous():
        return x
    return x.contiguous()
