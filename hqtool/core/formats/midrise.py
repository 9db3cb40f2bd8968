"""Midrise levels: equally far apart, 0 halfway between two of them (DoReFa [24])."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from hqtool.core.formats.codebook import Codebook
from hqtool.core.formats.uniform import check_bits


@lru_cache(maxsize=16)
def midrise_codebook(bits: int) -> MidriseCodebook:
    """The levels i − (2^b−1)/2 for i = 0 … 2^b−1, in units of the gap.

    Raises:
        UsageError: bits outside 2…16.
    """
    check_bits(bits)
    return MidriseCodebook(bits)


class MidriseCodebook(Codebook):
    """Levels of the gap 1 need no search: they are whole numbers from the lowest on."""

    def __init__(self, bits: int) -> None:
        self._bits = bits
        super().__init__(np.arange(2**bits) - (2**bits - 1) / 2)

    def __reduce__(self) -> Any:
        return midrise_codebook, (self._bits,)

    def nearest(self, y: Any, xp: Any = np) -> Any:
        place = xp.round(xp.clip(y, self.lowest, self.highest) - self.lowest)
        return place + self.lowest

    def neighbours(self, y: Any, xp: Any = np) -> tuple[Any, Any]:
        below = xp.floor(y - self.lowest) + self.lowest
        return below, below + 1

    def drawn(self, y: Any, noise: Any, xp: Any = np) -> Any:
        return xp.floor(y - self.lowest + noise) + self.lowest
