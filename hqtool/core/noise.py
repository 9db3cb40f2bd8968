"""Noise of stochastic rounding, keyed by the record: order and parallelism change nothing."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hqtool.kernels import NoiseKey, uniform
from hqtool.vocab import Site


class Draws(Protocol):
    """Where noise is drawn from; `numpy.random.Generator` is one, too."""

    def random(self, size: int, /) -> NDArray[np.float64]:
        """So many numbers, uniform in [0, 1)."""


class Noise:
    """The noise of one tensor, value by value: the first draw begins at its first value.

    It is the same noise that quantized training uses.
    """

    def __init__(self, key: NoiseKey) -> None:
        self._key = key
        self._drawn = 0

    def random(self, size: int, /) -> NDArray[np.float64]:
        """Noise for so many more values: [0, 1), with 24 random bits."""
        drawn = uniform(self._key, size, self._drawn)
        self._drawn += size
        return drawn.astype(np.float64)


def noise_key(seed: int, site: Site, step: int, micro: int, call: int) -> NoiseKey:
    """A key of its own for each (seed, site, step, micro, call)."""
    import hashlib  # takes milliseconds, and most comparisons draw nothing

    words = (seed, site.layer, site.tensor, step, micro, call)
    digest = hashlib.sha256("\0".join(map(str, words)).encode()).digest()
    return NoiseKey(int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:8], "big"))
