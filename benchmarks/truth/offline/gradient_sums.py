"""What is known of a layer's weight gradient under a setting."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class GradientSums:
    """Of one layer under one pair of quantizers, over the kept steps: (steps,) arrays.

    Args:
        exact: ‖g‖², where g is the exact weight gradient.
        made: ‖ĝ‖², where ĝ is made of the quantized operands.
        along: g·ĝ.
        granular_error: ‖g_r − g‖², where g_r is made of operands whose clipped values stay exact.
        batch_noise: the variance of g over batches, ‖g_A − g_B‖² of the sums over its two halves.
    """

    exact: NDArray[np.float64]
    made: NDArray[np.float64]
    along: NDArray[np.float64]
    granular_error: NDArray[np.float64]
    batch_noise: NDArray[np.float64]

    @property
    def error(self) -> NDArray[np.float64]:
        """‖ĝ − g‖²."""
        return np.maximum(self.exact - 2 * self.along + self.made, 0.0)
