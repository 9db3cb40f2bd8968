"""Levels of their own for parts of a tensor: the same as each part by itself, summed."""

from __future__ import annotations

import numpy as np
import pytest

from hqtool.core.formats.named import FORMATS
from hqtool.core.formats.uniform import UniformFormat
from hqtool.core.moments import grouped
from hqtool.core.moments.dense import ROUNDINGS, dense_moments
from hqtool.core.moments.grouped import (
    OUTCOMES,
    PIECE,
    grouped_moments,
    pieces_of,
    sums_of_piece,
)
from hqtool.kernels import LaneGaps, form_in_use, lane_sums
from hqtool.kernels.form import choose, why_not_compiled

compiled_only = pytest.mark.skipif(why_not_compiled() is not None, reason=str(why_not_compiled()))

RNG = np.random.default_rng(7)

#: Lanes as they broadcast: a channel in the middle, a sample first, a row, each value its own.
INDICES = {
    "channel": np.arange(6).reshape(1, 6, 1),
    "sample": np.arange(4).reshape(4, 1, 1),
    "row": np.arange(4 * 5).reshape(4, 1, 5),
    "any": RNG.integers(0, 3, (4, 6, 5)),
}


@pytest.fixture(params=["plain", pytest.param("compiled", marks=compiled_only)])
def form(request, monkeypatch):
    """The kernels' form that is in use; without it, the one of the environment is."""
    monkeypatch.setattr(grouped, "form_in_use", lambda: choose(request.param))


def sums_of(moments):
    names = ("count", "nonzero", "xx", "qq", "xq", "err", "saturated", "underflowed")
    return np.array([np.ravel(getattr(moments, name)).sum() for name in names])


def one_by_one(x, levels, lanes, rounding, noise):
    """The oracle: each lane's values alone."""
    of_value = np.broadcast_to(lanes, x.shape)
    total = 0.0
    for lane in range(len(levels)):
        mine = of_value == lane
        u = None if noise is None else noise[mine]
        total = total + sums_of(dense_moments(x[mine], levels.at(np.array([lane])), rounding, u))
    return total


def test_every_rounding_is_there():
    assert {*OUTCOMES} == {*ROUNDINGS}


@pytest.mark.parametrize("rounding", OUTCOMES)
@pytest.mark.parametrize("per", INDICES)
@pytest.mark.parametrize("name", ["int4", "int3-symmetric", "e4m3", "e2m1", "fp4-radix4"])
@pytest.mark.usefixtures("form")
def test_equal_to_each_lane_alone(per, rounding, name):
    x = RNG.standard_normal((4, 6, 5)).astype("f4")
    x[0, :, 0] = 0
    lanes = INDICES[per]
    hi = RNG.uniform(0.1, 2, lanes.max() + 1)
    hi[0] = 0  # with lo this makes a scale of 0
    levels = FORMATS.parse(name).value.levels(np.where(hi == 0, 0, -0.7), hi)
    noise = RNG.random(x.shape) if rounding == "stochastic-sampled" else None
    found = sums_of(grouped_moments(x, levels, lanes, rounding, noise))
    assert found == pytest.approx(one_by_one(x, levels, lanes, rounding, noise), rel=1e-12)


@pytest.mark.usefixtures("form")
def test_more_values_than_a_piece():
    x = RNG.standard_normal((3, 2 * PIECE + 5, 2)).astype("f4")
    lanes = np.arange(3).reshape(3, 1, 1)
    levels = UniformFormat(8).levels(-np.arange(1.0, 4), np.arange(1.0, 4))
    found = sums_of(grouped_moments(x, levels, lanes))
    assert found == pytest.approx(one_by_one(x, levels, lanes, "nearest", None), rel=1e-12)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (100,), (7, 9), (3, 50, 2), (2, 3, 70)])
def test_pieces_share_out_every_value_once(shape):
    met = np.zeros(shape, int)
    for part in pieces_of(shape, 20):
        met[part] += 1
    assert (met == 1).all()


# --- the compiled kernel, which takes whole numbers and floating point


def both_forms(monkeypatch, x, levels, rounding):
    found = []
    for name in ("plain", "compiled"):
        monkeypatch.setattr(grouped, "form_in_use", lambda name=name: choose(name))
        found.append(sums_of_piece(x, levels, rounding))
    return found


#: Magnitudes from the smallest to the largest that float32 has, ties of many formats among them.
MAGNITUDES = np.concatenate(
    [
        2.0 ** np.arange(-149, 128),
        3 * 2.0 ** np.arange(-149, 126),
        np.arange(300) / 2,
        np.arange(0, 60, 0.0625),
        RNG.lognormal(0, 8, 900),
    ]
)


UNIFORM_AND_FLOATING = [
    *("int2", "int8", "int16", "int8-symmetric", "int8-fullrange"),
    *("e4m3", "e5m2", "e3m2", "e2m3", "e2m1", "e1m2", "e8m3", "e5m10"),
]


@compiled_only
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize(
    "name",
    UNIFORM_AND_FLOATING,
)
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_the_compiled_kernel_finds_the_same_levels(monkeypatch, name, rounding, dtype):
    """On each value under several scales: exactly, but for the order of sums."""
    with np.errstate(over="ignore", under="ignore"):
        x = np.concatenate([MAGNITUDES, -MAGNITUDES]).astype(dtype)
    x = np.repeat(np.where(np.isfinite(x), x, 0).reshape(-1, 1), 6, axis=1)
    scales = np.array([0.0, 1.0, 0.37, 2.0**-130, 1e-140, 1e140])
    one = FORMATS.parse(name).value.levels(np.full(6, -1.0), np.full(6, 1.0))
    levels = one.changed(np.array)
    levels.scale[:] = scales
    for row in np.array_split(x, 40):
        plain, compiled = both_forms(monkeypatch, row, levels, rounding)
        np.testing.assert_allclose(compiled, plain, rtol=1e-13)


@compiled_only
@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 255, 256, 257, 1000])
@pytest.mark.parametrize("after", [1, 3, 16, 300])
def test_the_compiled_kernel_takes_runs_of_any_length(monkeypatch, count, after):
    """Scales along any axis, or for each value."""
    x = RNG.standard_normal((2, count, after)).astype("f4")
    for shape in [(), (1,), (after,), (count, 1), (2, 1, 1), (2, count, after)]:
        scale = RNG.uniform(0.01, 1, shape)
        levels = UniformFormat(4).levels(-np.ones(1), np.ones(1)).one()
        levels = type(levels)(scale, levels.first, levels.last)
        plain, compiled = both_forms(monkeypatch, x, levels, "nearest")
        np.testing.assert_allclose(compiled, plain, rtol=1e-13)


@compiled_only
def test_the_bits_of_the_kernels_sums_are_those_of_16_lanes():
    """Whatever the machine's vectors: exact sums, whose parts are exact in any order, show it."""
    x = np.array([2.0**60] + [1.0] * 15 + [-(2.0**60)] + [1.0] * 15)
    gaps = LaneGaps(0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.5)
    found = lane_sums(x, 1.0, -1.0, 1.0, gaps, False)
    assert (found.xq, found.nonzero, found.saturated) == (2.0**61 + 30, 32, 2)


@compiled_only
@pytest.mark.parametrize(
    ("x", "scale"),
    [
        (np.zeros((2, 3), "i4"), 1.0),
        (np.zeros((2, 3), ">f4"), 1.0),
        (np.zeros((2, 3)), np.ones(2)),
        (np.zeros((2, 3)), np.ones((2, 2, 3))),
        (np.zeros((1, 1, 2, 3)), 1.0),
    ],
)
def test_the_kernel_refuses_what_does_not_go_together(x, scale):
    with pytest.raises(TypeError, match="broadcast"):
        lane_sums(x, scale, 0.0, 1.0, LaneGaps(*[1.0] * 7), False)


def test_a_form_is_in_use():
    assert form_in_use().name in ("plain", "compiled")
