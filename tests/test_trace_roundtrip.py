"""What is written into a trace is read back: bit for bit, in order, and complete."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hqtool.core.stats import stats_of
from hqtool.errors import DataError, UsageError
from hqtool.trace import reader as reader_module
from hqtool.trace import writer as writer_module
from hqtool.trace.reader import TraceReader
from hqtool.trace.schema import COMMIT, COMMIT_LAYOUT, ROW, ROW_LAYOUT, Commit, Row
from hqtool.trace.writer import TraceWriter
from hqtool.vocab import TENSOR_KINDS, Record, Site, Stats

#: Quiet and signalling NaN with a payload, infinities, signed zeros, denormals, extremes.
ODD_BITS = {
    "float16": [0x7E01, 0x7D55, 0xFE00, 0x7C00, 0xFC00, 0x8000, 0, 1, 0x83FF, 0x7BFF, 0x3C00],
    "float32": [0x7FC00001, 0x7FA00055, 0xFFC00000, 0x7F800000, 0xFF800000, 0x80000000, 0, 1],
    "float64": [0x7FF8 << 48 | 1, 0x7FF4 << 48 | 5, 0xFFF8 << 48, 0x7FF0 << 48, 1 << 63, 0, 1],
}
SHAPES = [(), (1,), (7,), (0,), (3, 0, 2), (2, 3, 4, 5), (1, 1, 1, 1, 1, 1, 1, 1, 2)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trace.h5"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Buffers and blocks so small that each is overrun."""
    sizes = {"payload": 100, "rows": 3, "journal": 40, "commits": 1}
    monkeypatch.setattr(writer_module, "BUFFER_ITEMS", sizes)
    monkeypatch.setattr(reader_module, "BLOCK_ROWS", 5)


def records_of(path: Path, layer: str, tensor: str = "output", **options: Any) -> list[Record]:
    with TraceReader(path) as reader:
        return list(reader.records(Site(layer, tensor), **options))


def write_one(path: Path, values: Any, **options: Any) -> Record:
    with TraceWriter(path, force=True) as writer:
        writer.write("layer", "output", 0, values, **options)
    (record,) = records_of(path, "layer")
    return record


def assert_same_stats(found: Stats, expected: Stats) -> None:
    np.testing.assert_array_equal(found, expected)
    assert all(type(getattr(found, name)) is int for name in ("nzero", "nnan", "ninf"))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_values_keep_shape_type_and_bits(path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    values = np.asarray(np.random.default_rng(1).standard_normal(shape)).astype(dtype)
    record = write_one(path, values)
    assert record.values is not None
    assert (record.values.dtype, record.values.shape) == (values.dtype, shape)
    assert record.values.tobytes() == values.tobytes()
    assert (record.shape, record.sampled, record.numel) == (shape, False, values.size)
    assert_same_stats(record.stats, stats_of(values))


@pytest.mark.parametrize("dtype", list(ODD_BITS))
def test_odd_values_keep_their_bits(path: Path, dtype: str) -> None:
    unsigned = f"uint{np.dtype(dtype).itemsize * 8}"
    values = np.array(ODD_BITS[dtype], unsigned).view(dtype)
    record = write_one(path, values)
    assert record.values is not None
    assert record.values.view(unsigned).tolist() == ODD_BITS[dtype]
    assert_same_stats(record.stats, stats_of(values))


def test_raw_bfloat16_comes_back_as_float32_exactly(path: Path) -> None:
    bits = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    wide = (bits.astype(np.uint32) << 16).view(np.float32)
    record = write_one(path, bits, dtype="bfloat16")
    assert record.values is not None
    assert (record.values.dtype, record.values.shape) == (np.float32, (256, 256))
    assert record.values.tobytes() == wide.tobytes()
    assert_same_stats(record.stats, stats_of(wide))


def test_foreign_bfloat16_arrays(path: Path) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    values = np.array([1.5, -2.0, 3.0], ml_dtypes.bfloat16)
    record = write_one(path, values)
    np.testing.assert_array_equal(record.values, np.array([1.5, -2, 3], np.float32))


@pytest.mark.parametrize(
    "values",
    [
        np.arange(24.0).reshape(4, 6)[::2, ::-3],
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(6.0).astype(">f8"),
        np.arange(6, dtype=">f4").reshape(3, 2).T,
        [[1.0, 2.0], [3.0, 4.0]],
        np.float32(3),
    ],
)
def test_any_layout_and_byte_order(path: Path, values: Any) -> None:
    record = write_one(path, values)
    np.testing.assert_array_equal(record.values, np.asarray(values))
    assert record.values is not None
    assert record.values.dtype.isnative
    assert record.values.flags.writeable


def test_caller_may_reuse_its_array(path: Path) -> None:
    array = np.empty(5)
    with TraceWriter(path) as writer:
        for step in range(3):
            array[:] = step
            writer.write("layer", "output", step, array)
    assert [record.values.tolist() for record in records_of(path, "layer")] == [
        [step] * 5 for step in (0.0, 1.0, 2.0)
    ]


def test_a_row_and_a_commit_are_laid_out_as_their_dtypes_say() -> None:
    stats = Stats(*[0.5 + n for n in range(6)], 7, 8, 9, 10.5)
    row = Row(-1, 1 << 40, 3, -4, 5, 0xFFFFFFFE, 1, 3, 0.25, 1 << 50, 12, 0xDEADBEEF, stats)
    packed = ROW_LAYOUT.pack(*row[:-1], *row.stats)
    assert np.frombuffer(packed, ROW).tolist() == [(*row[:-1], tuple(stats))]
    commit = Commit(-1, 1 << 40, 2, 3, 4, 5, 0xFFFFFFFE)
    assert np.frombuffer(COMMIT_LAYOUT.pack(*commit), COMMIT).tolist() == [tuple(commit)]


def test_statistics_only(path: Path) -> None:
    stats = Stats(-1.0, 2.0, 2.0, 0.25, math.nan, math.inf, 3, 4, 5, 5e-324)
    record = write_one(path, None, stats=stats, shape=(64, 0, 7), loss_scale=65536.0)
    assert (record.values, record.shape, record.sampled) == (None, (64, 0, 7), False)
    assert record.loss_scale == 65536.0
    assert_same_stats(record.stats, stats.divided(65536.0))


def test_samples(path: Path) -> None:
    stats = stats_of(np.arange(24.0))
    sample = np.array([3.0, 1.0, 2.0])
    record = write_one(path, sample, stats=stats, shape=(4, 6), sampled=True)
    assert (record.shape, record.numel, record.sampled) == ((4, 6), 24, True)
    np.testing.assert_array_equal(record.values, sample)
    assert_same_stats(record.stats, stats)


def test_values_may_be_given_another_shape_of_their_size(path: Path) -> None:
    assert write_one(path, np.arange(6.0), shape=(2, 3)).values.shape == (2, 3)


def test_values_can_be_left_unread(path: Path) -> None:
    write_one(path, np.ones(3))
    (record,) = records_of(path, "layer", values=False)
    assert record.values is None
    assert record.stats.max == 1.0


def test_records_are_ordered_by_step_micro_call(path: Path, small: None) -> None:
    keys = [(s, m, c) for s in (5, 0, 3) for m in (1, 0) for c in (2, 0, 1)]
    with TraceWriter(path) as writer:
        for step, micro, call in keys:
            writer.write("layer", "output", step, np.array([step, micro, call], "f4"), micro, call)
            writer.commit(step)
    found = records_of(path, "layer")
    assert [(r.step, r.micro, r.call) for r in found] == sorted(keys)
    assert [tuple(r.values) for r in found] == sorted(keys)
    with TraceReader(path) as reader:
        assert reader.steps == [0, 3, 5]


def test_ragged_shapes_of_one_site(path: Path) -> None:
    shapes = [(n, n % 3) for n in range(20)]
    with TraceWriter(path) as writer:
        for step, shape in enumerate(shapes):
            writer.write("layer", "output", step, np.full(shape, step, np.float16))
            writer.commit(step)
    assert [record.values.shape for record in records_of(path, "layer")] == shapes
    with TraceReader(path) as reader:
        assert reader.overview()[0].shapes == tuple(shapes)


@pytest.mark.parametrize("late", [False, True])
def test_a_record_cannot_be_written_twice(path: Path, late: bool) -> None:
    with TraceWriter(path) as writer:
        writer.write("layer", "output", 1, np.ones(2), call=1)
        writer.commit(1)
        if late:
            writer.write("layer", "output", 2, np.ones(2))
        with pytest.raises(DataError, match=r"layer/output at step 1.*call 1.*before\n.*call="):
            writer.write("layer", "output", 1, np.zeros(2), call=1)
        writer.write("layer", "output", 1, np.zeros(2))
        with pytest.raises(DataError, match="before"):
            writer.write("layer", "output", 1, np.zeros(2))
        writer.write("layer", "output", 3, np.zeros(2))
        writer.write("layer", "grad_input", 1, np.zeros(2), call=1)
    assert [r.step for r in records_of(path, "layer")] == [1, 1, *[2] * late, 3]


@pytest.mark.parametrize(
    "values",
    [
        np.arange(3),
        np.array([True]),
        np.ones(2, np.complex64),
        np.array(["a"]),
        np.array([None]),
        np.ones(2, np.longdouble),
        np.ones(2, np.uint16),
        [[1.0], [1.0, 2.0]],
    ],
)
def test_other_types_are_refused_by_name(path: Path, values: Any) -> None:
    with (
        pytest.raises(DataError, match=r"conv1/output at step 4: (values are|not an array)"),
        TraceWriter(path) as writer,
    ):
        writer.write("conv1", "output", 4, values)
    with TraceReader(path) as reader:
        assert (reader.sites, reader.state) == ((), "truncated")


@pytest.mark.parametrize(
    ("error", "arguments", "options"),
    [
        (UsageError, ("layer", "outputs", 0, np.ones(1)), {}),
        (UsageError, (None, "output", 0, np.ones(1)), {}),
        (UsageError, ("layer", "output", -1, np.ones(1)), {}),
        (UsageError, ("layer", "output", 1.5, np.ones(1)), {}),
        (UsageError, ("layer", "output", 1 << 63, np.ones(1)), {}),
        (UsageError, ("layer", "output", 0, np.ones(1), "0"), {}),
        (UsageError, ("layer", "output", 0, np.ones(1), 0, -2), {}),
        (UsageError, ("layer", "output", 0, None), {}),
        (UsageError, ("layer", "output", 0, None), {"shape": (3,)}),
        (UsageError, ("layer", "output", 0, None), {"stats": stats_of(np.ones(1))}),
        (UsageError, ("layer", "output", 0, np.ones(1)), {"sampled": True, "shape": (3,)}),
        (UsageError, ("layer", "output", 0, np.ones(1)), {"shape": (-1,)}),
        (UsageError, ("layer", "output", 0, np.ones(1)), {"shape": 1}),
        (UsageError, ("layer", "output", 0, None), {"shape": (3,), "stats": (1.0, 2.0)}),
        (UsageError, ("layer", "output", 0, None), {"shape": (3,), "stats": ("1",) * 10}),
        (UsageError, ("layer", "output", 0, np.ones(1)), {"flags": -1}),
        (UsageError, ("layer", "output", 0, np.ones(1)), {"flags": 1 << 32}),
        (DataError, ("layer", "output", 0, np.ones(3)), {"shape": (2,)}),
        (DataError, ("layer", "output", 0, np.ones(1)), {"dtype": "float32"}),
        (DataError, ("layer", "output", 0, np.ones(1)), {"dtype": "int8"}),
        (
            DataError,
            ("layer", "output", 0, np.ones((1, 2))),
            {"sampled": True, "shape": (3,), "stats": stats_of(np.ones(1))},
        ),
        (
            DataError,
            ("layer", "output", 0, np.ones(4)),
            {"sampled": True, "shape": (3,), "stats": stats_of(np.ones(1))},
        ),
    ],
)
def test_bad_arguments_leave_no_record(
    path: Path, error: type[Exception], arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    with TraceWriter(path) as writer:
        with pytest.raises(error) as caught:
            writer.write(*arguments, **options)
        assert caught.value.cause
        assert caught.value.remedy
        writer.write("layer", "output", 0, np.ones(1))
    assert len(records_of(path, "layer")) == 1


def test_sites_keep_the_order_they_were_met_in(path: Path) -> None:
    sites = [Site(f"block{n % 7}.{n}", kind) for n in range(100) for kind in TENSOR_KINDS]
    with TraceWriter(path) as writer:
        for step in range(2):
            for site in sites[:: 1 - 2 * step]:
                writer.write(site.layer, site.tensor, step, np.full(3, step, np.float32))
            writer.commit(step)
    with TraceReader(path) as reader:
        assert reader.sites == tuple(sites)
        assert all([r.step for r in reader.records(site)] == [0, 1] for site in sites)


@pytest.mark.parametrize("layer", ["", "слой.卷积/🙂", 'a"b\\c\n', "\udc80", "x" * 70_000])
def test_any_layer_name(path: Path, layer: str) -> None:
    with TraceWriter(path, run={layer: layer}) as writer:
        writer.write(layer, "output", 0, np.ones(2))
        writer.describe(layer, {"name": layer})
    with TraceReader(path) as reader:
        assert reader.sites == (Site(layer, "output"),)
        assert reader.geometry(layer) == {"name": layer}
        assert reader.run == {layer: layer}


def test_geometry_and_notes(path: Path) -> None:
    with TraceWriter(path, run={"seed": 1, "argv": ["a", 2, None, True]}) as writer:
        writer.describe("conv", {"op": "conv2d", "kernel": [3, 3]})
        writer.describe("conv", {"op": "conv2d", "kernel": [1, 1]})
        writer.name_classes("conv", ("MyConv", "Conv2d"))
        writer.commit(0)
        writer.note("skipped", {"steps": [1, 2]})
        writer.note("seed", 2)
    with TraceReader(path) as reader:
        assert reader.run == {"seed": 2, "argv": ["a", 2, None, True], "skipped": {"steps": [1, 2]}}
        assert reader.geometry("conv") == {"op": "conv2d", "kernel": [1, 1]}
        assert reader.geometry("other") is None
        assert reader.classes("conv") == ("MyConv", "Conv2d")
        assert reader.classes("other") is None
        assert reader.steps == [0]


def test_what_json_cannot_hold_is_refused(path: Path) -> None:
    with pytest.raises(UsageError, match="note x"):
        TraceWriter(path, run={"x": object()})
    assert not path.exists()
    with TraceWriter(path) as writer:
        with pytest.raises(UsageError, match="geometry conv"):
            writer.describe("conv", {"kernel": np.ones(2)})
        writer.note("fine", 1)
    with TraceReader(path) as reader:
        assert reader.run == {"fine": 1}


def test_overview(path: Path, small: None) -> None:
    stats = stats_of(np.ones(1))
    with TraceWriter(path) as writer:
        for step in range(2, 9):
            writer.write("a", "output", step, np.ones((2, step % 2 + 1), np.float32))
            writer.write("a", "output", step, None, call=1, stats=stats, shape=(9,))
            writer.write("b", "weight", step, np.ones(2), shape=(5,), stats=stats, sampled=True)
        writer.write("c", "output", 0, None, stats=stats, shape=())
        writer.write("b", "weight", 0, np.ones(3, np.float16))
    with TraceReader(path) as reader:
        a, b, c = reader.overview()
    assert (a.site, a.records, a.with_values, a.sampled) == (Site("a", "output"), 14, 7, 0)
    assert a.shapes == ((2, 1), (9,), (2, 2))
    assert (a.first_step, a.last_step) == (2, 8)
    assert (a.dtypes, a.payload_bytes) == (("float32",), 4 * 8 + 3 * 16)
    assert (b.records, b.with_values, b.sampled, b.first_step) == (8, 8, 7, 0)
    assert (b.dtypes, b.payload_bytes) == (("float16", "float64"), 7 * 16 + 6)
    assert (c.records, c.with_values, c.shapes) == (1, 0, ((),))
    assert (c.dtypes, c.payload_bytes) == ((), 0)


def test_an_empty_trace(path: Path) -> None:
    TraceWriter(path).close()
    with TraceReader(path) as reader:
        assert (reader.sites, reader.steps, reader.run, reader.overview()) == ((), [], {}, [])
        assert (reader.state, reader.format) == ("complete", "hqtrace/1")
        assert Path(reader.path) == path


def test_sites_may_come_from_anywhere_but_must_be_known(path: Path) -> None:
    write_one(path, np.ones(2))
    with TraceReader(path) as reader, pytest.raises(UsageError, match="no site other/output"):
        reader.records(Site("other", "output"))


def test_only_committed_steps_are_seen(path: Path) -> None:
    with TraceWriter(path) as writer:
        writer.write("layer", "output", 0, np.zeros(2_000_000))
        with TraceReader(path) as reader:
            assert (reader.sites, reader.steps, reader.state) == ((), [], "open")
        writer.commit(0)
        writer.write("layer", "output", 1, np.ones(2_000_000))
        with TraceReader(path) as reader:
            assert (reader.steps, reader.state) == ([0], "open")
            assert len(list(reader.records(reader.sites[0]))) == 1
        assert writer.steps_committed == 1
        assert writer.bytes_written == path.stat().st_size > 16_000_000
    assert [r.values[0] for r in records_of(path, "layer")] == [0, 1]


def test_closing(path: Path) -> None:
    writer = TraceWriter(path)
    writer.write("layer", "output", 7, np.ones(2))
    with pytest.raises(UsageError, match="finished"):
        writer.close("finished")
    writer.close()
    writer.close("truncated")
    calls: list[Callable[[], None]] = [
        lambda: writer.write("layer", "output", 8, np.ones(2)),
        lambda: writer.commit(8),
        lambda: writer.note("a", 1),
        lambda: writer.describe("a", {}),
    ]
    for call in calls:
        with pytest.raises(UsageError, match="closed"):
            call()
    with TraceReader(path) as reader:
        assert (reader.state, reader.steps) == ("complete", [7])


def test_an_exception_inside_truncates(path: Path) -> None:
    def fail() -> None:
        with TraceWriter(path) as writer:
            writer.write("layer", "output", 0, np.ones(2))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with TraceReader(path) as reader:
        assert (reader.state, reader.steps) == ("truncated", [0])


def test_a_closed_reader_says_so(path: Path) -> None:
    write_one(path, np.ones(2))
    with TraceReader(path) as reader:
        site = reader.sites[0]
    with pytest.raises(UsageError, match="closed"):
        list(reader.records(site))
    with pytest.raises(UsageError, match="closed"):
        reader.overview()


def test_nothing_is_overwritten_without_force(path: Path) -> None:
    path.write_text("mine")
    with pytest.raises(UsageError, match=r"trace.h5 exists\n.*-f"):
        TraceWriter(path)
    assert path.read_text() == "mine"
    with TraceWriter(path, force=True) as writer:
        assert Path(writer.path) == path
        writer.write("layer", "output", 0, np.ones(2))
        writer.commit(0)
        assert len(records_of(path, "layer")) == 1
    assert [file.name for file in path.parent.iterdir()] == ["trace.h5"]


def test_force_keeps_the_old_file_until_the_new_one_stands(path: Path) -> None:
    path.write_text("mine")
    with pytest.raises(UsageError):
        TraceWriter(path, force=True, run={"x": object()})
    assert path.read_text() == "mine"
    assert [file.name for file in path.parent.iterdir()] == ["trace.h5"]


def test_places_where_no_trace_can_be_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"folder does not exist\n"):
        TraceWriter(tmp_path / "no" / "trace.h5")
    with pytest.raises(UsageError, match="exists"):
        TraceWriter(tmp_path)
    with pytest.raises(UsageError, match="cannot be replaced"):
        TraceWriter(tmp_path, force=True)
    assert list(tmp_path.iterdir()) == []
    assert [file.name for file in tmp_path.parent.glob("*.new")] == []


def test_a_relative_path_survives_a_change_of_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    with TraceWriter("trace.h5") as writer:
        os.chdir("elsewhere")
        writer.write("layer", "output", 0, np.ones(2))
        writer.commit(0)
        assert writer.bytes_written > 0
    assert len(records_of(tmp_path / "trace.h5", "layer")) == 1


def test_threads_may_share_a_writer(path: Path, small: None) -> None:
    def record(layer: str) -> None:
        for step in range(60):
            writer.write(layer, "output", step, np.full(step, step, np.float32))

    with TraceWriter(path) as writer:
        threads = [threading.Thread(target=record, args=(f"layer{n}",)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for n in range(4):
        assert [r.values.sum() for r in records_of(path, f"layer{n}")] == [s * s for s in range(60)]


KEYS = st.tuples(
    st.sampled_from(["a", "b", "c.d"]),
    st.sampled_from(["output", "grad_input"]),
    st.integers(0, 4),
    st.integers(0, 1),
    st.integers(0, 1),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    keys=st.lists(KEYS, unique=True, max_size=40),
    sizes=st.lists(st.integers(0, 60), min_size=40, max_size=40),
    commits=st.sets(st.integers(0, 39)),
)
def test_any_history_comes_back(
    path: Path, small: None, keys: list[Any], sizes: list[int], commits: set[int]
) -> None:
    history = dict(zip(keys, sizes, strict=False))
    with TraceWriter(path, force=True) as writer:
        for number, ((layer, tensor, step, micro, call), size) in enumerate(history.items()):
            values = np.arange(size, dtype=np.float32) + number
            writer.write(layer, tensor, step, values, micro, call)
            if number in commits:
                writer.commit(step)
    found = {}
    with TraceReader(path) as reader:
        for site in reader.sites:
            own = [((r.step, r.micro, r.call), r.values) for r in reader.records(site)]
            assert [key for key, _ in own] == sorted(key for key, _ in own)
            found |= {(site.layer, site.tensor, *key): values for key, values in own}
        assert {(s.layer, s.tensor) for s in reader.sites} == {key[:2] for key in history}
        assert set(reader.steps) == {key[2] for key in history}
    for number, (key, size) in enumerate(history.items()):
        np.testing.assert_array_equal(found.pop(key), np.arange(size, dtype=np.float32) + number)
    assert not found
