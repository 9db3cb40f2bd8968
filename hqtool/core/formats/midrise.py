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
    """Half of an odd number each, so that they need no search."""

    def __init__(self, bits: int) -> None:
        self._bits = bits
        super().__init__(np.arange(2**bits) - (2**bits - 1) / 2)

    def __reduce__(self) -> Any:
        return midrise_codebook, (self._bits,)

    def nearest(self, y: Any, xp: Any = np) -> Any:
        """Ties are at whole numbers: from an even one up, from an odd one down."""
        within = xp.clip(y, self.lowest, self.highest)
        even = 2 * xp.floor(within / 2)
        return xp.where(within > even + 1, even + 1.5, even + 0.5)

    def neighbours(self, y: Any, xp: Any = np) -> tuple[Any, Any]:
        whole = xp.floor(y)
        below = xp.where(y - whole < 0.5, whole - 0.5, whole + 0.5)
        return below, below + 1

    def drawn(self, y: Any, noise: Any, xp: Any = np) -> Any:
        within = xp.clip(y, self.lowest - 1, self.highest + 1)
        below, _ = self.neighbours(within, xp)
        return below + xp.floor(within - below + noise)
