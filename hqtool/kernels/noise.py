"""Noise of stochastic rounding: a hash of a key and of a value's index, so no order changes it.

The hash is a finalizer of 32 bits applied twice, each time to what is known exclusive-or a word of
the key: different keys give unrelated noise, not the same one in another order. The finalizer is
Chris Wellons's lowbias32 ("Prospecting for Hash Functions", nullprogram.com, 2018), with better
constants of the list in its repository, github.com/skeeto/hash-prospector: flipping any bit of what
goes in flips each bit of what comes out with a probability close to one half.

`noise_bits` says it for one value; `plain_uniform` is the same in numpy, quantize.h in C, and
hqtool.training.tensors.noise in torch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FIRST_FACTOR, SECOND_FACTOR = 0x21F0AAAD, 0xD35A2D97
WORD = 0xFFFF_FFFF

#: Of the 32 bits of the hash so many are taken: as many as float32 holds of a number below 1.
BITS = 24

#: Values that are hashed at a time: few enough to stay in the cache.
_CHUNK = 1 << 14

_COUNTED = np.arange(_CHUNK, dtype=np.uint32)


class NoiseKey(NamedTuple):
    """What the noise of one tensor is keyed by: two words of 32 bits, of which each bit counts."""

    first: int
    second: int


def noise_bits(key: NoiseKey, index: int) -> int:
    """The hash of the value at an index of its tensor, 32 bits, without regard to speed.

    Args:
        index: from 0 on; those of a tensor's values are counted in the order of its memory.
    """
    low, high = index & WORD, index >> 32
    return mixed(mixed(low ^ key.first) ^ key.second ^ high)


def mixed(x: int) -> int:
    """The finalizer, of 32 bits."""
    x ^= x >> 16
    x = x * FIRST_FACTOR & WORD
    x ^= x >> 15
    x = x * SECOND_FACTOR & WORD
    return x ^ x >> 15


def plain_uniform(out: NDArray[np.float32], key: NoiseKey, first: int) -> None:
    """Fill an array with uniform [0, 1): k/2^24 for whole k, of the values from `first` on."""
    done = 0
    while done < out.size:
        low, high = (first + done) & WORD, (first + done) >> 32
        part = out[done : done + min(_CHUNK, WORD + 1 - low)]
        x = _COUNTED[: part.size] + np.uint32(low)
        x ^= np.uint32(key.first)
        _mix(x)
        x ^= np.uint32(key.second ^ high)
        _mix(x)
        x >>= np.uint32(32 - BITS)
        np.multiply(x.view(np.int32), np.float32(2.0**-BITS), out=part, casting="same_kind")
        done += part.size


def _mix(x: NDArray[np.uint32]) -> None:
    """`mixed`, in place."""
    x ^= x >> np.uint32(16)
    x *= np.uint32(FIRST_FACTOR)
    x ^= x >> np.uint32(15)
    x *= np.uint32(SECOND_FACTOR)
    x ^= x >> np.uint32(15)
