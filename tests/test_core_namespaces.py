"""Code shared by torch and numpy: the same bits in both, and in a strict array-API namespace."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from hqtool.core.formats.block import SCALE_RULES
from hqtool.core.formats.lanes import levels_of, levels_over
from hqtool.core.formats.named import FORMATS
from hqtool.core.quantize import level_of, quantize, quantize_in_blocks
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


FORMAT_NAMES = [
    *(f"int{bits}{scheme}" for bits in (2, 4, 8, 16) for scheme in ("", "-symmetric")),
    "int8-fullrange", "int2-midrise", "int4-midrise", "e4m3", "e4m3:scale=one", "e5m2:scale=pow2",
    "e3m2", "e2m3", "e2m1", "e3m0", "e1m2", "e4m7", "e6m4", "fp4-radix4",
]  # fmt: skip

DTYPES = pytest.mark.parametrize("dtype", ["float64", "float32"])
NAMES = pytest.mark.parametrize("name", FORMAT_NAMES)


@DTYPES
@NAMES
def test_quantization_is_the_same_in_every_namespace(name: str, dtype: str, xp: Any) -> None:
    for ends, noisy in itertools.product(RANGES, (False, True)):
        made = levels_over(FORMATS.parse(name).value, ends)
        for x in tensors(dtype, made.scale):
            noise = RNG.random(x.shape).astype(dtype) if noisy else None
            theirs = None if noise is None else xp.asarray(noise)
            assert_same(quantize(xp.asarray(x), made, theirs, xp), quantize(x, made, noise))
            if made.scale:
                level = level_of(xp.asarray(x) / made.scale, made, theirs, xp)
                assert_same(level, level_of(x / made.scale, made, noise))


@DTYPES
@NAMES
def test_lanes_as_columns_are_each_as_alone(name: str, dtype: str, xp: Any) -> None:
    """The last range has the scale 0."""
    format_ = FORMATS.parse(name).value
    columns = levels_of(RANGES, [format_] * len(RANGES)).as_columns()
    columns = columns.changed(lambda each: xp.asarray(each.astype(dtype)))
    x = (2 * RNG.standard_normal((len(RANGES), 50))).astype(dtype)
    noise = RNG.random(x.shape).astype(dtype)
    for u in (None, noise):
        theirs = None if u is None else xp.asarray(u)
        found = np.asarray(quantize(xp.asarray(x), columns, theirs, xp))
        for i, ends in enumerate(RANGES):
            alone = quantize(x[i], levels_over(format_, ends), None if u is None else u[i])
            np.testing.assert_array_equal(found[i], alone)


@DTYPES
def test_float32_has_the_ties_of_float64(dtype: str, xp: Any) -> None:
    """Edges are next to ties in the type of the values."""
    for name in ("e2m1", "e3m0", "int2-midrise", "fp4-radix4"):
        made = levels_over(FORMATS.parse(f"{name}").value, Range(0.0, 1.0))
        level = made.changed(lambda each: np.array([each])).extended()
        ties = ((level[1:] + level[:-1]) / 2).astype(dtype)
        found = np.asarray(made.nearest(xp.asarray(ties), xp))
        assert found.tolist() == made.nearest(ties.astype(np.float64)).tolist()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    "spec",
    [*(f"mxfp8:scale={rule}" for rule in SCALE_RULES), "mxint8", "mxfp4", "nvfp4", "nvfp4:tile=16",
     "e4m3-block128", "e5m2-block128:scale=pow2", "int8-block32:tile=32"],
)  # fmt: skip
def test_blocks_are_the_same_in_every_namespace(spec: str, dtype: str, xp: Any) -> None:
    format_, wanted = FORMATS.parse(spec).value, Range(-3.0, 2.0)
    for shape, axis in (((5, 70), 1), ((3, 40, 2, 2), 1), ((40,), 0), ((2, 3, 50), 2)):
        x = (RNG.standard_normal(shape) * np.exp2(RNG.integers(-9, 3, shape))).astype(dtype)
        x.reshape(-1)[:3] = 0, np.inf, np.nan
        for noise in (None, RNG.random(shape).astype(dtype)):
            theirs = None if noise is None else xp.asarray(noise)
            found = quantize_in_blocks(xp.asarray(x), format_, wanted, axis, theirs, xp)
            assert_same(found, quantize_in_blocks(x, format_, wanted, axis, noise))


@pytest.mark.parametrize("name", ["int8", "e4m3", "e2m1", "e3m0", "int4-midrise"])
def test_sixteen_bits_are_rounded_to_once(name: str) -> None:
    """bfloat16's own arithmetic, of 8 bits, would put values at wrong levels."""
    torch = pytest.importorskip("torch")
    made = levels_over(FORMATS.parse(name).value, Range(-2.0, 1.5))
    x, noise = torch.asarray(RNG.standard_normal(500)), torch.asarray(RNG.random(500))
    for dtype in (torch.bfloat16, torch.float16):
        narrow, u = x.to(dtype), noise.to(dtype)
        for given in (None, u):
            wide = None if given is None else given.to(torch.float32)
            found = quantize(narrow, made, given, torch)
            wanted = quantize(narrow.to(torch.float32), made, wide, torch).to(dtype)
            assert found.dtype == dtype
            assert torch.equal(found, wanted)
    half = quantize(RNG.standard_normal(10).astype(np.float16), made)
    assert half.dtype == np.float16


def assert_same(theirs: Any, ours: Any) -> None:
    """The type, the shape and every bit, the sign of a zero included."""
    theirs, ours = np.asarray(theirs), np.asarray(ours)
    assert (theirs.dtype, theirs.shape) == (ours.dtype, ours.shape)
    assert np.nan_to_num(theirs, nan=1e38).tobytes() == np.nan_to_num(ours, nan=1e38).tobytes()
