"""Quantizing an array to levels, for numpy, torch and other array libraries."""

from __future__ import annotations

from typing import Any

import numpy as np

from hqtool.core.formats.format import Levels


def quantize(x: Any, levels: Levels, noise: Any = None, xp: Any = np) -> Any:
    """The representable value for each value of x, in x's type.

    Args:
        x: array of any shape. hqtool's own analysis passes float64.
        levels: one lane as plain numbers (`Levels.one`), or lanes as arrays of `xp` that go with
            x's shape.
        noise: None rounds to nearest, ties to even. Else uniform [0, 1) of x's shape: stochastic
            rounding (`Levels.drawn`). Noise is passed in, never drawn here.
        xp: the namespace of x: numpy, torch, or any that keeps the Python array API standard.
    """
    alone = isinstance(levels.scale, float)
    if alone and not levels.scale:
        return x * 0
    scale = levels.scale if alone else _without_zeros(levels.scale, xp)
    return level_of(x / scale, levels, noise, xp) * levels.scale


def level_of(y: Any, levels: Levels, noise: Any = None, xp: Any = np) -> Any:
    """The level of each value in units of the scale; arguments as `quantize`."""
    if noise is None:
        return levels.nearest(y, xp)
    return xp.clip(levels.drawn(y, noise, xp), levels.lowest, levels.highest)


def _without_zeros(scale: Any, xp: Any) -> Any:
    return xp.where(scale == 0, xp.ones_like(scale), scale)
