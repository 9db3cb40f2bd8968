"""Every metric in every format against plain Python floats over its list of levels, both paths."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hqtool.core.formats.codebook import Codebook, CodebookFormat
from hqtool.core.formats.format import ElementFormat, Levels
from hqtool.core.formats.lanes import levels_of, levels_over
from hqtool.core.formats.named import FORMATS
from hqtool.core.metrics import measure
from hqtool.core.moments.batch import moments_of_each
from hqtool.core.moments.dense import dense_moments
from hqtool.core.moments.sorted import SortedValues
from hqtool.core.observation import PreparedValues
from hqtool.core.quantize import quantize
from hqtool.core.stats import finite_values
from hqtool.vocab import Moments, Range

RNG = np.random.default_rng(20212)
N = 600

RADIX4 = [-(4.0**k) for k in range(6, -1, -1)] + [0.0] + [4.0**k for k in range(7)]
MIDRISE = [i - 7.5 for i in range(16)]
UNEVEN = [-1.0, -0.3, 0.0, 0.2, 0.5]
POSITIVE = [0.0, 0.1, 0.5, 1.0]

#: Name → (format, its levels as plain numbers, its scaling).
FORMATS_AND_LEVELS = {
    "e4m3": ("e4m3", oracle.float_levels(4, 3), "free"),
    "e4m3, scale 1": ("e4m3:scale=one", oracle.float_levels(4, 3), "one"),
    "e5m2, power of two": ("e5m2:scale=pow2", oracle.float_levels(5, 2), "pow2"),
    "e3m2": ("e3m2", oracle.float_levels(3, 2), "free"),
    "e2m3": ("e2m3", oracle.float_levels(2, 3), "free"),
    "e2m1": ("e2m1", oracle.float_levels(2, 1), "free"),
    "e3m0": ("e3m0", oracle.float_levels(3, 0), "free"),
    "e1m2": ("e1m2", oracle.float_levels(1, 2), "free"),
    "e4m7": ("e4m7", oracle.float_levels(4, 7), "free"),
    "radix-4": ("fp4-radix4", RADIX4, "free"),
    "radix-4, odd": ("fp4-radix4:phase=odd,scale=one", [2 * v for v in RADIX4], "one"),
    "midrise": ("int4-midrise", MIDRISE, "free"),
    "uneven": (CodebookFormat(Codebook(UNEVEN), 3), UNEVEN, "free"),
    "none negative": (CodebookFormat(Codebook(POSITIVE), 2), POSITIVE, "free"),
}

TENSORS = {
    "gaussian": RNG.standard_normal(N).astype("f4"),
    "gradient": (RNG.laplace(size=N) * 1e-7).astype("f4"),
    "after_relu": np.maximum(RNG.standard_normal(N), 0).astype("f4"),
    "all_negative": -np.abs(RNG.standard_normal(N)).astype("f4"),
    "every_magnitude": np.exp(RNG.uniform(-25, 5, N)) * RNG.choice([-1, 1], N),
    "ties": (RNG.integers(-511, 512, N) / 16).astype("f4"),
    "offset": (1000 + 1e-3 * RNG.standard_normal(N)).astype("f4"),
    "denormal": (RNG.standard_normal(N) * 1e-42).astype("f4"),
    "huge": (RNG.standard_normal(N) * 1e37).astype("f4"),
    "all_zero": np.zeros(10, "f4"),
    "empty": np.zeros(0, "f4"),
    "non_finite": np.array([np.nan, np.inf, -np.inf, 1, 2, 3, 0], "f4"),
}

#: Range as a share of (min, max): exact, clipping, too wide, none.
SHARES = [(1, 1), (0.5, 0.4), (1.3, 1.7), (0, 0)]


def format_of(name: str) -> ElementFormat:
    given = FORMATS_AND_LEVELS[name][0]
    return FORMATS.parse(given).value if isinstance(given, str) else given


def ranges_of(x: np.ndarray) -> Iterator[Range]:
    kept = finite_values(x).astype(float)
    lo, hi = (kept.min(), kept.max()) if kept.size else (-1.0, 1.0)
    return (Range(low * lo, high * hi) for low, high in SHARES)


@pytest.fixture
def _always_by_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hqtool.core.moments.sorted.PASS_COST_PER_VALUE", 1e9)


def assert_same(moments: Moments, wanted: dict[str, float | None]) -> None:
    for name, figures in measure(moments).items():
        (got,), want = figures.tolist(), wanted[name]
        got = None if got != got else got
        assert (got is None) == (want is None), (name, got, want)
        if want is not None:
            assert got == pytest.approx(want, rel=1e-6, abs=1e-14 * (name != "mse")), name


@pytest.mark.usefixtures("_always_by_cells")
@pytest.mark.parametrize("rounding", oracle.ROUNDINGS_TO_LEVELS)
@pytest.mark.parametrize("name", FORMATS_AND_LEVELS)
def test_both_paths_equal_the_oracle(name: str, rounding: str) -> None:
    format_, (_, levels, rule) = format_of(name), FORMATS_AND_LEVELS[name]
    for x in TENSORS.values():
        for wanted in ranges_of(x):
            scale = oracle.scale_of(levels, *wanted, rule)
            truth = oracle.metrics_of_levels(x.ravel(), levels, scale, rounding)
            assert_same(PreparedValues(x).moments([wanted], [format_], rounding), truth)
            finite = finite_values(x)
            made = levels_of([wanted], [format_])
            truth["nonfinite"] = 0.0  # of what is left
            assert_same(SortedValues(finite).moments(made, rounding), truth)


@pytest.mark.parametrize("rounding", oracle.ROUNDINGS_TO_LEVELS)
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("scheme", ["asymmetric", "symmetric", "fullrange"])
def test_the_oracle_of_levels_is_that_of_uniform_formats(
    bits: int, scheme: str, rounding: str
) -> None:
    """Two obvious ways to say the same; parity counts from 0 in both."""
    for x in TENSORS.values():
        for wanted in ranges_of(x):
            step, first, last = oracle.grid(*wanted, bits, scheme)
            levels = [float(k) for k in range(first, last + 1)]
            found = oracle.metrics_of_levels(x.ravel(), levels, step, rounding)
            truth = oracle.metrics(x.ravel(), *wanted, bits, scheme, rounding)
            assert found == {k: v if v is None else pytest.approx(v) for k, v in truth.items()}


@pytest.mark.usefixtures("_always_by_cells")
@pytest.mark.parametrize("rounding", oracle.ROUNDINGS_TO_LEVELS)
@pytest.mark.parametrize(
    "name", ["e4m3", "e2m1", "e5m2, power of two", "e4m7", "radix-4", "midrise"]
)
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_large_tensors_keep_six_digits(name: str, offset: float, rounding: str) -> None:
    x = (offset + np.random.default_rng(5).standard_normal(300_003)).astype("f4")
    made = levels_of([Range(float(x.min()), 0.9 * float(x.max()))], [format_of(name)])
    fast, slow = SortedValues(x).moments(made, rounding), dense_moments(x, made, rounding)
    for metric, value in measure(slow).items():
        assert measure(fast)[metric] == pytest.approx(value, rel=1e-6, nan_ok=True), metric


MIXED = [format_of(name) for name in FORMATS_AND_LEVELS] + [
    FORMATS.parse(name).value for name in ("int8", "int4-symmetric", "int8-fullrange")
]


@pytest.mark.parametrize("rounding", oracle.ROUNDINGS_TO_LEVELS)
@pytest.mark.parametrize("size", [50, 5000])
def test_formats_mixed_answer_as_each_alone(size: int, rounding: str) -> None:
    """To the last bit, whether asked of one record or of many."""
    records = [RNG.standard_normal(size) for _ in range(3)]
    ranges = [[Range(-i, 1.5 * i) for i in range(len(MIXED))] for _ in records]
    prepared = [PreparedValues(x) for x in records]
    many = moments_of_each(prepared, ranges, MIXED, rounding)
    for i, values in enumerate(prepared):
        together = values.moments(ranges[i], MIXED, rounding)
        for lane, format_ in enumerate(MIXED):
            alone = values.moments([ranges[i][lane]], [format_], rounding)
            for field in ("qq", "xq", "err", "saturated", "underflowed"):
                figure = getattr(alone, field)[0]
                assert getattr(together, field)[lane] == figure, (format_, field)
                assert getattr(many, field)[i, lane] == figure, (format_, field)


def test_sampled_rounding_is_the_same_draw_for_all_formats() -> None:
    x, ranges = RNG.standard_normal(4000), [Range(-2.0, 2.0)] * len(MIXED)
    values = PreparedValues(x)
    noise = np.random.default_rng(3).random(x.size)
    found = values.moments(ranges, MIXED, "stochastic-sampled", np.random.default_rng(3))
    for lane, format_ in enumerate(MIXED):
        q = quantize(x, levels_over(format_, ranges[0]), noise)
        assert found.err[lane] == pytest.approx(((x - q) ** 2).sum(), rel=1e-12)
        assert found.qq[lane] == pytest.approx((q * q).sum(), rel=1e-12)


@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1e200, 1e307])
@pytest.mark.parametrize("name", ["e4m3", "e5m2, power of two", "e2m1", "midrise"])
def test_tiny_and_huge_values_have_the_figures_of_any_others(name: str, scale: float) -> None:
    power = 2.0 ** math.floor(math.log2(scale))
    x = np.round(np.clip(RNG.standard_normal(500), -3, 3), 3)
    if scale == 1e-320:
        x = np.round(x * 256)  # what subnormal numbers hold
    one, other = (
        measure(PreparedValues(s * x).moments([Range(-2.5 * s, s)], [format_of(name)]))
        for s in (1.0, power)
    )
    for metric in ("sqnr_db", "cosine", "norm_ratio", "gain", "saturation", "underflow"):
        assert other[metric] == pytest.approx(one[metric], rel=1e-9), metric


# --- properties ---------------------------------------------------------------------------------

formats = st.sampled_from(MIXED)
finite = st.floats(-1e4, 1e4, width=32)
ranges = st.tuples(finite, finite).map(lambda ends: Range(min(ends), max(ends)))


@st.composite
def values_near(draw: st.DrawFn, made: Levels) -> np.ndarray:
    """Anything, levels, what lies halfway between two, and their neighbours; ascending."""
    level = made.changed(lambda each: np.array([each])).extended() * made.scale
    chosen = draw(st.lists(st.integers(0, level.size - 2), max_size=30))
    exact = np.concatenate(
        [level[chosen], (level[chosen] + level[np.add(chosen, 1).astype(int)]) / 2]
    )
    near = [np.nextafter(exact, -np.inf), np.nextafter(exact, np.inf)]
    return np.sort(np.concatenate([draw(st.lists(finite, max_size=30)), exact, *near]))


@settings(max_examples=300)
@given(st.data(), formats, ranges)
def test_quantization(data: st.DataObject, format_: ElementFormat, ends: Range) -> None:
    made = levels_over(format_, ends)
    x = data.draw(values_near(made))
    q = quantize(x, made)
    assert (np.diff(q) >= 0).all(), "monotone"
    assert quantize(q, made).tolist() == q.tolist(), "idempotent"
    low, high = made.lowest * made.scale, made.highest * made.scale
    inside = (x >= low) & (x <= high) & (made.scale > 0)
    if inside.any():
        below, above = made.neighbours(x[inside] / made.scale)
        half = (above - below) * made.scale / 2
        assert (abs(x - q)[inside] <= half * (1 + 1e-9)).all(), "within half a gap"
    assert q[x <= low].tolist() == [low] * int((x <= low).sum()), "clipped below"
    assert q[x >= high].tolist() == [high] * int((x >= high).sum()), "clipped above"


@settings(max_examples=200)
@given(st.data(), formats, ranges)
def test_neighbours_are_the_levels_around(
    data: st.DataObject, format_: ElementFormat, ends: Range
) -> None:
    made = levels_over(format_, ends)
    level = made.changed(lambda each: np.array([each])).extended()
    if not made.scale:
        return
    y = data.draw(values_near(made)) / made.scale
    y = y[(y >= level[0]) & (y < level[-1])]
    below, above = made.neighbours(y)
    at = np.searchsorted(level, y, "right")
    assert below.tolist() == made.below(y).tolist() == level[at - 1].tolist()
    assert above.tolist() == made.above(y).tolist() == level[at].tolist()
    for noise in (0.0, 0.3, 0.999):
        drawn = made.drawn(y, np.full(y.size, noise))
        assert ((drawn == below) | (drawn == above)).all()
    certain = (y - below) / (above - below) < 0.999
    assert (made.drawn(y, np.zeros(y.size)) == below)[certain].all()


@settings(max_examples=200)
@given(st.data(), formats, ranges, st.sampled_from(sorted(oracle.ROUNDINGS_TO_LEVELS)))
def test_prefix_sums_answer_as_every_value_would(
    data: st.DataObject, format_: ElementFormat, ends: Range, rounding: str
) -> None:
    """Counts to the last one: both paths put every value at the same level."""
    x = data.draw(values_near(levels_over(format_, ends)))
    made = levels_of([ends], [format_])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hqtool.core.moments.sorted.PASS_COST_PER_VALUE", 1e9)
        fast = SortedValues(x).moments(made, rounding)
    slow = dense_moments(x, made, rounding)
    for field in ("saturated", "underflowed"):
        near = 0 if rounding == "nearest" else 1e-9
        assert getattr(fast, field) == pytest.approx(getattr(slow, field), rel=near, abs=near)
    for field in ("qq", "xq", "err"):
        wanted = getattr(slow, field)
        assert getattr(fast, field) == pytest.approx(wanted, rel=1e-6, abs=1e-12 * slow.xx + 1e-30)


@pytest.mark.parametrize("name", FORMATS_AND_LEVELS)
def test_draws_are_right_on_average(name: str) -> None:
    """Over all noise a value between two levels is kept on average."""
    made = levels_over(format_of(name), Range(-3.0, 3.0))
    y = np.concatenate([RNG.uniform(made.lowest, made.highest, 200), [0.01, 0.4]])
    noise = (np.arange(1000) + 0.5) / 1000
    mean = made.drawn(np.repeat(y, 1000), np.tile(noise, y.size)).reshape(-1, 1000).mean(axis=1)
    below, above = made.neighbours(y)
    assert (abs(mean - y) <= (above - below) / 1000).all()
