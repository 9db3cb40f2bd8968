"""One site through all estimators: order, calibration, missing values, noise, the bill."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import oracle
import pytest
from quantizing import settings

from hqtool.compare.replay import replay
from hqtool.core.stats import stats_of
from hqtool.errors import UsageError
from hqtool.estimators.composed import Composed
from hqtool.estimators.protocol import Reading
from hqtool.estimators.schedule import EveryStep
from hqtool.estimators.smoothing import Ema
from hqtool.registry import Choice
from hqtool.trace.history import history_of
from hqtool.traffic.layers import Counts
from hqtool.vocab import Range, Record, Site

SITE = Site("conv1", "output")
RNG = np.random.default_rng(11)
TENSORS = [RNG.standard_normal((4, 25)).astype("f4") * (1 + 0.1 * t) for t in range(6)]


def record(x, step, micro=0, call=0, values=True, sampled=False):
    kept = (x if values else None) if not sampled else x.ravel()[:10]
    return Record(step, micro, call, x.shape, stats_of(x), kept, sampled)


def run(records, how, counts=None, site=SITE):
    rows = []
    return replay(site, history_of(records), how, counts, rows.append), rows


def test_every_row_and_every_mean_by_the_oracle():
    """Ranges by hand, metrics by plain Python, means over steps."""
    how = settings("current", "hindsight:momentum=0.5", formats="int4,int8")
    summaries, rows = run([record(x, t) for t, x in enumerate(TENSORS)], how)
    ends = [(float(x.min()), float(x.max())) for x in TENSORS]
    lagging = [ends[0], ends[0]]
    for lo, hi in ends[1:-1]:
        lagging.append((0.5 * lo + 0.5 * lagging[-1][0], 0.5 * hi + 0.5 * lagging[-1][1]))
    want = {"current": ends, "hindsight:momentum=0.5": lagging}
    for row in rows:
        lo, hi = want[row.estimator][row.step]
        assert (row.lo, row.hi) == pytest.approx((lo, hi))
        truth = oracle.metrics(TENSORS[row.step].ravel(), row.lo, row.hi, row.bits)
        assert row.metrics == pytest.approx(truth, rel=1e-9)
    for summary in summaries:
        mine = [r for r in rows if (r.estimator, r.bits) == (summary.estimator, summary.bits)]
        assert summary.steps == len(mine) == 6
        for name, mean in summary.metrics.items():
            assert mean == pytest.approx(sum(r.metrics[name] for r in mine) / 6)


def test_calibration_updates_state_and_is_not_scored():
    records = [record(x, t) for t, x in enumerate(TENSORS)]
    _, all_rows = run(records, settings("hindsight"))
    (summary,), rows = run(records, settings("hindsight", calibrate=2))
    assert rows == all_rows[2:]
    assert (summary.steps, summary.looks, summary.replayed) == (4, 0, 4)


def test_calibration_counts_steps_not_records():
    records = [record(x, t // 2, micro=t % 2) for t, x in enumerate(TENSORS)]
    (summary,), rows = run(records, settings("current", calibrate=1))
    assert [(r.step, r.micro) for r in rows] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert summary.steps == 4


def test_more_calibration_than_steps_scores_nothing():
    (summary,), rows = run([record(TENSORS[0], 0)], settings("current", calibrate=5))
    assert (rows, summary.steps, set(summary.metrics.values())) == ([], 0, {None})


def test_statistics_alone_move_the_estimators():
    """Values at every second step: ranges as if all were there, looks counted at all."""
    full = [record(x, t) for t, x in enumerate(TENSORS)]
    thin = [record(x, t, values=t % 2 == 0) for t, x in enumerate(TENSORS)]
    _, all_rows = run(full, settings("running"))
    (summary,), rows = run(thin, settings("running"))
    assert rows == all_rows[::2]
    assert (summary.steps, summary.looks, summary.replayed) == (3, 6, 6)


def test_samples_are_scored_with_exact_ranges_and_counted():
    x = TENSORS[0]
    (summary,), (row,) = run([record(x, 0, sampled=True)], settings("current"))
    assert (row.lo, row.hi) == (x.min(), x.max())
    truth = oracle.metrics(x.ravel()[:10], float(x.min()), float(x.max()), 8)
    assert row.metrics == pytest.approx(truth)
    assert summary.sampled == 1


def test_postponed_searches_are_counted():
    thin = [record(x, t, values=t not in (2, 3)) for t, x in enumerate(TENSORS)]
    (summary,), _ = run(thin, settings("dsgc:interval=2"))
    assert (summary.postponed, summary.looks) == (2, 2)


def test_a_record_with_nothing_finite_is_counted_and_not_scored():
    nothing = np.full((2, 2), np.nan, "f4")
    (summary,), (row,) = run([record(nothing, 0)], settings("current"))
    assert row.metrics.pop("nonfinite") == 1
    assert (row.lo, row.hi, set(row.metrics.values())) == (None, None, {None})
    assert (summary.steps, summary.unscored) == (0, 1)
    assert (summary.nonfinite_records, summary.nonfinite_step) == (1, 0)
    assert summary.metrics["nonfinite"] == 1
    assert summary.metrics["mse"] is None


def test_a_missing_metric_is_left_out_of_the_mean():
    """Step 0 is all zero and has no SQNR; the mean is that of step 1 alone."""
    records = [record(np.zeros((4, 25), "f4"), 0), record(TENSORS[0], 1)]
    (summary,), rows = run(records, settings("current"))
    assert rows[0].metrics["sqnr_db"] is None
    assert summary.metrics["sqnr_db"] == rows[1].metrics["sqnr_db"]


def test_zeros_are_counted_and_teach_nothing():
    zeros = [record(np.zeros((4, 25), "f4"), t) for t in range(2)]
    later = [record(x, t + 2) for t, x in enumerate(TENSORS)]
    (summary,), rows = run(zeros + later, settings("hindsight"))
    assert (summary.all_zero, summary.looks, summary.postponed) == (2, 3, 0)
    _, alone = run(later, settings("hindsight"))
    assert [(r.lo, r.hi, r.metrics) for r in rows[2:]] == [(r.lo, r.hi, r.metrics) for r in alone]
    assert [(r.lo, r.hi, r.metrics["mse"]) for r in rows[:2]] == [(0, 0, 0)] * 2


def test_searches_are_made_once_in_interval_steps_whatever_the_micro_batches():
    """Each record of a due step is searched and billed; steps between them are not."""
    records = [record(x, t, micro) for t, x in enumerate(TENSORS) for micro in range(3)]
    (summary,), rows = run(records, settings("dsgc:interval=3"), COUNTS)
    assert [(r.step, r.micro) for r in rows if r.looked] == [
        (t, m) for t in (0, 3) for m in (0, 1, 2)
    ]
    assert summary.looks == 6
    passes = summary.evaluations + 2 * summary.looks
    assert summary.traffic_bytes == pytest.approx(180 + passes * 400 / 18)


@dataclass(frozen=True, slots=True)
class HalfAtFewBits:
    """Needs no values, yet asks for the format, and only of tensors that reach beyond 3."""

    asks = frozenset({"extremes", "format"})

    def __call__(self, obs):
        lo, hi = obs.stats.range
        share = 0.5 if obs.stats.absmax > 3 and obs.format.bits < 8 else 1.0
        return Reading(Range(share * lo, share * hi))


def test_an_estimator_that_asks_for_the_format_decides_at_each():
    """Also where it asks of some tensors alone."""
    estimator = Composed(HalfAtFewBits(), Ema(0.5), EveryStep())
    choice = Choice("half", "half", {}, estimator)
    records = [record(np.array([-1.0, x]), t) for t, x in enumerate([2.0, 8.0, 2.0])]
    _, rows = run(records, settings(choice, formats="int8,int4,int3"))
    assert [r.hi for r in rows if r.bits == 8] == [2, 5, 3.5]
    assert [r.hi for r in rows if r.bits == 4] == [2, 3, 2.5]
    assert [r.hi for r in rows if r.bits == 3] == [2, 3, 2.5]


def test_values_that_are_not_finite_are_counted_at_each_record():
    """Steps 0 to 5: none, one NaN of 100 from step 2 on, all of them at step 5."""
    tensors = [x.copy() for x in TENSORS]
    for x in tensors[2:]:
        x[0, 0] = np.inf
    tensors[5][:] = np.nan
    (summary,), rows = run([record(x, t) for t, x in enumerate(tensors)], settings("current"))
    assert [r.metrics["nonfinite"] for r in rows] == [0, 0, 0.01, 0.01, 0.01, 1]
    assert summary.metrics["nonfinite"] == pytest.approx(1.03 / 6)
    assert (summary.steps, summary.unscored, summary.replayed) == (5, 1, 6)
    assert (summary.nonfinite_records, summary.nonfinite_step) == (4, 2)
    assert summary.metrics["mse"] == pytest.approx(np.mean([r.metrics["mse"] for r in rows[:5]]))


def test_the_low_is_the_mean_of_the_worst_tenth():
    """Of 25 records the two worst; of fewer than ten the worst one."""
    how = settings("fixed:lo=-3,hi=3", formats="int3")
    records = [record(RNG.laplace(size=50), t) for t in range(25)]
    (summary,), rows = run(records, how)
    figures = sorted(r.metrics["sqnr_db"] for r in rows)
    assert summary.sqnr_db_low == pytest.approx((figures[0] + figures[1]) / 2)
    (summary,), rows = run(records[:9], how)
    assert summary.sqnr_db_low == min(r.metrics["sqnr_db"] for r in rows)


def test_exact_is_told_from_missing():
    levels, ends = np.arange(256.0), settings("fixed:lo=0,hi=255")
    (summary,), (row,) = run([record(levels, 0)], ends)
    assert (row.exact, row.metrics["sqnr_db"], row.min, row.max) == (True, None, 0, 255)
    assert (summary.exact, summary.exact_steps, summary.sqnr_db_low) == (True, 1, None)
    (summary,), rows = run([record(levels, 0), record(levels + 0.25, 1)], ends)
    assert [r.exact for r in rows] == [True, False]
    assert (summary.exact, summary.exact_steps) == (False, 1)
    assert summary.metrics["sqnr_db"] == rows[1].metrics["sqnr_db"] == summary.sqnr_db_low


# --- noise --------------------------------------------------------------------------------------


def test_expectation_is_the_mean_of_many_draws():
    x = RNG.standard_normal(400).astype("f4")
    _, (expected,) = run(
        [record(x, 0)], settings("fixed:lo=-1,hi=1.5", rounding="stochastic", formats="int3")
    )
    draws = []
    for seed in range(400):
        how = settings(
            "fixed:lo=-1,hi=1.5", rounding="stochastic-sampled", formats="int3", seed=seed
        )
        draws.append(run([record(x, 0)], how)[1][0].metrics)
    for name in ("mse", "cosine", "norm_ratio", "saturation", "underflow"):
        sample = np.array([d[name] for d in draws])
        error = sample.std() / np.sqrt(len(draws))
        assert expected.metrics[name] == pytest.approx(sample.mean(), abs=5 * error + 2e-4), name


def test_noise_depends_on_seed_site_and_record_alone():
    sampled = settings("current", rounding="stochastic-sampled", formats="int4")
    records = [record(TENSORS[0], t) for t in range(3)]
    _, rows = run(records, sampled)
    assert run(records[1:2], sampled)[1] == rows[1:2]
    assert len({r.metrics["mse"] for r in rows}) == 3
    _, elsewhere = run(records[:1], sampled, site=Site("conv2", "output"))
    assert elsewhere[0].metrics != rows[0].metrics
    other = settings("current", rounding="stochastic-sampled", formats="int4", seed=1)
    assert run(records[:1], other)[1][0].metrics != rows[0].metrics


def test_searches_round_to_nearest_whatever_the_rounding():
    records = [record(TENSORS[0], 0)]
    ranges = {
        (r.lo, r.hi)
        for rounding in ("nearest", "stochastic", "stochastic-sampled")
        for r in run(records, settings("dsgc", rounding=rounding, formats="int3"))[1]
    }
    assert len(ranges) == 1


# --- the bill -----------------------------------------------------------------------------------

COUNTS = Counts(weight=30, input=50, output=100)


def test_the_bill_by_hand():
    """8 bits, b_acc 32: static 30+50+100 bytes; a look 2·100·4 more; a search (E+2)·100·4."""
    records = [record(x, t) for t, x in enumerate(TENSORS)]
    found = {s.estimator: s for s in run(records, settings(), COUNTS)[0]}
    assert {s.static_bytes for s in found.values()} == {180}
    assert found["current"].traffic_bytes == 180 + 800
    assert found["running"].traffic_bytes == 180 + 800
    assert found["hindsight"].traffic_bytes == pytest.approx(180 + 800 / 6)
    dsgc = found["dsgc"]
    assert dsgc.traffic_bytes == pytest.approx(180 + (dsgc.evaluations + 2) * 400 / 6)


def test_bits_change_the_static_bill_and_not_the_accumulator():
    (summary,), _ = run([record(TENSORS[0], 0)], settings("current", formats="int4"), COUNTS)
    assert (summary.static_bytes, summary.traffic_bytes) == (90, 890)


def test_grad_input_is_billed_by_its_own_elements():
    """Backward: Y·b_g + W·b_w + X·b_g, and X through the accumulator."""
    x = np.ones((50,), "f4")
    (summary,), _ = run([record(x, 0)], settings("current"), COUNTS, Site("conv1", "grad_input"))
    assert (summary.static_bytes, summary.traffic_bytes) == (180, 180 + 2 * 50 * 4)


def test_a_joint_record_is_billed_as_its_mean_rank():
    """Ranks of 100 and 60 elements. By hand: static 30+50+100 and 30+30+60 bytes, looks 8·numel."""
    x = TENSORS[0]
    parts = Record(0, 0, 0, (160,), stats_of(x), x, rank_numels=(100, 60))
    (summary,), _ = run([parts], settings("current"), COUNTS)
    assert (summary.replayed, summary.looks) == (1, 1)
    assert summary.static_bytes == (180 + 120) / 2
    assert summary.traffic_bytes == (180 + 800 + 120 + 480) / 2


def test_all_records_are_counted_whatever_the_calibration():
    records = [record(x, t) for t, x in enumerate(TENSORS)]
    for calibrate in (0, 2, 9):
        (summary,), _ = run(records, settings("current", calibrate=calibrate))
        assert (summary.records, summary.replayed) == (6, max(6 - calibrate, 0))


@pytest.mark.parametrize(("kind", "counts"), [("input", COUNTS), ("output", None)])
def test_no_bill_is_missing_not_zero(kind, counts):
    (summary,), _ = run([record(TENSORS[0], 0)], settings("current"), counts, Site("c", kind))
    assert (summary.static_bytes, summary.traffic_bytes) == (None, None)


def test_wrong_settings():
    with pytest.raises(UsageError, match="rounding"):
        settings(rounding="up")
    with pytest.raises(UsageError, match="calibrate"):
        settings(calibrate=-1)
