"""The estimators of other papers and projects, against slow simulations written from the sources.

What holds for every estimator is in test_conformance.py.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from deciding import decisions, observe
from hypothesis import given
from hypothesis import strategies as st

from hqtool.core.formats.uniform import UniformFormat
from hqtool.core.metrics import mse, sqnr_db
from hqtool.core.observation import PreparedValues
from hqtool.core.recorded import RecordedObservation
from hqtool.core.stats import stats_of
from hqtool.estimators.powers_of_two import ceil_log2, round_log2
from hqtool.estimators.presets import ESTIMATORS
from hqtool.estimators.quantizer import parse_quantizer
from hqtool.vocab import Range

RNG = np.random.default_rng(23)

#: A site's tensors: of rising scale, falling scale, one-sided, of one value, and with zeros.
TENSORS = [
    RNG.laplace(size=60),
    RNG.laplace(size=60) * 7,
    RNG.laplace(size=60) * 0.01,
    np.abs(RNG.laplace(size=60)),
    np.full(60, -0.37),
    np.zeros(60),
    RNG.laplace(size=60) * (RNG.random(60) < 0.1),
    RNG.laplace(size=60),
]


def ranges(spec, tensors=TENSORS, **how):
    return [d.range for d in decisions(ESTIMATORS.parse(spec).value, map_observe(tensors, how))]


def looks(spec, tensors=TENSORS, **how):
    return [d.looked for d in decisions(ESTIMATORS.parse(spec).value, map_observe(tensors, how))]


def map_observe(tensors, how):
    return [observe(x, **how) for x in tensors]


IN_HINDSIGHT = [True] + [False] * (len(TENSORS) - 1)


def teaching(tensors):
    return [x for x in tensors if np.any(x)]


# --- in hindsight -------------------------------------------------------------------------------


def test_luq_is_the_moving_average_of_eq_18():
    """m̂ᵗ = (1−η)·max|x^{t−1}| + η·m̂^{t−1}, from the first tensor's own maximum on."""
    known, expected = max(abs(TENSORS[0])), []
    for x in TENSORS:
        expected.append(known)
        if np.any(x):
            known = 0.25 * max(abs(x)) + 0.75 * known
    assert [r.hi for r in ranges("luq:momentum=0.75")] == pytest.approx(expected, rel=1e-12)
    assert [r.lo for r in ranges("luq:momentum=0.75")] == pytest.approx(-np.array(expected))
    assert looks("luq") == IN_HINDSIGHT


def test_window_is_the_widest_of_the_steps_before():
    found = ranges("window:steps=3")
    for t in range(1, len(TENSORS)):
        last = np.concatenate(teaching(TENSORS[:t])[-3:])
        assert found[t] == (last.min(), last.max())
    assert found[0] == (TENSORS[0].min(), TENSORS[0].max())
    assert looks("window") == IN_HINDSIGHT


@pytest.mark.parametrize("k", [2, 8])
def test_sakr_is_a_power_of_two_above_the_largest_deviation_so_far(k):
    found = ranges(f"sakr:k={k}")
    for t in range(len(TENSORS)):
        largest = max(float(np.std(x)) for x in TENSORS[: max(t, 1)])
        reach = 2.0 ** math.ceil(math.log2(k * largest / math.sqrt(0.1)))
        assert found[t] == (-reach, reach)
    assert looks("sakr") == IN_HINDSIGHT


# --- this step's -------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_wage_quantizes_as_its_formula_does(bits):
    """Q(clip(x/Shift, ±(1−2^(1−b)))) with Q(y) = round(y·2^(b−1))/2^(b−1), times Shift."""
    for x in teaching(TENSORS):
        obs = observe(x, bits, "symmetric")
        (decision,) = decisions(ESTIMATORS.parse("wage").value, [obs])
        shift = 2.0 ** round(math.log2(max(abs(x))))
        edge = 1 - 2.0 ** (1 - bits)
        q = shift * np.round(np.clip(x / shift, -edge, edge) * 2 ** (bits - 1)) / 2 ** (bits - 1)
        assert decision.looked
        assert decision.range == pytest.approx((-shift * edge, shift * edge))
        assert mse(obs.moments([decision.range]))[0] == pytest.approx(np.mean((x - q) ** 2))


@given(st.floats(5e-324, 1.7e308))
def test_whole_logarithms_are_exact(x):
    up, near = int(ceil_log2(x)), round_log2(x)
    assert math.ldexp(1, up - 1) < x
    assert up > 1023 or x <= math.ldexp(1, up)
    square = math.frexp(x)[0] ** 2  # within [1/4, 1): below 1/2 the power below is the nearer
    assert near == math.frexp(x)[1] - (square < 0.5)


def test_whole_logarithms_of_powers_of_two():
    exponents = np.arange(-1074, 1024)
    powers = np.ldexp(1.0, exponents)
    np.testing.assert_array_equal(ceil_log2(powers), exponents)
    assert [round_log2(p) for p in powers.tolist()] == exponents.tolist()
    assert np.ldexp(1.0, ceil_log2(0.0)) == 0


# --- searches -----------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["asymmetric", "symmetric"])
@pytest.mark.parametrize("bits", [3, 4, 8])
def test_best_mse_finds_the_least_error(bits, scheme):
    x = RNG.laplace(size=3000)
    obs = observe(x, bits, scheme)
    (found,), (same,) = (
        ranges(s, [x], bits=bits, scheme=scheme) for s in ("best-mse", "best-sqnr")
    )
    assert found == same
    full = obs.stats.range
    tried = [Range(a * full.lo, a * full.hi) for a in np.linspace(1, 0, 3000, endpoint=False)]
    assert mse(obs.moments([found]))[0] <= 1.02 * mse(obs.moments(tried)).min()
    assert sqnr_db(obs.moments([found]))[0] >= sqnr_db(obs.moments([full]))[0]


@pytest.mark.parametrize("bits", [2, 8, 16])
@pytest.mark.parametrize(
    "x", [np.full(1000, 0.1), np.array([0, 0, -2e6]), np.array([1e-300, 0.0]), TENSORS[4]]
)
def test_best_mse_does_not_clip_what_has_one_value(x, bits):
    (found,) = ranges("best-mse", [x], bits=bits)
    assert found == (min(x), max(x))


# --- of values and magnitudes -------------------------------------------------------------------


@pytest.mark.parametrize("q", [60, 99, 99.9, 100])
def test_percentile_is_numpys(q):
    found = ranges(f"percentile:q={q}")
    for x, found_range in zip(TENSORS, found, strict=True):
        if np.any(x):
            assert found_range == pytest.approx(np.percentile(x, [100 - q, q]), rel=1e-9, abs=1e-15)
    assert all(looks("percentile"))


def test_percentile_counts_a_samples_values_by_their_weight():
    """As if each drawn value were there as often as it stands for others."""
    known, drawn = np.array([-9.0, 8.0, 9.0]), np.linspace(-2, 2, 101)
    values = PreparedValues(drawn, True, known, total=known.size + 5 * drawn.size)
    whole = np.concatenate([known, np.repeat(drawn, 5)])
    obs = RecordedObservation(stats_of(whole), UniformFormat(8), values)
    shares = [0.01, 0.3, 0.5, 0.9, 0.99]
    assert obs.quantiles(shares) == pytest.approx(np.quantile(whole, shares), abs=0.05)
    assert obs.quantiles([0, 1]) == (-9, 9)
    assert obs.magnitude() == pytest.approx(np.abs(whole).mean(), rel=1e-12)


def test_a_percentile_looks_even_where_no_values_were_recorded():
    found = decisions(ESTIMATORS.parse("percentile").value, [observe(TENSORS[0], values=False)])
    assert (found[0].range, found[0].looked, found[0].postponed) == (None, True, False)


def test_sawb_is_its_formula():
    for x, found in zip(teaching(TENSORS), ranges("sawb", teaching(TENSORS)), strict=True):
        clip = 12.1 * math.sqrt(np.mean(x**2)) - 12.2 * np.mean(np.abs(x))
        expected = clip if clip > 0 else max(abs(x))
        assert found == pytest.approx((-expected, expected), rel=1e-9)
    assert looks("sawb:hindsight=true") == IN_HINDSIGHT


def test_sawb_of_one_sign_needs_no_values():
    """Where all are of one sign, the mean magnitude is that of the mean."""
    for sign in (1, -1):
        x = sign * TENSORS[3]
        with_values, without = (ranges("sawb", [x], values=kept)[0] for kept in (True, False))
        assert with_values == without
    assert ranges("sawb", TENSORS[:1], values=False) == [None]


@pytest.mark.parametrize("bits", [2, 8, 16])
def test_exponent_is_the_mean_of_the_shifts(bits):
    top, mean, expected = 2 ** (bits - 1) - 1, None, []
    for x in teaching(TENSORS):
        shift = math.ceil(math.log2(max(abs(x)) / top))
        mean = shift if mean is None else 0.25 * shift + 0.75 * mean
        expected.append(2.0 ** math.floor(mean + 0.5) * top)
    how = {"bits": bits, "scheme": "symmetric"}
    found = ranges("exponent:momentum=0.75", teaching(TENSORS), **how)
    assert found == [(-reach, reach) for reach in expected]
    before = ranges("exponent:momentum=0.75,hindsight=true", teaching(TENSORS), **how)
    assert before == [found[0], *found[:-1]]
    for x, reach in zip(teaching(TENSORS)[:1], expected, strict=False):
        assert max(abs(x)) <= reach < 2 * max(abs(x)) or bits == 2


def test_te_current_is_the_maximum_or_scale_one():
    tensors = [[1.0, -3.0], [0.0, 0.0], [2.0, math.nan], [2.0, math.inf], [-5.0]]
    found = ranges("te-current", tensors)
    assert found == [(-3, 3), (-3, 3), (-128, 127), (-128, 127), (-5, 5)]


# --- chunks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "cut"),
    [
        ("chunks", [range(16), range(16, 32), range(32, 40)]),
        ("chunks:size=20", [range(20), range(20, 40)]),
        ("chunks:size=1", [[i] for i in range(40)]),
        ("chunks:size=100", [range(40)]),
        ("chunks:count=3", [range(13), range(13, 26), range(26, 40)]),
        ("chunks:count=40", [[i] for i in range(40)]),
    ],
)
@pytest.mark.parametrize("shape", [(40, 3, 2, 2), (40, 7), (40,)])
def test_chunks_are_means_over_chunks_of_samples(spec, cut, shape):
    x = RNG.laplace(size=shape)
    (found,) = ranges(spec, [x])
    lows, highs = ([f(x[list(chunk)]) for chunk in cut] for f in (np.min, np.max))
    assert found == pytest.approx((np.mean(lows), np.mean(highs)))


def test_chunks_of_rangebn_are_its_view():
    """view(B // 16, −1), min and max of each row, and their means."""
    x = RNG.laplace(size=(64, 5, 4))
    rows = x.reshape(64 // 16, -1)
    (found,) = ranges("chunks", [x])
    assert found == pytest.approx((rows.min(axis=1).mean(), rows.max(axis=1).mean()))


def test_a_chunk_without_finite_values_counts_for_nothing():
    x = RNG.laplace(size=(4, 3))
    x[1] = math.nan
    (found,) = ranges("chunks:size=1", [x])
    known = x[[0, 2, 3]]
    assert found == pytest.approx((known.min(axis=1).mean(), known.max(axis=1).mean()))
    assert ranges("chunks", [x], values=False) == [None]


def test_the_quantizers_that_readme_names_are_quantizers():
    text = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    table = text.partition("### Whose method is which quantizer")[2].partition("\nTheir floors")[0]
    named = re.findall(r"`([^`]+@[^`]+)`", table)
    assert len(named) > 20
    assert [parse_quantizer(each).label for each in named] == named
