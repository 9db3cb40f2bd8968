"""Replay over a site's history in array operations, against the slow driver, record by record."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quantizing import settings as settings_of

from hqtool import TraceReader, TraceWriter
from hqtool.compare.replay import replay
from hqtool.core.formats.uniform import UniformFormat
from hqtool.core.metrics import METRICS, measure
from hqtool.core.observation import values_of
from hqtool.core.recorded import RecordedObservation
from hqtool.core.stats import stats_of
from hqtool.estimators.chunks import ChunkMeans
from hqtool.estimators.composed import Composed
from hqtool.estimators.powers_of_two import PowerOfTwoDeviations
from hqtool.estimators.presets import ESTIMATORS
from hqtool.estimators.protocol import Plan, Reading, advance, decide, widest
from hqtool.estimators.schedule import EveryInterval, EveryStep, PreviousStep
from hqtool.estimators.search_statistics import BestClip
from hqtool.estimators.smoothing import Ema, Latest, Widest, WindowMax
from hqtool.estimators.statistics import Deviations, MaxAbs, MinMax
from hqtool.estimators.value_statistics import Percentile, Sawb
from hqtool.estimators.whole_history import SCHEDULES, SMOOTHINGS, STATISTICS, decide_all
from hqtool.registry import Choice
from hqtool.trace.history import history_of
from hqtool.trace.ranks import RanksReader
from hqtool.traffic.layers import Counts
from hqtool.vocab import Range, Record, Site

SITE = Site("conv1", "output")
COUNTS = Counts(weight=30, input=50, output=100)


@dataclass(frozen=True, slots=True)
class LastByFormat:
    """An estimator of another package: asks for the format, of some tensors, without values."""

    asks = frozenset({"extremes", "spread", "format"})

    def __call__(self, obs):
        share = obs.format.bits / 8 if obs.stats.absmax > 2 else 1.0
        return Reading(Range(-share * obs.stats.l2, share * obs.stats.l2))


@dataclass(frozen=True, slots=True)
class AfterUsed:
    """An estimator of another package: widens the range that was used; its state holds an array."""

    asks = frozenset({"extremes"})

    def start(self):
        return np.zeros(2)

    def plan(self, state):
        return Plan(Range(*state.tolist()), reads=True)

    def read(self, state, obs):
        return Reading(None, figures=(obs.stats.absmax,)) if obs.teaches else None

    def learn(self, state, reading, used=None):
        wider = 0.0 if reading is None else reading.figures[0]
        return np.array([used.lo - wider, used.hi + wider])


SMOOTHINGS_TRIED = (Latest(), Ema(0.0), Ema(0.3), Ema(1.0), WindowMax(1), WindowMax(3), Widest())
STATISTICS_TRIED = (
    MinMax(),
    MaxAbs(),
    Deviations(2.0),
    PowerOfTwoDeviations(2.0),
    BestClip("cosine", 0.1),
    Percentile(90.0),
    Sawb(3.0, 1.0),
    ChunkMeans(2),
    LastByFormat(),
)


MORE = (
    "fixed:lo=-1,hi=0.5",
    "dsgc:interval=2",
    "delayed:window=1,init=one",
    "delayed:window=2,margin=3",
    "delayed:window=3,algo=max,init=one,margin=-1",
    "delayed:window=3,algo=most_recent",
    "exponent:momentum=0.3",
    "exponent:momentum=0.6,hindsight=true",
    "wage:hindsight=true",
    "chunks:hindsight=true",
    "sakr:k=0.1",
)


def choices():
    """Every registered estimator at its defaults, and every composition of the parts there are."""
    specs = [e.usage for e in ESTIMATORS if "…" not in e.usage and e.name != "local"]
    found = [ESTIMATORS.parse(spec) for spec in [*specs, *MORE]]
    parts = [
        Composed(statistic, smoothing, schedule)
        for statistic in STATISTICS_TRIED
        for smoothing in SMOOTHINGS_TRIED
        for schedule in (EveryStep(), PreviousStep(), EveryInterval(3))
    ]
    more = [Choice("used", "used", {}, AfterUsed())]
    return found + more + [Choice(f"{i}", "composed", {}, each) for i, each in enumerate(parts)]


CHOICES = choices()


def slow(records, settings):
    """Rows and summaries, one estimator and one format after the other, a record at a time."""
    return [
        slow_lane(records, each.estimator, each.format.value, settings)
        for each in settings.quantizers
    ]


def slow_lane(records, choice, format_, settings):
    state, rows, counted = choice.value.start(), [], []
    for number, (_, step) in enumerate(groupby(records, key=lambda record: record.step)):
        readings, used = [], []
        for record in step:
            values = values_of(record)
            obs = RecordedObservation(record.stats, format_, values, (), record.step, record.shape)
            decision, reading = decide(choice.value, state, obs)
            readings.append(reading)
            used += [] if decision.range is None else [decision.range]
            if number >= settings.calibrate:
                counted.append((decision, record))
                if values is not None:
                    rows.append((record, decision, scored(values, decision, format_)))
        state = advance(choice.value, state, readings, widest(used))
    return rows, counted


def scored(values, decision, format_):
    told = None if math.isnan(values.nonfinite) else values.nonfinite
    if decision.range is None:
        return dict.fromkeys(METRICS) | {"nonfinite": told}
    found = measure(values.moments([decision.range], [format_]))
    return {name: None if np.isnan(f[0]) else f[0].item() for name, f in found.items()}


def is_scored(figures):
    """Something but the share of non-finite values is known."""
    return any(f is not None for name, f in figures.items() if name != "nonfinite")


def mean(figures):
    known = [f for f in figures if f is not None]
    return sum(known) / len(known) if known else None


def check(records, settings, history=None):
    """Every row and every figure of every summary is the slow driver's, to the last bit."""
    rows = []
    summaries = replay(SITE, history or history_of(records), settings, COUNTS, rows.append)
    lanes = slow(records, settings)
    assert len(lanes) == len(summaries)
    for number, ((slow_rows, counted), summary) in enumerate(zip(lanes, summaries, strict=True)):
        mine = rows[number :: len(lanes)]
        assert [
            (r.step, r.micro, r.call, r.lo, r.hi, r.looked, signs(r.lo, r.hi), r.metrics)
            for r in mine
        ] == [
            (
                record.step, record.micro, record.call, *(d.range or (None, None)), d.looked,
                signs(*(d.range or (None, None))), figures,
            )
            for record, d, figures in slow_rows
        ]  # fmt: skip
        assert summary.steps == sum(is_scored(figures) for *_, figures in slow_rows)
        assert summary.steps + summary.unscored == len(slow_rows)
        assert summary.metrics == {n: mean([f[n] for *_, f in slow_rows]) for n in METRICS}
        assert (summary.records, summary.replayed) == (len(records), len(counted))
        assert summary.looks == sum(d.looked for d, _ in counted)
        assert summary.evaluations == sum(d.evaluations for d, _ in counted)
        assert summary.postponed == sum(d.postponed for d, _ in counted)
        assert summary.all_zero == sum(record.stats.absmax == 0 for _, record in counted)
        passes = sum((2 + d.evaluations) * record.numel for d, record in counted if d.looked)
        if counted:
            moved = (summary.traffic_bytes - summary.static_bytes) * sum(
                len(record.device_numels) for _, record in counted
            )
            assert moved == pytest.approx(4 * passes, abs=1e-6)


def signs(*ends):
    return [None if end is None else math.copysign(1, end) for end in ends]


NUMBERS = st.one_of(
    st.sampled_from([0.0, -0.0, math.nan, math.inf, 5e-324, 1e30]), st.floats(-4, 4, width=32)
)
TENSORS = st.lists(NUMBERS, min_size=1, max_size=5)
STEPS = st.lists(
    st.lists(st.tuples(TENSORS, st.booleans(), st.integers(0, 1)), min_size=1, max_size=3),
    min_size=1,
    max_size=9,
)


def records_of(steps, stride=1):
    """Steps of (tensor, whether its values are kept, micro-batch or call)."""
    return [
        Record(
            step=stride * number,
            micro=index if as_micro else 0,
            call=index,
            shape=(len(tensor),),
            stats=stats_of(np.array(tensor)),
            values=np.array(tensor) if kept else None,
        )
        for number, step in enumerate(steps)
        for index, (tensor, kept, as_micro) in enumerate(step)
    ]


@given(
    STEPS,
    st.lists(st.sampled_from(CHOICES), min_size=1, max_size=6, unique_by=lambda c: c.label),
    st.sampled_from(["int8", "int8,int3", "int2,int4,int8", "int8,int4-symmetric"]),
    st.integers(0, 3),
)
def test_any_history_is_replayed_as_record_by_record(steps, some, formats, calibrate):
    settings = settings_of(*some, formats=formats, calibrate=calibrate)
    check(records_of(steps, stride=7), settings)


def test_every_estimator_over_a_long_history():
    """Of 30 steps with up to three records: values now and then, zeros, NaN, scales that drift."""
    rng = np.random.default_rng(3)
    steps = []
    for number in range(30):
        tensors = [rng.laplace(size=6) * 1.1**number for _ in range(rng.integers(1, 4))]
        for index in np.flatnonzero(rng.random(len(tensors)) < 0.2):
            tensors[index] = np.full(3, rng.choice([0.0, math.nan]))
        steps.append([(list(x), rng.random() < 0.4, 1) for x in tensors])
    records = records_of(steps)
    check(records, settings_of(*CHOICES, formats="int3,int8"))


def test_which_estimators_decide_all_records_at_once():
    """The estimators that are promised to be quick are; each formula there is belongs to one."""
    records = records_of([[([1.0], True, 0)]])
    history = history_of(records)
    quick = {
        entry.name
        for entry in ESTIMATORS
        if "…" not in entry.usage
        and decide_all(
            ESTIMATORS.parse(entry.name).value, history.stats, history.starts, UniformFormat(8)
        )
    }
    assert quick >= {"current", "running", "hindsight", "maxabs", "std", "delayed"}
    assert "dsgc" not in quick
    values = [choice.value for choice in CHOICES if isinstance(choice.value, Composed)]
    assert {type(v.statistic) for v in values} >= STATISTICS
    assert {type(v.smoothing) for v in values} >= set(SMOOTHINGS)
    assert {type(v.schedule) for v in values} >= set(SCHEDULES)


def test_a_type_derived_from_a_known_one_is_not_mistaken_for_it():
    class Slower(Ema):
        def __call__(self, memory, new):
            return super().__call__(memory, Range(2 * new.lo, 2 * new.hi))

    steps = [[([1.0, -t], True, 0)] for t in range(4)]
    mine = Choice("mine", "mine", {}, Composed(MinMax(), Slower(0.5), PreviousStep()))
    check(records_of(steps), settings_of(mine))


# --- histories as traces give them --------------------------------------------------------------


def same(history, records):
    """A history says the same as the records of its reader."""
    assert len(history) == len(records)
    assert history.steps.tolist() == [r.step for r in records]
    assert history.numels.tolist() == [list(r.device_numels) for r in records]
    assert history.has_values.tolist() == [r.values is not None for r in records]
    for index, record in enumerate(records):
        assert repr(history.stats_at(index)) == repr(record.stats)
        read = history.record(index)
        assert (read.step, read.micro, read.call) == (record.step, record.micro, record.call)
        assert np.array_equal(read.values, record.values) if record.values is not None else True


@pytest.fixture
def traces(tmp_path):
    """Two ranks of one run: micro-batches out of order, loss scales, values of every other step."""
    rng = np.random.default_rng(5)
    paths = [tmp_path / f"run.rank{rank}.h5" for rank in range(2)]
    for rank, path in enumerate(paths):
        with TraceWriter(path) as writer:
            writer.note("rank", rank)
            writer.note("world_size", 2)
            for step in range(6):
                for layer, micro in (("a", 1), ("b", 0), ("a", 0)):
                    x = rng.standard_normal((2 + rank, 3)).astype("f4")
                    writer.write(
                        layer, "output", step, x if step % 2 else None, micro=micro,
                        stats=stats_of(x), shape=x.shape, loss_scale=2.0**step,
                    )  # fmt: skip
                writer.commit(step)
    return paths


@pytest.mark.parametrize("scaled", [False, True])
def test_a_traces_history_is_that_of_its_records(traces, scaled):
    with TraceReader(traces[0]) as reader:
        for site in reader.sites:
            records = list(reader.records(site, scaled=scaled))
            same(reader.history(site, scaled=scaled), records)
            check(records, settings_of(CHOICES[2]), reader.history(site, scaled=scaled))


@pytest.mark.parametrize("scaled", [False, True])
def test_the_history_of_ranks_is_that_of_their_joint_records(traces, scaled):
    with RanksReader(traces) as reader:
        for site in reader.sites:
            same(reader.history(site, scaled=scaled), list(reader.records(site, scaled=scaled)))


def test_a_trace_of_more_rows_than_are_sorted_at_a_time(traces, monkeypatch):
    """Sites are sorted in groups; a site that has more rows than a group is one of its own."""
    with TraceReader(traces[0]) as reader:
        whole = {site: [r.micro for r in reader.records(site)] for site in reader.sites}
    for rows in (1, 7, 12, 18):
        monkeypatch.setattr("hqtool.trace.reader.SORTED_ROWS", rows)
        monkeypatch.setattr("hqtool.trace.reader.BLOCK_ROWS", 5)
        with TraceReader(traces[0]) as reader:
            for site in [*reader.sites, *reversed(reader.sites)]:
                assert [r.micro for r in reader.records(site)] == whole[site]
