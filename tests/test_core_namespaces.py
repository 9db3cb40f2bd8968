"""Code shared by torch and numpy: the same bits in both, and in a strict array-API namespace."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from hqtool.core.formats.lanes import levels_over
from hqtool.core.formats.uniform import SCHEMES, UniformFormat
from hqtool.core.quantize import level_of, quantize
from hqtool.vocab import Range

RNG = np.random.default_rng(3)
RANGES = [Range(-2.0, 1.5), Range(0.0, 1e-6), Range(-7.0, 0.0), Range(0.0, 0.0)]


@pytest.fixture(params=["array_api_strict", "torch"])
def xp(request: pytest.FixtureRequest) -> Any:
    """A namespace other than numpy."""
    return pytest.importorskip(request.param)


def tensors(dtype: str, step: float) -> list[np.ndarray]:
    """Random values, what lies halfway between levels, and what no grid holds; of any shape."""
    step = step or 1.0
    halves = (np.arange(-20, 20) + 0.5) * step
    special = np.array([0.0, -0.0, np.nan, 1e20, -1e20])
    flat = np.concatenate([RNG.standard_normal(300) * 3 * step, halves, special]).astype(dtype)
    return [flat, flat[:300].reshape(5, 6, 10), flat[:0], flat[7]]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_quantization_is_the_same_in_every_namespace(
    bits: int, scheme: str, dtype: str, xp: Any
) -> None:
    for ends, noisy in itertools.product(RANGES, (False, True)):
        grid = levels_over(UniformFormat(bits, scheme), ends)
        for x in tensors(dtype, grid.scale):
            noise = RNG.random(x.shape).astype(dtype) if noisy else None
            theirs = None if noise is None else xp.asarray(noise)
            assert_same(quantize(xp.asarray(x), grid, theirs, xp), quantize(x, grid, noise))
            if grid.scale:
                level = level_of(xp.asarray(x) / grid.scale, grid, theirs, xp)
                assert_same(level, level_of(x / grid.scale, grid, noise))


def assert_same(theirs: Any, ours: Any) -> None:
    """The type, the shape and every bit, the sign of a zero included."""
    theirs, ours = np.asarray(theirs), np.asarray(ours)
    assert (theirs.dtype, theirs.shape) == (ours.dtype, ours.shape)
    assert np.nan_to_num(theirs, nan=1e38).tobytes() == np.nan_to_num(ours, nan=1e38).tobytes()
