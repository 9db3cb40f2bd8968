"""Every metric of every path against plain Python floats, value by value."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import oracle
import pytest

from hqtool.core.formats.format import Levels
from hqtool.core.formats.lanes import levels_of, levels_over
from hqtool.core.formats.uniform import SCHEMES, UniformFormat
from hqtool.core.metrics import measure
from hqtool.core.moments.batch import moments_of_each
from hqtool.core.moments.dense import ROUNDINGS, dense_moments, dense_moments_of_parts
from hqtool.core.moments.sorted import SortedValues
from hqtool.core.observation import PreparedValues
from hqtool.core.quantize import quantize
from hqtool.core.stats import finite_values
from hqtool.vocab import Moments, Range

RNG = np.random.default_rng(20211)
N = 3000

#: Name → tensor. Sizes are not multiples of the group size, values of every kind training meets.
TENSORS = {
    "gaussian": RNG.standard_normal(N).astype("f4"),
    "gradient": (RNG.laplace(size=N) * 1e-7).astype("f4"),
    "after_relu": np.maximum(RNG.standard_normal(N), 0).astype("f4"),
    "all_negative": -np.abs(RNG.standard_normal(N)).astype("f4"),
    "whole": RNG.integers(-20, 20, N).astype("f4"),
    "ties": (RNG.integers(-511, 512, N) / 2).astype("f4"),
    "offset": (1000 + 1e-3 * RNG.standard_normal(N)).astype("f4"),
    "outlier": np.append(RNG.standard_normal(N), 1e6).astype("f4"),
    "float64": RNG.standard_normal(N),
    "float16": RNG.standard_normal(N).astype("f2"),
    "denormal": (RNG.standard_normal(N) * 1e-42).astype("f4"),
    "huge": (RNG.standard_normal(N) * 1e37).astype("f4"),
    "constant": np.full(100, 3.0, "f4"),
    "one_element": np.array([2.5], "f4"),
    "all_zero": np.zeros(10, "f4"),
    "empty": np.zeros(0, "f4"),
    "non_finite": np.array([np.nan, np.inf, -np.inf, 1, 2, 3, 0], "f4"),
    "only_nan": np.full(4, np.nan, "f4"),
    "matrix": RNG.standard_normal((30, 7)).astype("f4"),
}

#: Range as a share of (min, max): exact, clipping, too wide, one-sided, reversed sign, none.
SHARES = [(1, 1), (0.5, 0.4), (1.3, 1.7), (0, 1), (1, 0), (0, 0)]


def range_of(x, share):
    kept = finite_values(x).astype(float)
    lo, hi = (kept.min(), kept.max()) if kept.size else (-1.0, 1.0)
    return Range(share[0] * lo, share[1] * hi)


def alone(levels: Levels) -> Levels:
    """One lane given as plain numbers as an array of one lane."""
    return levels.changed(lambda each: np.array([each]))


def assert_same(moments, wanted):
    for name, figures in measure(moments).items():
        (got,), want = figures.tolist(), wanted[name]
        got = None if got != got else got
        assert (got is None) == (want is None), (name, got, want)
        if want is not None:
            assert got == pytest.approx(want, rel=1e-6, abs=0), name


def test_every_rounding_has_its_oracle():
    assert {*oracle.ROUNDINGS, "stochastic-sampled"} == {*ROUNDINGS}


@pytest.mark.parametrize("rounding", oracle.ROUNDINGS)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("bits", [2, 4, 8, 16])
@pytest.mark.parametrize("name", TENSORS)
def test_both_paths_equal_the_oracle(name, bits, scheme, rounding):
    x = TENSORS[name]
    for share in SHARES:
        wanted = range_of(x, share)
        truth = oracle.metrics(x.ravel(), *wanted, bits, scheme, rounding)
        format_ = UniformFormat(bits, scheme)
        assert_same(PreparedValues(x).moments([wanted], [format_], rounding), truth)
        finite = finite_values(x)
        truth["nonfinite"] = 0.0  # of what is left
        assert_same(dense_moments(finite, levels_of([wanted], [format_]), rounding), truth)


@pytest.mark.parametrize("bits", range(2, 17))
def test_ties_go_to_even_on_both_paths(bits):
    """Values halfway between levels of a grid whose Δ is exact, and their neighbours."""
    grid = levels_over(UniformFormat(bits), Range(-1.0, 2.0**bits - 2))
    assert grid.scale == 1
    half = np.arange(-3, 2.0 ** min(bits, 9), dtype="f8") + 0.5
    x = np.concatenate([half, np.nextafter(half, -np.inf), np.nextafter(half, np.inf)])
    by_hand = [min(max(round(v), grid.first), grid.last) for v in x.tolist()]
    assert quantize(x, grid).tolist() == by_hand
    truth = oracle.metrics(x, -1.0, 2.0**bits - 2, bits)
    assert_same(SortedValues(x).moments(alone(grid)), truth)


def test_a_tie_only_the_division_decides():
    """Thresholds must come from x/Δ as it rounds, not from (k−½)Δ as it rounds."""
    for step_share, bits in itertools.product(np.linspace(0.1, 3, 200), (3, 8)):
        grid = levels_over(UniformFormat(bits), Range(-step_share, 1.1 * step_share))
        k = np.arange(grid.first - 1, grid.last + 2)
        edges = (k + 0.5) * grid.scale
        x = np.concatenate([edges, np.nextafter(edges, 9e9), np.nextafter(edges, -9e9)])
        fast, slow = SortedValues(x).moments(alone(grid)), dense_moments(x, alone(grid))
        assert fast.saturated == slow.saturated
        assert fast.qq == pytest.approx(slow.qq, rel=1e-12)


def test_many_grids_at_once_answer_as_one_by_one():
    x = TENSORS["gaussian"]
    formats = [UniformFormat(b) for b in (2, 8, 16) for _ in SHARES]
    grids = levels_of([range_of(x, share) for share in SHARES] * 3, formats)
    prepared = SortedValues(x)
    together = prepared.moments(grids)
    for i in range(len(grids)):
        single = prepared.moments(grids.at(np.array([i])))
        for name in ("qq", "xq", "err", "saturated", "underflowed"):
            assert getattr(together, name)[i] == getattr(single, name)[0]


@pytest.mark.parametrize("rounding", oracle.ROUNDINGS)
@pytest.mark.parametrize("bits", [4, 8, 11, 14, 16])
@pytest.mark.parametrize("offset", [0.0, 1.0, 1000.0])
def test_large_tensors_keep_six_digits(bits, offset, rounding, monkeypatch):
    """A million values, always by cells where those are trusted: no digit of six is lost."""
    monkeypatch.setattr("hqtool.core.moments.sorted.PASS_COST_PER_VALUE", 1e9)
    x = (offset + np.random.default_rng(5).standard_normal(1_000_003)).astype("f4")
    grid = levels_over(UniformFormat(bits), Range(float(x.min()), 0.9 * float(x.max())))
    fast = SortedValues(x).moments(alone(grid), rounding)
    slow = dense_moments(x, alone(grid), rounding)
    for name, value in measure(slow).items():
        assert measure(fast)[name] == pytest.approx(value, rel=1e-6), name


def test_small_gradients_keep_their_accuracy():
    """No floor on Δ: a Laplace tensor of scale 1e-7 is as good as one of scale 1."""
    x = np.random.default_rng(0).laplace(size=100_000)
    db = [
        measure(
            PreparedValues(s * x).moments([Range(s * x.min(), s * x.max())], [UniformFormat(8)])
        )
        for s in (1.0, 1e-7)
    ]
    assert db[0]["sqnr_db"] == pytest.approx(db[1]["sqnr_db"], abs=1e-6)
    assert db[0]["sqnr_db"] > 30


def test_many_grids_asked_together_are_as_each_alone_and_need_no_memory_for_all(monkeypatch):
    """2,000 grids of 8 bits: gathering what all their cells need at once would take 190 MiB."""
    values = SortedValues(RNG.standard_normal(20_000))
    formats = [UniformFormat(8), UniformFormat(3), UniformFormat(2)]
    many = levels_of(
        [Range(-1 - i / 100, 2) for i in range(2000)], [formats[i % 3] for i in range(2000)]
    )
    tracemalloc.start()
    together = values.moments(many)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20
    monkeypatch.setattr("hqtool.core.moments.sorted.MOST_CELLS", 300)
    for index in range(0, 2000, 97):
        one = values.moments(many.at(np.array([index])))
        assert one.err[0] == together.err[index]
        assert one.xq[0] == together.xq[index]


@pytest.mark.parametrize("rounding", oracle.ROUNDINGS)
@pytest.mark.parametrize("bits", [2, 8, 16])
def test_many_records_at_once_are_each_as_alone_to_the_last_bit(bits, rounding):
    """Small ones of a size side by side, large ones, and some beyond float64's squares."""
    kept = [x.reshape(-1)[:size] for x in TENSORS.values() for size in (7, 64, 64, 3001)]
    prepared = [PreparedValues(x) for x in [*kept, 1e300 * RNG.standard_normal(64)]]
    formats = [UniformFormat(bits)] * len(SHARES)
    ranges = [[range_of(x, share) for share in SHARES] for x in kept]
    ranges.append([Range(-1e300 * (1 + lo), 1e300 * hi) for lo, hi in SHARES])
    together = measure(moments_of_each(prepared, ranges, formats, rounding))
    for i, values in enumerate(prepared):
        alone = values.moments(ranges[i], formats, rounding)
        for name, figures in measure(alone).items():
            assert together[name][i].tobytes() == figures.tobytes(), name


@pytest.mark.parametrize("rounding", oracle.ROUNDINGS)
@pytest.mark.parametrize("sizes", [(256, 1000), (1, 600), (0, 7), (64, 64), (2000, 2000)])
def test_parts_of_a_tensor_are_each_as_alone_to_the_last_bit(sizes, rounding):
    """In one pass or, where they are many values, one after the other."""
    parts = [scale * RNG.standard_normal(size) for scale, size in zip((5, 1), sizes, strict=True)]
    ranges = [range_of(np.concatenate(parts), share) for share in SHARES]
    grids = levels_of(ranges, [UniformFormat(8)] * len(ranges))
    found = dense_moments_of_parts(parts, grids, rounding)
    for part, together in zip(parts, found, strict=True):
        alone = dense_moments(part, grids, rounding)
        for name in Moments.__slots__:
            ours, theirs = (np.asarray(getattr(each, name)) for each in (together, alone))
            assert ours.tobytes() == theirs.tobytes(), name
