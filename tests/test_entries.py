"""Ranges of channels, samples and rows: against a loop that quantizes each entry alone."""

from __future__ import annotations

import itertools
import math

import numpy as np
import oracle
import pytest

from hqtool.core.entry_ranges import filled
from hqtool.core.formats.named import FORMATS as FORMATS_BY_NAME
from hqtool.core.formats.uniform import UniformFormat
from hqtool.core.metrics import measure
from hqtool.core.moments.batch import moments_of_each
from hqtool.core.observation import values_of
from hqtool.core.recorded import RecordedObservation
from hqtool.core.samples import places_of
from hqtool.core.stats import stats_of
from hqtool.estimators.presets import ESTIMATORS
from hqtool.estimators.protocol import advance, decide
from hqtool.vocab import EntryRanges, Look, Range, Record, SampleLayout

RNG = np.random.default_rng(5)
INT8 = UniformFormat(8)
FORMATS = [INT8, UniformFormat(4, "symmetric")]
PER = ("channel", "sample", "row")


def record(values, step=0, **how) -> Record:
    return Record(step, 0, 0, values.shape, stats_of(values), values, **how)


def entry_of(place, shape, per, axis):
    """Which entry the value at an index belongs to, as DESIGN has it."""
    if per == "channel":
        return place[axis]
    if per == "sample":
        return place[0]
    others = [i for i in range(len(shape)) if i != axis]
    return int(
        np.ravel_multi_index([place[i] for i in others], [shape[i] for i in others])
        if others
        else 0
    )


def by_entry(values, per, axis):
    """The values of each entry, in a dict."""
    found = {}
    for place in itertools.product(*map(range, values.shape)):
        found.setdefault(entry_of(place, values.shape, per, axis), []).append(float(values[place]))
    return found


def oracle_metrics(values, ranges, per, axis, bits, scheme, rounding):
    """Sums over entries, each quantized by plain floats alone; the metrics of these sums."""
    rows = []
    for entry, members in by_entry(values, per, axis).items():
        step, first, last = oracle.grid(*ranges[entry], bits, scheme)
        finite = [v for v in members if math.isfinite(v)]
        rows += [(v, oracle.ROUNDINGS[rounding](v, step, first, last)) for v in finite]
    err, qq, xq, saturated, underflowed = (math.fsum(r[i] for _, r in rows) for i in range(5))
    xx, n = math.fsum(v * v for v, _ in rows), len(rows)
    nonzero = sum(v != 0 for v, _ in rows)
    return {
        "mse": err / n,
        "sqnr_db": 10 * math.log10(xx / err),
        "cosine": xq / math.sqrt(xx * qq),
        "norm_ratio": math.sqrt(qq / xx),
        "gain": xq / xx,
        "saturation": saturated / n,
        "underflow": underflowed / nonzero,
        "nonfinite": (values.size - n) / values.size,
        "noise": err / xx,
    }


#: The levels of e4m3 as the OCP specification has them: 15 steps of 8, the last code left out.
SUBNORMALS = [m / 8 * 2**-6 for m in range(8)]
NORMALS = [(1 + m / 8) * 2 ** (e - 7) for e in range(1, 16) for m in range(8)][:-1]


def e4m3(v, lo, hi):
    """(error², q², xq, saturated, underflowed) of the nearest level, an even one of two as near."""
    levels = SUBNORMALS + NORMALS
    scale = max(abs(lo), abs(hi)) / levels[-1]
    if scale == 0:
        return v * v, 0.0, 0.0, v != 0, v != 0
    y = abs(v) / scale
    best = min(range(len(levels)), key=lambda i: (abs(levels[i] - y), i % 2))
    q = math.copysign(levels[best] * scale, v)
    beyond = y > levels[-1] + (0.5 + 1e-6) * (levels[-1] - levels[-2])
    return (v - q) ** 2, q * q, v * q, beyond, q == 0 and v != 0


@pytest.mark.parametrize("per", PER)
def test_every_figure_of_a_floating_point_format_is_that_of_the_loop(per):
    for values, axis in tensors():
        prepared = values_of(record(values))
        found_ranges = prepared.entries.extremes(per)
        found = prepared.moments([found_ranges], [FORMATS_BY_NAME.parse("e4m3").value])
        known = filled(found_ranges, len(found_ranges))
        rows = [
            e4m3(v, known.lo[entry], known.hi[entry])
            for entry, members in by_entry(values, per, axis).items()
            for v in members
            if math.isfinite(v)
        ]
        sums = [math.fsum(each) for each in zip(*rows, strict=True)]
        names = ("err", "qq", "xq", "saturated", "underflowed")
        assert [getattr(found, name)[0] for name in names] == pytest.approx(sums, rel=1e-9)


def figures(moments):
    with np.errstate(all="ignore"):
        return {name: np.ravel(found).tolist() for name, found in measure(moments).items()}


def tensors():
    """Shape, channel axis, values: activations of convolutions and of linear layers."""
    image = RNG.standard_normal((3, 4, 2, 3)) * np.array([1, 10, 0, 0.01]).reshape(1, 4, 1, 1)
    tokens = RNG.standard_normal((2, 3, 5)) * RNG.uniform(0.1, 9, (2, 3, 1))
    spoilt = RNG.standard_normal((4, 6))
    spoilt[0, 0], spoilt[2, 1], spoilt[:, 5] = math.nan, math.inf, math.nan
    return [
        (image.astype("f4"), 1),
        (tokens.astype("f4"), 2),
        (spoilt, 1),
        (RNG.standard_normal((1, 7)), 1),
        (RNG.standard_normal(9).astype("f4"), 0),
    ]


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("per", PER)
@pytest.mark.parametrize("format_", FORMATS, ids=str)
def test_every_figure_is_that_of_the_loop(format_, per, rounding):
    for values, axis in tensors():
        prepared = values_of(record(values))
        count = prepared.entries.count(per)
        lo, hi = -RNG.uniform(0, 2, count), RNG.uniform(0, 2, count)
        found = figures(prepared.moments([EntryRanges(per, lo, hi)], [format_], rounding))
        pairs = list(zip(lo, hi, strict=True))
        wanted = oracle_metrics(values, pairs, per, axis, format_.bits, format_.scheme, rounding)
        assert {name: [f] for name, f in wanted.items()} == pytest.approx(
            {name: pytest.approx(f, rel=1e-9) for name, f in found.items()}
        )


@pytest.mark.parametrize("per", PER)
def test_extremes_and_spread_are_those_of_the_loop(per):
    for values, axis in tensors():
        entries = values_of(record(values)).entries
        found, spread = entries.extremes(per), entries.spread(per)
        members = by_entry(values, per, axis)
        assert len(found) == len(spread) == len(members)
        for entry, all_ in members.items():
            finite = [v for v in all_ if math.isfinite(v)]
            ends = (min(finite) + 0.0, max(finite) + 0.0) if finite else (math.nan, math.nan)
            np.testing.assert_equal((found.lo[entry], found.hi[entry]), ends)
            std = np.std(finite) if finite else math.nan
            np.testing.assert_allclose(spread[entry], std, rtol=1e-9, atol=1e-12)


def test_one_range_for_all_entries_is_the_range_of_the_tensor():
    for values, _ in tensors():
        prepared = values_of(record(values))
        lanes = [
            Range(-1.0, 2.0),
            *(EntryRanges(p, np.full(1, -1.0), np.full(1, 2.0)) for p in PER),
        ]
        found = prepared.moments(lanes, [INT8] * 4)
        for name, figure in figures(found).items():
            assert figure == pytest.approx([figure[0]] * len(figure), rel=1e-12), name


def test_lanes_of_all_kinds_are_scored_side_by_side():
    records = [record(RNG.standard_normal((3, n)).astype("f4")) for n in (4, 4, 6)]
    prepared = [values_of(each) for each in records]
    ranges = [
        [Range(-1.0, 1.0), each.entries.extremes("channel"), Range(-2.0, 1.0)] for each in prepared
    ]
    formats = [INT8, UniformFormat(4, "symmetric"), INT8]
    found = moments_of_each(prepared, ranges, formats)
    for i, each in enumerate(prepared):
        alone = [each.moments([r], [f]) for r, f in zip(ranges[i], formats, strict=True)]
        for lane, one in enumerate(alone):
            assert found.err[i, lane] == one.err[0]
            assert np.broadcast_to(found.xx, found.err.shape)[i, lane] == one.xx


def test_one_draw_serves_all_lanes():
    values = RNG.standard_normal((30, 8))
    values[0, 0] = math.nan
    prepared, same = values_of(record(values)), EntryRanges("channel", *np.array([[-1.0], [1.0]]))
    lanes = [Range(-1.0, 1.0), same, same]
    found = prepared.moments(lanes, [INT8] * 3, "stochastic-sampled", np.random.default_rng(1))
    assert found.err.tolist() == pytest.approx([found.err[0]] * 3, rel=1e-12)


def test_without_axes_nothing_can_be_said_of_entries():
    bare = Record(0, 0, 0, (4, 100), stats_of(np.ones(400)), np.ones(20), sampled=True)
    prepared = values_of(bare)
    found = prepared.moments([Range(0, 1), EntryRanges("row", np.zeros(4), np.ones(4))], [INT8] * 2)
    assert np.isnan(figures(found)["mse"]).tolist() == [False, True]


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0,)])
@pytest.mark.parametrize("per", PER)
def test_empty_tensors(shape, per):
    prepared = values_of(record(np.zeros(shape, "f4")))
    found = prepared.entries.extremes(per)
    assert found.widest is None
    assert np.isnan(figures(prepared.moments([found], [INT8]))["mse"]).all()


# --- weights ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("axis", "output"), [(0, 0), (1, 1)])
def test_channels_of_weights_are_the_output_channels(axis, output):
    weight = RNG.standard_normal((4, 3, 2, 2)).astype("f4")
    found = values_of(record(weight), -3, output).entries.extremes("channel")
    others = tuple({0, 1, 2, 3} - {axis})
    np.testing.assert_array_equal(found.lo, weight.min(others))
    np.testing.assert_array_equal(found.hi, weight.max(others))


def test_rows_of_a_linear_weight_are_its_output_channels():
    weight = RNG.standard_normal((5, 7)).astype("f4")
    entries = values_of(record(weight), -1, 0).entries
    np.testing.assert_array_equal(entries.extremes("row").hi, weight.max(1))
    np.testing.assert_array_equal(entries.extremes("channel").hi, weight.max(1))


# --- samples ------------------------------------------------------------------------------------


def sample(values, axis, kept):
    """Some whole fibres of a tensor, and its largest value."""
    length, stride = values.shape[axis], math.prod(values.shape[axis + 1 :])
    flat = values.reshape(-1)
    top = np.array([int(flat.argmax())])
    layout = SampleLayout(np.array(kept), length, stride, flat[top], top)
    return Record(
        0, 0, 0, values.shape, stats_of(values), flat[places_of(layout)], True, layout=layout
    )


def test_a_sample_is_scored_by_its_fibres():
    values = RNG.standard_normal((4, 3, 10)).astype("f4")
    kept = [0, 3, 17, 39]
    rows = np.moveaxis(values, 1, -1).reshape(-1, 3)[kept]
    prepared = values_of(sample(values, 1, kept), -2)
    for per in PER:
        count = prepared.entries.count(per)
        ranges = EntryRanges(per, -np.arange(1.0, count + 1), np.arange(1.0, count + 1))
        found = prepared.moments([ranges], [INT8])
        owner = {
            "channel": np.arange(3) + 0 * rows.astype(int),
            "sample": np.array(kept)[:, None] // 10 + 0 * rows.astype(int),
            "row": np.array(kept)[:, None] + 0 * rows.astype(int),
        }[per]
        err = 0.0
        for entry in np.unique(owner):
            step = 2.0 * (entry + 1) / 255
            zero = np.rint((entry + 1) / step)
            code = np.clip(np.rint(rows[owner == entry].astype(float) / step) + zero, 0, 255)
            err += ((rows[owner == entry] - (code - zero) * step) ** 2).sum()
        assert found.err[0] == pytest.approx(10 * err, rel=1e-9)
        assert float(np.ravel(found.count)[0]) == pytest.approx(120)


def test_extremes_of_a_sample_are_joined_with_those_known():
    values = RNG.standard_normal((4, 3, 10)).astype("f4")
    values[2, 1, 5] = 50
    entries = values_of(sample(values, 1, [0, 3]), -2).entries
    assert entries.extremes("channel").hi[1] == 50
    assert entries.extremes("sample").hi[2] == 50
    assert np.isnan(entries.extremes("sample").hi[[1, 3]]).all()
    rows = entries.extremes("row")
    assert np.flatnonzero(~np.isnan(rows.hi)).tolist() == [0, 3]


def test_rows_that_were_cut_are_unknown():
    values = RNG.standard_normal((4, 6)).astype("f4")
    layout = SampleLayout(np.array([0, 5]), 3, 1, values.reshape(-1)[:0], np.empty(0, np.int64))
    flat = values.reshape(-1)[places_of(layout)]
    cut = Record(0, 0, 0, (4, 6), stats_of(values), flat, True, layout=layout)
    entries = values_of(cut, -1).entries
    assert entries.extremes("row") is None
    assert entries.extremes("channel").hi[0] == flat[0]


# --- estimators ---------------------------------------------------------------------------------


def observed(values, **how) -> RecordedObservation:
    prepared = values_of(record(values))
    return RecordedObservation(stats_of(values), INT8, prepared, shape=values.shape, **how)


def run(spec, steps):
    """The decision at each of some tensors, a step each."""
    estimator = ESTIMATORS.parse(spec).value
    state, found = estimator.start(), []
    for values in steps:
        decision, reading = decide(estimator, state, observed(np.array(values, float)))
        state = advance(estimator, state, [reading], decision.range)
        found.append(decision)
    return found


def pairs(ranges: EntryRanges):
    return [(float(lo), float(hi)) for lo, hi in zip(ranges.lo, ranges.hi, strict=True)]


def test_hindsight_of_each_channel_by_hand():
    steps = [[[-4, 1], [8, 2]], [[-8, 0], [0, 4]], [[0, 0], [0, 0]], [[1, 1], [1, 1]]]
    found = run("hindsight:momentum=0.5,per=channel", steps)
    assert [pairs(each.range) for each in found] == [
        [(-4, 8), (1, 2)],
        [(-4, 8), (1, 2)],
        [(-6, 4), (0.5, 3)],
        [(-6, 4), (0.5, 3)],
    ]
    assert [each.look for each in found] == [Look("channel", 4), None, None, None]


def test_running_of_each_sample_by_hand():
    found = run("running:momentum=0.75,per=sample", [[[-4, 8], [1, 2]], [[0, 4], [5, 6]]])
    assert pairs(found[1].range) == [(-3, 7), (2, 3)]
    assert [each.look for each in found] == [Look("sample", 2)] * 2


def test_an_all_zero_channel_teaches_nothing():
    found = run("hindsight:momentum=0.5,per=channel", [[[4, 0]], [[2, 0]], [[2, 6]], [[2, 2]]])
    assert pairs(found[0].range) == [(4, 4), (0, 0)]
    unknown = found[1].range  # nothing is known of the second: the widest of the others holds
    assert pairs(filled(unknown, 2)) == [(4, 4), (4, 4)]
    assert pairs(found[3].range) == [(2.5, 2.5), (6, 6)]


def test_a_smaller_last_batch():
    found = run("hindsight:momentum=0.5,per=sample",
                [[[-1, 1], [-2, 8]], [[-4, 4]], [[-1, 1], [-1, 1]]])  # fmt: skip
    assert pairs(filled(found[1].range, 1)) == [(-2, 8)]  # the widest ends of the two
    assert pairs(found[2].range) == [(-3, 6)]
    assert pairs(filled(found[2].range, 2)) == [(-3, 6), (-3, 6)]


@pytest.mark.parametrize("name", ["current", "running", "maxabs", "std", "hindsight"])
@pytest.mark.parametrize("per", PER)
def test_every_entry_decides_as_a_tensor_of_its_own(name, per):
    steps = [RNG.standard_normal((3, 4)) * RNG.uniform(0.1, 10, (3, 1)) for _ in range(5)]
    together = run(f"{name}:per={per}", steps)
    for entry in range(4 if per == "channel" else 3):
        own = [x[:, [entry]] if per == "channel" else x[[entry]] for x in steps]
        for decision, alone in zip(together, run(name, own), strict=True):
            assert pairs(decision.range)[entry] == pytest.approx(alone.range, rel=1e-12)
            assert decision.looked == alone.looked


def test_micro_batches_are_joined_entry_by_entry():
    estimator = ESTIMATORS.parse("hindsight:per=channel").value
    state = estimator.start()
    batches = [np.array([[1.0, -2.0]]), np.array([[-3.0, 5.0]])]
    readings = [decide(estimator, state, observed(x))[1] for x in batches]
    state = advance(estimator, state, readings)
    assert pairs(estimator.plan(state).range) == [(-3, 1), (-2, 5)]


def test_statistics_alone_tell_nothing_of_channels_but_recorded_extremes_do():
    estimator = ESTIMATORS.parse("hindsight:per=channel").value
    x = np.array([[1.0, -2.0], [0.5, 7.0]])
    bare = RecordedObservation(stats_of(x), INT8, shape=x.shape)
    decision, reading = decide(estimator, estimator.start(), bare)
    assert (decision.postponed, decision.range, reading) == (True, None, None)
    known = np.array([[0.5, -2.0], [1.0, 7.0]])
    told = RecordedObservation(stats_of(x), INT8, shape=x.shape, channel_extremes=known)
    decision, _ = decide(estimator, estimator.start(), told)
    assert pairs(decision.range) == [(0.5, 1), (-2, 7)]


def test_a_wrong_granularity_names_the_right_ones():
    with pytest.raises(Exception, match="per=block should be tensor or channel or sample or row"):
        ESTIMATORS.parse("current:per=block")
