"""Properties of every grid and tensor: hypothesis searches for counterexamples."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import oracle
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from hqtool.core.formats.format import Levels
from hqtool.core.formats.lanes import levels_of, levels_over
from hqtool.core.formats.uniform import SCHEMES, UniformFormat, UniformLevels
from hqtool.core.moments.dense import dense_moments
from hqtool.core.moments.sorted import SortedValues
from hqtool.core.observation import PreparedValues
from hqtool.core.quantize import quantize
from hqtool.vocab import Moments, Range

finite32 = st.floats(-1e6, 1e6, width=32)
formats = st.builds(UniformFormat, st.integers(2, 16), st.sampled_from(sorted(SCHEMES)))
ranges = st.tuples(finite32, finite32).map(lambda ends: Range(min(ends), max(ends)))
grids = st.builds(levels_over, formats, ranges)
coarse_formats = st.builds(UniformFormat, st.integers(2, 9), st.sampled_from(sorted(SCHEMES)))
coarse_grids = st.builds(levels_over, coarse_formats, ranges)
roundings = st.sampled_from(sorted(oracle.ROUNDINGS))


@st.composite
def values_near(draw: st.DrawFn, grid: UniformLevels, most: int = 40) -> np.ndarray:
    """Anything, and what is hard: levels, what lies halfway between two, and their neighbours."""
    anything = draw(st.lists(finite32, max_size=most))
    halves = draw(
        st.lists(st.integers(int(2 * grid.first) - 3, int(2 * grid.last) + 3), max_size=most)
    )
    edges = np.array(halves, "f8") / 2 * grid.scale
    below, above = np.nextafter(edges, -np.inf), np.nextafter(edges, np.inf)
    return np.concatenate([np.array(anything, "f8"), edges, below, above, edges[:3]])


def alone(levels: Levels) -> Levels:
    """One lane given as plain numbers as an array of one lane."""
    return levels.changed(lambda each: np.array([each]))


# --- grids --------------------------------------------------------------------------------------


@given(formats, ranges)
def test_a_grid_has_its_levels_and_zero_among_them(format_: UniformFormat, ends: Range) -> None:
    grid = levels_over(format_, ends)
    assert grid.last - grid.first + 1 == 2**format_.bits - (format_.scheme == "symmetric")
    assert grid.first <= 0 <= grid.last
    assert grid.scale >= 0


@given(formats, ranges)
def test_a_grid_reaches_the_ends_of_its_range(format_: UniformFormat, ends: Range) -> None:
    """To half a step: the zero point is rounded."""
    grid = levels_over(format_, ends)
    slack = grid.scale * (0.5 + 1e-9)
    assert grid.first * grid.scale <= ends.lo + slack
    assert grid.last * grid.scale >= ends.hi - slack


@given(formats, ranges, st.integers(-30, 30))
def test_a_power_of_two_scales_a_grid_exactly(
    format_: UniformFormat, ends: Range, exponent: int
) -> None:
    grid, factor = levels_over(format_, ends), 2.0**exponent
    scaled = levels_over(format_, Range(ends.lo * factor, ends.hi * factor))
    assert (scaled.scale, scaled.first) == (grid.scale * factor, grid.first)


@settings(max_examples=300)
@given(
    st.builds(UniformFormat, st.integers(2, 16)),
    st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 2),
)
@example(UniformFormat(8), (-1.7e308, 1.7e308))
@example(UniformFormat(8), (-5e-322, 5e-322))
@example(UniformFormat(8), (-0.0, 0.0))
def test_one_range_gives_the_levels_that_many_give(
    format_: UniformFormat, ends: tuple[float, float]
) -> None:
    wanted = Range(min(ends), max(ends))
    assert repr(levels_over(format_, wanted)) == repr(levels_of([wanted], [format_]).one())


# --- quantization -------------------------------------------------------------------------------


@settings(max_examples=200)
@given(st.data(), grids)
def test_quantization(data: st.DataObject, grid: UniformLevels) -> None:
    x = np.sort(data.draw(values_near(grid)))
    q = quantize(x, grid)
    assert (np.diff(q) >= 0).all(), "monotone"
    assert quantize(q, grid).tolist() == q.tolist(), "idempotent"
    low, high = grid.first * grid.scale, grid.last * grid.scale
    inside = (x >= low) & (x <= high)
    assert (abs(x - q)[inside] <= grid.scale / 2 * (1 + 1e-9)).all(), "within half a step"
    assert q[x <= low].tolist() == [low] * int((x <= low).sum()), "clipped below"
    assert q[x >= high].tolist() == [high] * int((x >= high).sum()), "clipped above"
    assert set(np.sign(q)) <= set(np.sign(x)) | {0.0}, "no sign is turned"
    assert not quantize(np.zeros(1), grid).any(), "zero stays"


@given(st.data(), grids)
def test_codes_are_whole_and_within_bounds(data: st.DataObject, grid: UniformLevels) -> None:
    x = data.draw(values_near(grid))
    if grid.scale:
        codes = quantize(x, grid) / grid.scale
        np.testing.assert_allclose(codes, np.rint(codes), rtol=1e-12)
        assert ((np.rint(codes) >= grid.first) & (np.rint(codes) <= grid.last)).all()


@given(st.data(), grids, st.floats(0, 1, exclude_max=True))
def test_stochastic_rounding_takes_a_neighbouring_level(
    data: st.DataObject, grid: UniformLevels, noise: float
) -> None:
    """The upper one where the noise is at least what is missing to it."""
    x = data.draw(values_near(grid))
    if grid.scale:
        scaled = x / grid.scale
        level = grid.drawn(scaled, np.full(x.size, noise))
        assert ((level == np.floor(scaled)) | (level == np.floor(scaled) + 1)).all()
        assert (np.floor(scaled) == grid.drawn(scaled, np.zeros(x.size))).all()


# --- moments ------------------------------------------------------------------------------------

EXACT = ("count", "nonzero")
COUNTS = ("saturated", "underflowed")


def assert_close(one: Moments, other: Moments, rounding: str) -> None:
    """Counts exactly, where they are counts and not expected ones; sums to what they keep."""
    for field in fields(Moments):
        ours, theirs = getattr(one, field.name), getattr(other, field.name)
        counted = field.name in COUNTS
        whole = field.name in EXACT or (counted and rounding == "nearest")
        near = 1e-9 if counted else 1e-12 * other.xx + 1e-30
        tolerance = {"rel": 0 if whole else 1e-6, "abs": 0 if whole else near, "nan_ok": True}
        assert ours == pytest.approx(theirs, **tolerance), field.name


@settings(max_examples=200)
@given(st.data(), coarse_grids, roundings)
def test_sorted_values_answer_as_every_value_would(
    data: st.DataObject, grid: UniformLevels, rounding: str
) -> None:
    """Exact ties, too: they are counted alike, whichever side of a threshold they are told on."""
    x = data.draw(values_near(grid, most=100))
    slow = dense_moments(x, alone(grid), rounding)
    assert_close(SortedValues(x).moments(alone(grid), rounding), slow, rounding)
    assert_close(SortedValues(x[::-1]).moments(alone(grid), rounding), slow, rounding)


def by_cells(x: np.ndarray, grid: UniformLevels, rounding: str) -> Moments:
    """From prefix sums, however few values there are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hqtool.core.moments.sorted.PASS_COST_PER_VALUE", 1e9)
        return SortedValues(x).moments(alone(grid), rounding)


@settings(max_examples=200)
@given(st.data(), coarse_grids, roundings)
def test_prefix_sums_answer_as_every_value_would(
    data: st.DataObject, grid: UniformLevels, rounding: str
) -> None:
    x = data.draw(values_near(grid, most=100))
    assert_close(by_cells(x, grid, rounding), dense_moments(x, alone(grid), rounding), rounding)


@given(st.data(), coarse_formats, ranges, roundings)
def test_moments_of_a_tensor_are_the_sum_of_its_parts(
    data: st.DataObject, format_: UniformFormat, ends: Range, rounding: str
) -> None:
    grid, lane = levels_over(format_, ends), ([ends], [format_])
    x, y = data.draw(values_near(grid)), data.draw(values_near(grid))
    parts = [PreparedValues(part).moments(*lane, rounding) for part in (x, y)]
    added = Moments(*(sum(getattr(p, f.name) for p in parts) for f in fields(Moments)[:8]))
    whole = PreparedValues(np.concatenate([x, y])).moments(*lane, rounding)
    assume(whole.exponent == parts[0].exponent == parts[1].exponent == 0)
    assert_close(whole, replace(added, nonfinite=whole.nonfinite), rounding)


@given(st.data(), coarse_grids)
def test_moments_are_those_of_the_quantized_values(
    data: st.DataObject, grid: UniformLevels
) -> None:
    x = data.draw(values_near(grid))
    m, q = dense_moments(x, alone(grid)), quantize(x, grid)
    for found, wanted in ((m.qq, q * q), (m.xq, x * q), (m.err, (x - q) ** 2)):
        assert found[0] == pytest.approx(wanted.sum(), rel=1e-9, abs=1e-30)
