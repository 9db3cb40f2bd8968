"""Samples with a layout: what their values stand for, and how a trace holds them."""

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hqtool.core.formats.lanes import levels_of
from hqtool.core.formats.uniform import UniformFormat
from hqtool.core.metrics import measure
from hqtool.core.moments.dense import dense_moments
from hqtool.core.observation import values_of
from hqtool.core.recorded import RecordedObservation
from hqtool.core.samples import by_place, is_extreme, places_of
from hqtool.core.stats import stats_of
from hqtool.errors import DataError
from hqtool.trace.ranks import joint
from hqtool.trace.raw import RawTrace
from hqtool.trace.reader import TraceReader
from hqtool.trace.repair import repair
from hqtool.trace.schema import FIBRES, UNIFORM, Row
from hqtool.trace.writer import TraceWriter
from hqtool.vocab import Moments, Range, Record, SampleLayout, Site

RNG = np.random.default_rng(0)
SITE = Site("layer", "output")


def heavy_tailed(shape: tuple[int, ...] = (16, 8, 6, 6)) -> NDArray[np.float64]:
    return RNG.standard_t(2.5, shape)


def sampled(x: NDArray[Any], fibres: Any, axis: int = 1, ends: int = 20) -> Record:
    """The obvious way: whole fibres of x, and its `ends` largest and smallest finite values."""
    fibres, flat = np.asarray(fibres), x.reshape(-1)
    values = np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis])[fibres].reshape(-1)
    finite = np.flatnonzero(np.isfinite(flat))
    order = finite[np.argsort(flat[finite], kind="stable")]
    places = np.concatenate([order[:ends], order[len(order) - ends :]])
    stride = int(np.prod(x.shape[axis + 1 :]))
    layout = SampleLayout(fibres, x.shape[axis], stride, flat[places], places)
    return Record(3, 1, 2, x.shape, stats_of(x), values, sampled=True, layout=layout)


#: A range and a format for each lane.
Lanes = tuple[list[Range], list[UniformFormat]]


def some_lanes(x: NDArray[Any]) -> Lanes:
    stats = stats_of(x)
    ranges = [Range(stats.min * part, stats.max * part) for part in (1.0, 0.4, 0.05, 0.0)]
    formats = [UniformFormat(bits) for bits in (2, 4, 8)]
    return [r for r in ranges for _ in formats], [f for _ in ranges for f in formats]


def moments_of(record: Record, lanes: Lanes, rounding: str) -> Moments:
    values = values_of(record)
    assert values is not None
    noise = np.random.default_rng(1) if rounding == "stochastic-sampled" else None
    return values.moments(*lanes, rounding, noise)


def assert_same(found: Moments, expected: Moments, rel: float = 1e-9) -> None:
    for name in Moments.__slots__:
        a, b = getattr(found, name), getattr(expected, name)
        np.testing.assert_allclose(a, b, rtol=rel, atol=1e-9 * expected.xx, err_msg=name)


# --- places -------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_places_are_those_of_the_values(axis: int) -> None:
    x = np.arange(4.0 * 3 * 5 * 2).reshape(4, 3, 5, 2)
    fibres = np.sort(RNG.choice(x.size // x.shape[axis], 7, replace=False))
    record = sampled(x, fibres, axis)
    assert record.layout is not None
    assert record.values is not None
    assert places_of(record.layout).tolist() == record.values.tolist()
    values, layout = by_place(record.values, record.layout)
    assert values.tolist() == sorted(record.values) == places_of(layout).tolist()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1000), axis=st.integers(0, 2), fibres=st.integers(0, 10))
def test_extremes_among_the_values_are_found(seed: int, axis: int, fibres: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((4, 5, 6))
    total = x.size // x.shape[axis]
    record = sampled(x, np.sort(rng.choice(total, fibres, replace=False)), axis)
    assert record.layout is not None
    expected = np.isin(places_of(record.layout), record.layout.extreme_places)
    assert is_extreme(record.layout).tolist() == expected.tolist()


# --- moments ------------------------------------------------------------------------------------

roundings = pytest.mark.parametrize("rounding", ["nearest", "stochastic", "stochastic-sampled"])


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_a_sample_of_everything_is_the_tensor(rounding: str) -> None:
    x = heavy_tailed()
    lanes = some_lanes(x)
    found = moments_of(sampled(x, np.arange(x.size // 8)), lanes, rounding)
    assert_same(found, dense_moments(x.reshape(-1), levels_of(*lanes), rounding))


@roundings
def test_extremes_count_once_and_the_rest_for_what_is_left(rounding: str) -> None:
    x = heavy_tailed()
    x[3, 2, 1] = [np.nan, np.inf, -np.inf, 0.0, 0.0, 0.0]
    record = sampled(x, np.sort(RNG.choice(x.size // 8, 40, replace=False)))
    assert record.layout is not None
    assert record.values is not None
    places, known = places_of(record.layout), record.layout.extreme_places
    rest = np.array([x.reshape(-1)[p] for p in places if p not in set(known.tolist())])
    rest = rest[np.isfinite(rest)]
    lanes, noise = some_lanes(x), np.random.default_rng(1)
    u = [noise.random(rest.size), noise.random(40)] if "sampled" in rounding else [None, None]
    drawn = dense_moments(rest, levels_of(*lanes), rounding, u[0])
    exact = dense_moments(record.layout.extremes, levels_of(*lanes), rounding, u[1])
    weight = (x.size - 3 - 40) / rest.size
    found = moments_of(record, lanes, rounding)
    assert found.count == pytest.approx(x.size - 3)
    for name in Moments.__slots__[:8]:
        expected = getattr(exact, name) + weight * getattr(drawn, name)
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-9, atol=1e-9 * found.xx)


def test_the_estimate_is_right_on_average() -> None:
    """Over all choices of one fibre each moment is that of the tensor."""
    x = heavy_tailed((4, 8, 3, 3))
    lanes = some_lanes(x)
    every = [moments_of(sampled(x, [f], ends=0), lanes, "nearest") for f in range(36)]
    means = {name: sum(getattr(m, name) for m in every) / 36 for name in Moments.__slots__}
    assert_same(Moments(**means), dense_moments(x.reshape(-1), levels_of(*lanes), "nearest"))


def test_the_bias_is_gone() -> None:
    """Of heavy tails a uniform sample lacks the extremes, for which a range is wide."""
    x = heavy_tailed((64, 16, 8, 8))
    stats = stats_of(x)
    lanes = [Range(stats.min, stats.max)] * 2, [UniformFormat(4), UniformFormat(8)]
    true = measure(dense_moments(x.reshape(-1), levels_of(*lanes), "nearest"))["sqnr_db"]
    errors, errors_uniform = [], []
    for seed in range(20):
        chosen = np.sort(np.random.default_rng(seed).choice(4096, 96, replace=False))
        record = sampled(x, chosen, ends=256)
        uniform = dataclasses.replace(record, layout=None)
        for each, kept in ((errors, record), (errors_uniform, uniform)):
            each.append(measure(moments_of(kept, lanes, "nearest"))["sqnr_db"] - true)
    rms, rms_uniform = (np.sqrt(np.mean(np.square(e))) for e in (errors, errors_uniform))
    assert rms < 0.3 < 1.0 < rms_uniform


def test_searches_see_the_same_moments() -> None:
    x = heavy_tailed()
    record = sampled(x, np.arange(0, x.size // 8, 9))
    wanted = [Range(-1.0, 2.0), Range(-5.0, 5.0)]
    observed = RecordedObservation(record.stats, UniformFormat(4), values_of(record)).moments(
        wanted
    )
    assert observed is not None
    assert_same(observed, moments_of(record, (wanted, [UniformFormat(4)] * 2), "nearest"), 0)


# --- in a trace ---------------------------------------------------------------------------------


def written(path: Path, records: list[Record], dtype: str | None = None, **options: Any) -> Path:
    with TraceWriter(path) as writer:
        for r in records:
            where = (SITE.layer, SITE.tensor, r.step, r.values, r.micro, r.call)
            how: dict[str, Any] = {"stats": r.stats, "shape": r.shape, "dtype": dtype}
            writer.write(*where, sampled=r.sampled, layout=r.layout, **how, **options)
        writer.commit(3)
    return path


def read_back(path: Path) -> Record:
    with TraceReader(path) as reader:
        (record,) = reader.records(SITE)
    return record


def assert_same_sample(found: Record, expected: Record) -> None:
    assert found.layout is not None
    assert expected.layout is not None
    assert found.sampled
    assert found.values is not None
    np.testing.assert_array_equal(found.values, expected.values)
    assert (found.layout.length, found.layout.stride) == (
        expected.layout.length,
        expected.layout.stride,
    )
    for name in ("fibres", "extremes", "extreme_places"):
        np.testing.assert_array_equal(getattr(found.layout, name), getattr(expected.layout, name))


def as_type(record: Record, dtype: str) -> Record:
    assert record.layout is not None
    assert record.values is not None
    layout = dataclasses.replace(record.layout, extremes=record.layout.extremes.astype(dtype))
    return dataclasses.replace(record, values=record.values.astype(dtype), layout=layout)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "t.h5"


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_layout_is_read_as_it_was_written(path: Path, dtype: str) -> None:
    record = as_type(sampled(heavy_tailed(), [1, 5, 70]), dtype)
    found = read_back(written(path, [record]))
    assert_same_sample(found, record)
    assert found.layout is not None
    assert found.layout.extremes.dtype == dtype


def test_a_layout_of_bfloat16(path: Path) -> None:
    record = as_type(sampled(heavy_tailed(), [1, 5, 70]), "float32")
    assert record.layout is not None
    assert record.values is not None
    upper = [
        (a.view(np.uint32) >> 16).astype(np.uint16) for a in (record.values, record.layout.extremes)
    ]
    bits = dataclasses.replace(
        record, values=upper[0], layout=dataclasses.replace(record.layout, extremes=upper[1])
    )
    found = read_back(written(path, [bits], dtype="bfloat16"))
    assert found.layout is not None
    for part, expected in zip((found.values, found.layout.extremes), upper, strict=True):
        np.testing.assert_array_equal(part, (expected.astype(np.uint32) << 16).view(np.float32))


def test_the_loss_scale_is_divided_out_of_extremes(path: Path) -> None:
    record = as_type(sampled(heavy_tailed(), [1, 5]), "float32")
    assert record.layout is not None
    found = read_back(written(path, [record], loss_scale=4.0))
    assert found.layout is not None
    np.testing.assert_array_equal(found.layout.extremes, record.layout.extremes / np.float32(4))


def test_places_in_more_than_four_billion_elements(path: Path) -> None:
    shape = (1 << 20, 1 << 13)
    layout = SampleLayout(
        np.array([0, (1 << 20) - 1]), 1 << 13, 1, np.ones(1), np.array([(1 << 33) - 1])
    )
    stats = stats_of(np.ones(1))
    record = Record(3, 1, 2, shape, stats, np.ones(1 << 14), sampled=True, layout=layout)
    assert_same_sample(read_back(written(path, [record])), record)


def test_a_reader_made_before_layouts_reads_a_uniform_sample(path: Path) -> None:
    """It takes `sampled` for a truth value, and the values for what offset, size and crc say."""
    record = sampled(heavy_tailed(), [1, 5, 70])
    written(path, [record])
    with h5py.File(path) as file:
        (row,) = file["rows"][:1]
        data = file["payload"][row["offset"] : row["offset"] + 8 * row["size"]].tobytes()
    assert (bool(row["sampled"]), row["sampled"], row["size"]) == (True, FIBRES, 24)
    assert zlib.crc32(data) == row["crc"]
    np.testing.assert_array_equal(np.frombuffer(data), record.values)


def test_an_older_trace_is_read_as_a_uniform_sample(path: Path) -> None:
    record = dataclasses.replace(sampled(heavy_tailed(), [1, 5, 70]), layout=None)
    found = read_back(written(path, [record]))
    assert (found.sampled, found.layout) == (True, None)
    np.testing.assert_array_equal(found.values, record.values)


def test_an_unknown_layout_is_refused(path: Path) -> None:
    written(path, [sampled(heavy_tailed(), [1, 5, 70])])
    with RawTrace(path) as trace:
        row = Row(*trace.items("rows", 0, 1)[0].item())
        with pytest.raises(DataError, match=r"laid out.*\nuse a newer hqtool"):
            trace.layout(row._replace(sampled=FIBRES + 1), 1, 1 << 20)
        assert trace.layout(row._replace(sampled=UNIFORM), 1, 1 << 20) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"length": 7},
        {"stride": 5},
        {"length": 0},
        {"fibres": np.array([1, 1, 70])},
        {"fibres": np.array([1, 5, 576])},
        {"fibres": np.array([-1, 5, 7])},
        {"extreme_places": np.arange(39)},
        {"extreme_places": np.arange(40) + 16 * 8 * 36 - 39},
        {"extremes": np.zeros(40, np.float32)},
    ],
    ids=str,
)
def test_no_layout_of_that_sample(path: Path, changes: dict[str, Any]) -> None:
    record = sampled(heavy_tailed(), [1, 5, 70])
    assert record.layout is not None
    wrong = dataclasses.replace(record, layout=dataclasses.replace(record.layout, **changes))
    with pytest.raises(DataError, match=r"layout|extremes"):
        written(path, [wrong])
    with TraceReader(path) as reader:
        assert reader.sites == ()


@pytest.mark.parametrize("byte", [0, 5, 9, 17, 30, 330, 400])
def test_a_damaged_layout_costs_the_values(path: Path, tmp_path: Path, byte: int) -> None:
    record = sampled(heavy_tailed(), [1, 5, 70])
    written(path, [record])
    with h5py.File(path, "r+") as file:
        file["payload"][24 * 8 + byte] ^= 0x40
    with TraceReader(path) as reader:
        assert reader.damaged_values() == 1
        with pytest.raises(DataError, match="damaged"):
            list(reader.records(SITE))
    done = repair(path, tmp_path / "clean.h5")
    assert (done.records, done.values_lost) == (1, 1)
    assert read_back(tmp_path / "clean.h5").stats == record.stats


def test_repair_keeps_layouts(path: Path, tmp_path: Path) -> None:
    record = sampled(heavy_tailed(), [1, 5, 70])
    done = repair(written(path, [record]), tmp_path / "clean.h5")
    assert not done.lost
    assert_same_sample(read_back(tmp_path / "clean.h5"), record)
    with RawTrace(path) as before, RawTrace(tmp_path / "clean.h5") as after:
        size = before.length("payload")
        assert (
            after.items("payload", 0, size).tobytes() == before.items("payload", 0, size).tobytes()
        )


# --- of several ranks ---------------------------------------------------------------------------


def assert_lies_in(found: Record, whole: NDArray[Any]) -> None:
    assert found.layout is not None
    flat = whole.reshape(-1)
    np.testing.assert_array_equal(flat[places_of(found.layout)], found.values)
    np.testing.assert_array_equal(flat[found.layout.extreme_places], found.layout.extremes)
    assert (np.diff(found.layout.fibres) > 0).all()


def test_the_samples_of_ranks_are_one() -> None:
    a, b = heavy_tailed((4, 8, 3, 3)), heavy_tailed((6, 8, 3, 3))
    found = joint([sampled(a, [1, 5, 20]), sampled(b, [0, 50])])
    assert found.shape == (10, 8, 3, 3)
    assert found.layout is not None
    assert (found.layout.length, found.layout.stride) == (8, 9)
    assert_lies_in(found, np.concatenate([a, b]))


def test_samples_of_unlike_shapes_are_joined_by_single_values() -> None:
    a, b = heavy_tailed((4, 8, 3, 3)), heavy_tailed((4, 8, 5, 5))
    found = joint([sampled(a, [1, 5, 20]), sampled(b, [0, 50])])
    assert found.shape == (a.size + b.size,)
    assert_lies_in(found, np.concatenate([a.reshape(-1), b.reshape(-1)]))


def test_of_a_rank_that_kept_everything_all_is_known() -> None:
    a, b = heavy_tailed((1, 8, 3, 3)), heavy_tailed((6, 8, 3, 3))
    whole = Record(3, 1, 2, a.shape, stats_of(a), a)
    for parts in ([whole, sampled(b, [0, 50])], [sampled(b, [0, 50]), whole]):
        found = joint(parts)
        assert found.layout is not None
        assert found.layout.extremes.size == a.size + 40
        assert_lies_in(found, np.concatenate([a, b] if parts[0] is whole else [b, a]))


def test_a_rank_without_a_layout_makes_a_uniform_sample_of_all() -> None:
    a, b = sampled(heavy_tailed(), [1, 5]), sampled(heavy_tailed(), [2, 6])
    found = joint([a, dataclasses.replace(b, layout=None)])
    assert (found.sampled, found.layout) == (True, None)
    assert a.values is not None
    assert b.values is not None
    np.testing.assert_array_equal(found.values, [*a.values, *b.values])
