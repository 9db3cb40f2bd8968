"""StatQuant's block Householder quantizer, against loops written from its description."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hqtool.core.formats.householder import HouseholderFormat, blocks_of
from hqtool.core.formats.named import FORMATS
from hqtool.core.formats.uniform import UniformFormat
from hqtool.core.metrics import cosine, figure, sqnr_db
from hqtool.core.moments.batch import moments_of_each
from hqtool.core.observation import values_of
from hqtool.core.stats import stats_of
from hqtool.errors import UsageError
from hqtool.estimators.quantizer import parse_quantizer
from hqtool.vocab import Range, Record, SampleLayout

RNG = np.random.default_rng(5)


def uneven(samples=24, values=50, dtype="f8"):
    """A few samples far larger than the others, as gradients are late in training."""
    sizes = np.where(np.arange(samples) % 8 == 3, 100.0, 1.0) * RNG.uniform(0.5, 2, samples)
    return (RNG.standard_normal((samples, values)) * sizes[:, None]).astype(dtype)


def each_block(spans):
    """The blocks one by one: rows, mix, unmix."""
    return [block for alike in blocks_of(spans) for block in zip(*alike, strict=True)]


def groups_by_hand(spans):
    """Sorted descending; k small rows for the smallest k that satisfies the rule."""
    n, order = len(spans), sorted(range(len(spans)), key=lambda i: -spans[i])
    m = [spans[i] for i in order]
    for k in range(1, n):
        if k * m[n - k - 1] > sum(m[: n - k]):
            break
    else:
        return [[i] for i in order]
    leaders, small, groups, taken = order[: n - k], order[n - k :], [], 0
    for i in range(n - k):
        end = round(k * sum(m[: i + 1]) / sum(m[: n - k]))
        groups.append([leaders[i], *small[taken:end]])
        taken = end
    return groups


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=30))
def test_rows_are_grouped_by_the_rule(spans):
    found = each_block(np.array(spans))
    assert sorted(rows.tolist() for rows, _, _ in found) == sorted(groups_by_hand(spans))
    for rows, mix, unmix in found:
        np.testing.assert_allclose(unmix @ mix, np.eye(rows.size), atol=1e-9)


def test_a_leader_is_shared_out_equally():
    ((rows, mix, _),) = (b for b in each_block(np.array([100.0, 1, 1, 1, 1])) if b[0].size > 1)
    np.testing.assert_allclose(np.abs(mix[:, 0]), np.abs(mix[0, 0]))
    assert rows[0] == 0


def quantized_by_hand(x, bits, noise=None):
    q = np.zeros_like(x)
    for rows, mix, _ in each_block(x.max(axis=1) - x.min(axis=1)):
        y = mix @ x[rows]
        for i, row in enumerate(y):
            lo, hi = min(row.min(), 0), max(row.max(), 0)
            step = (hi - lo) / (2**bits - 1)
            z = np.rint(-lo / step)
            u = 0.5 if noise is None else noise[rows[i]]
            code = np.rint(row / step) if noise is None else np.floor(row / step + u)
            y[i] = (np.clip(code + z, 0, 2**bits - 1) - z) * step
        q[rows] = np.linalg.solve(mix, y)
    return q


@pytest.mark.parametrize("bits", [3, 8])
def test_it_is_what_loops_make_of_it(bits):
    x = uneven()
    for noise, rounding in ((None, "nearest"), (RNG.random(x.shape), "stochastic-sampled")):
        q = quantized_by_hand(x, bits, noise)
        m = HouseholderFormat(UniformFormat(bits)).moments(x, rounding, noise)
        assert (m.count, m.nonzero) == (x.size, np.count_nonzero(x))
        assert m.xx == pytest.approx(np.sum(x * x))
        assert m.xq[0] == pytest.approx(np.sum(x * q))
        assert m.qq[0] == pytest.approx(np.sum(q * q))
        assert m.err[0] == pytest.approx(np.sum((x - q) ** 2), rel=1e-6)


def test_the_expectation_is_the_mean_of_many_draws():
    x, format_ = uneven(12, 30), HouseholderFormat(UniformFormat(4))
    drawn = [format_.moments(x, "stochastic-sampled", RNG.random(x.shape)) for _ in range(600)]
    expected = format_.moments(x, "stochastic")
    for name in ("xq", "qq", "err"):
        mean = np.mean([getattr(m, name)[0] for m in drawn])
        assert getattr(expected, name)[0] == pytest.approx(mean, rel=0.03)
    assert np.isnan(expected.underflowed[0])


def test_it_spreads_the_error_where_a_few_samples_dominate():
    """The largest samples borrow the levels of the small ones: what BHQ is for."""
    x = uneven(64, 100)
    plain = x.max(axis=1), x.min(axis=1)
    levels = UniformFormat(4).levels(plain[1], plain[0]).as_columns()
    own = levels.nearest(x / levels.scale) * levels.scale
    per_sample = 10 * np.log10(np.sum(x * x) / np.sum((x - own) ** 2))
    mixed = figure(sqnr_db, HouseholderFormat(UniformFormat(4)).moments(x))[0]
    assert mixed > per_sample + 3


@pytest.mark.parametrize("x", [np.zeros((5, 4)), np.zeros((0, 3)), np.full((4, 3), -2.0)])
def test_degenerate_tensors(x):
    m = HouseholderFormat(UniformFormat(8)).moments(x)
    assert m.err[0] <= 1e-20 * max(m.xx, 1)
    assert np.isnan(figure(cosine, m)[0]) == (x.size == 0)


# --- among other formats ------------------------------------------------------------------------


def prepared(x, layout=None):
    return values_of(Record(0, 0, 0, x.shape, stats_of(x), x, layout=layout))


def test_it_is_a_format_among_others():
    x = uneven(16, 12, "f4").reshape(16, 3, 2, 2)
    wanted = Range(float(x.min()), float(x.max()))
    formats = [FORMATS.parse(name).value for name in ("bhq8", "int8", "bhq4")]
    for rounding in ("nearest", "stochastic"):
        found = prepared(x).moments([wanted] * 3, formats, rounding)
        for lane in (0, 2):
            rows = x.reshape(16, -1).astype("f8")
            alone = formats[lane].moments(rows, rounding)
            assert found.err[lane] == alone.err[0]
        each = moments_of_each([prepared(x)] * 2, [[wanted] * 3] * 2, formats, rounding)
        np.testing.assert_array_equal(each.err, [found.err] * 2)


def test_a_draw_is_that_of_the_noise():
    x = uneven(16, 12)
    format_ = FORMATS.parse("bhq4").value
    found = prepared(x).moments(
        [Range(-1, 1)], [format_], "stochastic-sampled", np.random.default_rng(1)
    )
    u = np.random.default_rng(1).random(x.size).reshape(x.shape)
    assert found.err[0] == format_.moments(x, "stochastic-sampled", u).err[0]


def test_of_part_of_a_tensor_nothing_is_known():
    x = uneven(16, 12)
    kept = SampleLayout(np.arange(5), 12, 1, np.array([x.max(), x.min()]), np.array([0, 1]))
    record = Record(0, 0, 0, x.shape, stats_of(x), x[:5].reshape(-1), True, layout=kept)
    x[0, 0] = np.nan
    for values in (values_of(record), prepared(x)):
        m = values.moments([Range(-1, 1)], [FORMATS.parse("bhq8").value])
        assert all(np.isnan(figure(f, m)).all() for f in (cosine, sqnr_db))


def test_without_the_extremes_of_huge_values_nothing_overflows():
    x = uneven(16, 12) * 1e250
    small = HouseholderFormat(UniformFormat(8)).moments(x / 1e250)
    found = prepared(x).moments([Range(-1, 1)], [FORMATS.parse("bhq8").value])
    assert figure(sqnr_db, found)[0] == pytest.approx(figure(sqnr_db, small)[0], rel=1e-6)


@pytest.mark.parametrize("estimator", ["hindsight", "dsgc", "fixed:lo=-1,hi=1", "delayed"])
def test_what_does_not_look_at_every_step_cannot_mix(estimator):
    """A format that reads the tensor would make it look as if that cost nothing."""
    with pytest.raises(UsageError, match="mixes samples"):
        parse_quantizer(f"{estimator}@bhq8")
    for fine in ("current", "running", "current:per=sample"):
        assert parse_quantizer(f"{fine}@bhq8/stochastic").format.value.needs_range
