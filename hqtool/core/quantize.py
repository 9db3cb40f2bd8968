"""Quantizing an array on a grid, for numpy, torch and other array libraries."""

from __future__ import annotations

from typing import Any

import numpy as np

from hqtool.core.grid import Grid, Grids


def level_before_clipping(x: Any, grid: Grid | Grids, noise: Any = None, xp: Any = np) -> Any:
    """The level k (code − zero point) of each value, before it is clipped to the grid.

    Args:
        x: array of any shape. hqtool's own analysis passes float64.
        grid: with step > 0; or `Grids` as columns, for a row of values on each.
        noise: None rounds to nearest, ties to even. Else uniform [0, 1) of x's shape:
            stochastic rounding, floor(x/Δ + u). Noise is passed in, never drawn here.
        xp: the namespace of x: numpy, torch, or any that keeps the Python array API standard.
    """
    scaled = x / grid.step
    return xp.round(scaled) if noise is None else xp.floor(scaled + noise)


def quantize(x: Any, grid: Grid, noise: Any = None, xp: Any = np) -> Any:
    """The grid's value for each value of x, in x's type; arguments as `level_before_clipping`."""
    if grid.step == 0:
        return x * 0
    level = level_before_clipping(x, grid, noise, xp)
    return xp.clip(level, float(grid.first), float(grid.last)) * grid.step
