"""Levels of their own for parts of a tensor: the same as each part by itself, summed."""

from __future__ import annotations

import numpy as np
import pytest

from hqtool.core.formats.uniform import UniformFormat
from hqtool.core.moments.dense import ROUNDINGS, dense_moments
from hqtool.core.moments.grouped import OUTCOMES, PIECE, grouped_moments, pieces_of

RNG = np.random.default_rng(7)

#: Lanes as they broadcast: a channel in the middle, a sample first, a row, each value its own.
INDICES = {
    "channel": np.arange(6).reshape(1, 6, 1),
    "sample": np.arange(4).reshape(4, 1, 1),
    "row": np.arange(4 * 5).reshape(4, 1, 5),
    "any": RNG.integers(0, 3, (4, 6, 5)),
}


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
def test_equal_to_each_lane_alone(per, rounding):
    x = RNG.standard_normal((4, 6, 5)).astype("f4")
    x[0, :, 0] = 0
    lanes = INDICES[per]
    hi = RNG.uniform(0.1, 2, lanes.max() + 1)
    hi[0] = 0  # with lo this makes a scale of 0
    levels = UniformFormat(4).levels(np.where(hi == 0, 0, -0.7), hi)
    noise = RNG.random(x.shape) if rounding == "stochastic-sampled" else None
    found = sums_of(grouped_moments(x, levels, lanes, rounding, noise))
    assert found == pytest.approx(one_by_one(x, levels, lanes, rounding, noise), rel=1e-12)


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
