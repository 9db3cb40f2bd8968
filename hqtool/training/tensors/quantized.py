"""A quantized tensor, and what is known of it."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from hqtool.vocab import Stats


class Quantized(NamedTuple):
    """A tensor as a quantizer leaves it.

    Args:
        values: of the tensor's shape and type.
        clipped: where it was saturated (of stochastic rounding: clipped); None: nowhere.
        stats: of the tensor before, where they are known.
        found: how many values were clipped, where it is known.
    """

    values: Tensor
    clipped: Tensor | None
    stats: Stats | None = None
    found: int | None = None

    @property
    def share_clipped(self) -> float:
        """Of all values."""
        if self.clipped is None or not self.clipped.numel():
            return 0.0
        found = int(self.clipped.count_nonzero()) if self.found is None else self.found
        return found / self.clipped.numel()


def known_within(stats: Stats | None, lo: float, hi: float) -> bool:
    """Whether all values are known to lie between two ends."""
    return stats is not None and not stats.ninf and stats.min >= lo and stats.max <= hi
