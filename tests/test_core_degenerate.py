"""What cannot be computed is missing, never 0; special cases are as DESIGN defines them."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import oracle
import pytest

from hqtool.core.formats.lanes import levels_over
from hqtool.core.formats.uniform import UniformFormat
from hqtool.core.metrics import measure
from hqtool.core.observation import PreparedValues
from hqtool.core.stats import stats_of
from hqtool.errors import UsageError
from hqtool.vocab import Range


def metrics(values, lo, hi, bits=8, scheme="asymmetric", rounding="nearest"):
    prepared = PreparedValues(np.array(values, "f4"))
    found = measure(prepared.moments([Range(lo, hi)], [UniformFormat(bits, scheme)], rounding))
    return {name: None if f[0] != f[0] else f[0] for name, f in found.items()}


@pytest.mark.parametrize("rounding", oracle.ROUNDINGS)
def test_all_zero(rounding):
    for ends in ((0, 0), (-1, 1)):
        assert metrics([0, 0, 0], *ends, rounding=rounding) == {
            "mse": 0,
            "sqnr_db": None,
            "cosine": 1,
            "norm_ratio": 1,
            "gain": 1,
            "saturation": 0,
            "underflow": None,
            "nonfinite": 0,
            "noise": 0,
        }


@pytest.mark.parametrize("rounding", oracle.ROUNDINGS)
def test_empty_range_saturates_every_nonzero_value(rounding):
    found = metrics([0, 1, -2, 0], 0, 0, rounding=rounding)
    assert found == {
        "mse": 5 / 4,
        "sqnr_db": 0,
        "cosine": 0,
        "norm_ratio": 0,
        "gain": 0,
        "saturation": 0.5,
        "underflow": 1,
        "nonfinite": 0,
        "noise": 1,
    }


def test_nonzero_tensor_that_quantizes_to_nothing_has_cosine_0():
    found = metrics([0.1, -0.1], -1, 1, bits=2, scheme="symmetric")
    assert (found["cosine"], found["norm_ratio"], found["underflow"]) == (0, 0, 1)
    assert found["saturation"] == 0


@pytest.mark.parametrize("rounding", oracle.ROUNDINGS)
def test_empty_and_non_finite_tensors_have_no_metric(rounding):
    for values in ([], [math.nan], [math.inf, -math.inf]):
        found = metrics(values, -1, 1, rounding=rounding)
        assert found.pop("nonfinite") == (1 if values else None)
        assert set(found.values()) == {None}


def test_zero_error_has_no_sqnr():
    found = metrics([0, 1, 2, 255], 0, 255)
    assert (found["mse"], found["sqnr_db"], found["cosine"]) == (0, None, 1)


def test_non_finite_values_are_left_out():
    found, finite = metrics([math.nan, 1, math.inf, 2], 0, 2), metrics([1, 2], 0, 2)
    assert (found.pop("nonfinite"), finite.pop("nonfinite")) == (0.5, 0)
    assert found == finite


def levels(bits, lo, hi):
    """(Δ, first level, last level)."""
    found = levels_over(UniformFormat(bits), Range(lo, hi))
    return found.scale, found.first, found.last


def test_one_sided_tensor_puts_zero_at_the_end_of_the_grid():
    assert levels(8, 3.0, 5.0) == (5 / 255, 0, 255)
    assert levels(8, -5.0, -3.0) == (5 / 255, -255, 0)


def test_zero_point_rounds_half_to_even():
    """−lo/Δ = 0.5 → 0 and 1.5 → 2 (Δ = 1 at 2 bits)."""
    assert levels(2, -0.5, 2.5) == (1.0, 0, 3)
    assert levels(2, -1.5, 1.5) == (1.0, -2, 1)


def test_range_wider_than_a_float64_can_say():
    step, _, _ = levels(8, -1.5e308, 1.5e308)
    assert step == pytest.approx(1e308 / 85, rel=1e-12)


def test_a_step_so_small_that_it_vanishes_quantizes_to_zero():
    assert levels(16, 0.0, 5e-324)[0] == 0
    assert metrics([1.0], 0.0, 5e-324, bits=16)["saturation"] == 1


@pytest.mark.parametrize("bits", [-1, 0, 1, 17])
def test_bits_out_of_bounds(bits):
    with pytest.raises(UsageError, match="2 to 16"):
        UniformFormat(bits)


def test_unknown_scheme():
    with pytest.raises(UsageError, match="asymmetric"):
        UniformFormat(8, "lopsided")


def test_stats_by_hand():
    found = stats_of(np.array([[3.0, -4.0], [0.0, math.nan], [math.inf, 1e-3]], "f8"))
    assert found.range == Range(-4, 3)
    assert (found.absmax, found.nzero, found.nnan, found.ninf) == (4, 1, 1, 1)
    assert found.min_nonzero == 1e-3
    finite = [3, -4, 0, 1e-3]
    mean = sum(finite) / 4
    assert found.mean == pytest.approx(mean)
    assert found.std == pytest.approx(math.sqrt(sum((v - mean) ** 2 for v in finite) / 4))
    assert found.l2 == pytest.approx(math.sqrt(25 + 1e-6))


def test_stats_of_nothing():
    for nothing in (np.zeros((0, 3), "f4"), np.array([math.nan], "f4")):
        found = stats_of(nothing)
        assert found.range is None
        assert math.isnan(found.mean)
        assert math.isnan(found.min_nonzero)


def test_stats_of_tiny_and_huge_values_do_not_under_or_overflow():
    assert stats_of(np.full(4, 1e-200)).l2 == pytest.approx(2e-200)
    assert stats_of(np.full(4, 1e200)).l2 == pytest.approx(2e200)
    assert stats_of(np.array([-1e200, 1e200])).std == pytest.approx(1e200)


# --- saturation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [3, 300_000])
def test_what_the_zero_point_rounds_away_is_not_saturated(size):
    """(−m, m) at 8 bits, asymmetric: m lies half a gap beyond the highest level."""
    for m in (3.0, 65504.0, float(np.float32(0.1))):
        found = metrics([m] * size, -m, m)
        assert found["saturation"] == 0
        assert found["sqnr_db"] > 48
    assert metrics([-65504.0, 65504.0] * size, -65504.0, 65504.0)["saturation"] == 0


@pytest.mark.parametrize("size", [1, 100_000])
def test_saturated_is_what_lies_more_than_half_a_gap_beyond_the_levels(size):
    """Levels 0 … 255: 255.5 is not beyond by more, 255.51 is; of stochastic rounding the chance."""
    x = [255.5, 255.51, -0.5, -0.51, 300, 7] * size
    assert metrics(x, 0, 255)["saturation"] == 3 / 6
    chance = metrics([255.25, 256, 254.5, 7] * size, 0, 255, rounding="stochastic")
    assert chance["saturation"] == pytest.approx(1.25 / 4)


# --- values whose squares leave float64 ---------------------------------------------------------


def exact_metrics(x, lo, hi, bits):
    """In fractions: nothing over- or underflows, nothing is rounded but square roots' results."""
    x = [Fraction(v) for v in x]
    step = (Fraction(hi) - Fraction(lo)) / (2**bits - 1)
    zero = round(-Fraction(lo) / step)
    q = [step * min(max(round(v / step), -zero), 2**bits - 1 - zero) for v in x]
    xx, qq, xq = (sum(a * b for a, b in zip(*p, strict=True)) for p in ((x, x), (q, q), (x, q)))
    err = sum((a - b) ** 2 for a, b in zip(x, q, strict=True))
    return {
        "sqnr_db": 10 * math.log10(xx / err),
        "cosine": math.sqrt(xq**2 / (xx * qq)),
        "norm_ratio": math.sqrt(qq / xx),
        "gain": float(xq / xx),
        "noise": float(err / xx),
    }


@pytest.mark.parametrize("size", [40, 4000])
@pytest.mark.parametrize("scale", [1e-320, 1e-300, 1e-200, 1.0, 1e200, 1e307])
def test_figures_of_tiny_and_huge_values_are_right(scale, size):
    x = np.clip(np.random.default_rng(7).standard_normal(size), -3, 2.5) * scale
    lo, hi = float(x.min()), float(x.max())
    values = PreparedValues(x)
    found = measure(values.moments([Range(lo, hi)], [UniformFormat(4)]))
    for name, figure in exact_metrics(x.tolist(), lo, hi, 4).items():
        assert found[name][0] == pytest.approx(figure, rel=1e-9), name
    assert found["saturation"] == 0
    if scale in (1e-320, 1e307):
        assert math.isnan(found["mse"][0]), "float64 cannot hold it"


@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1.0, 1e200, 1e307])
def test_statistics_of_tiny_and_huge_values_are_right(scale):
    x = np.clip(np.random.default_rng(8).standard_normal(100), -3, 3) * scale
    exact = [Fraction(v) for v in x.tolist()]
    mean = sum(exact) / 100
    unit = Fraction(scale)
    std = math.sqrt(sum((v - mean) ** 2 for v in exact) / 100 / unit**2)
    l2 = math.sqrt(sum(v * v for v in exact) / unit**2)
    found = stats_of(x)
    assert found.mean == pytest.approx(float(mean), rel=1e-9, abs=5e-324)
    assert found.std == pytest.approx(std * scale, rel=1e-9, abs=5e-324)
    assert found.l2 == pytest.approx(l2 * scale, rel=1e-9, abs=5e-324)


def test_zero_has_no_sign_in_statistics():
    for zeros in ([0.0, 0.0], [-0.0, 0.0], [-0.0]):
        found = stats_of(np.array(zeros, "f4"))
        ends = (found.min, found.max, found.absmax, found.mean)
        assert [math.copysign(1, end) for end in ends] == [1, 1, 1, 1]
