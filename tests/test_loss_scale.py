"""Gradients recorded under loss scaling: divided out unless asked for, kept by repair."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import hqtool
from quantizing import settings

from hqtool import TraceReader, TraceWriter
from hqtool.core.stats import stats_of
from hqtool.errors import UsageError
from hqtool.report.follow import snapshot_of
from hqtool.trace.repair import repair
from hqtool.vocab import Range, Record, Site, Stats

RNG = np.random.default_rng(5)
SITE = Site("fc", "grad_input")


def write_one(path: Path, values: Any, loss_scale: float, **how: Any) -> Path:
    with TraceWriter(path) as writer:
        writer.write("fc", "grad_input", 0, values, loss_scale=loss_scale, **how)
        writer.commit(0)
    return path


def read_one(path: Path, **how: Any) -> Record:
    with TraceReader(path) as reader:
        (record,) = reader.records(SITE, **how)
    return record


def same(found: Stats, wanted: Stats) -> bool:
    return str(found) == str(wanted)  # NaN is NaN


def wide(values: Any, dtype: str) -> np.ndarray:
    """The recorded values in float64."""
    if dtype != "bfloat16":
        return np.asarray(values, np.float64)
    return (np.asarray(values, np.uint32) << 16).view(np.float32).astype(np.float64)


def some_values(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    x = np.asarray(100 * RNG.standard_normal(shape), np.float32)
    if dtype == "bfloat16":
        return (x.view(np.uint32) >> 16).astype(np.uint16)
    return x.astype(dtype)


@pytest.mark.parametrize("shape", [(3, 4, 5), (), (0, 3), (7,)])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("scale", [65536.0, 0.5, 3.0])
def test_values_and_statistics_are_divided(
    tmp_path: Path, dtype: str, shape: tuple[int, ...], scale: float
) -> None:
    """One element after the other, in float64."""
    values = some_values(dtype, shape)
    path = write_one(tmp_path / "t.h5", values, scale, dtype=dtype)
    record = read_one(path)
    wanted = [x / scale for x in wide(values, dtype).ravel().tolist()]
    assert record.values is not None
    assert record.values.dtype == ("float64" if dtype == "float64" else "float32")
    assert (record.values.shape, record.shape) == (shape, shape)
    np.testing.assert_allclose(record.values.ravel(), wanted, rtol=1e-7)
    assert record.stats == pytest.approx(stats_of(np.array(wanted)), nan_ok=True)
    assert record.loss_scale == scale


def test_a_power_of_two_is_divided_out_exactly(tmp_path: Path) -> None:
    """What training without loss scaling would have recorded, to the last bit."""
    x = np.float32(RNG.standard_normal((8, 9)) * 1e-6)
    plain = read_one(write_one(tmp_path / "plain.h5", x, 1.0))
    scaled = read_one(write_one(tmp_path / "scaled.h5", x * np.float32(2**16), 2.0**16))
    assert scaled.values is not None
    assert scaled.values.tobytes() == x.tobytes()
    assert same(scaled.stats, plain.stats)


def test_float16_does_not_underflow(tmp_path: Path) -> None:
    """The smallest float16, scaled by 2**16, is far below what float16 holds."""
    smallest = np.array([2.0**-24, 0.0, -(2.0**-14)], np.float16)
    record = read_one(write_one(tmp_path / "t.h5", smallest, 65536.0))
    assert record.values is not None
    assert record.values.tolist() == [2.0**-40, 0.0, -(2.0**-30)]
    assert record.stats.min_nonzero == 2.0**-40
    assert (record.stats.nzero, record.stats.absmax) == (1, 2.0**-30)


def test_counts_of_what_is_not_finite_stay(tmp_path: Path) -> None:
    x = np.array([np.nan, np.inf, -np.inf, 0.0, 8.0], np.float32)
    record = read_one(write_one(tmp_path / "t.h5", x, 4.0))
    np.testing.assert_array_equal(record.values, np.array([np.nan, np.inf, -np.inf, 0.0, 2.0]))
    assert (record.stats.nnan, record.stats.ninf, record.stats.nzero) == (1, 2, 1)
    assert record.stats.range == Range(0.0, 2.0)


def test_samples_and_bare_statistics_are_divided(tmp_path: Path) -> None:
    x = np.arange(1.0, 25.0)
    how: dict[str, Any] = {"stats": stats_of(x), "shape": (4, 6)}
    sample = read_one(write_one(tmp_path / "a.h5", x[3:6], 2.0, sampled=True, **how))
    assert sample.values is not None
    assert (sample.values.tolist(), sample.sampled) == ([2.0, 2.5, 3.0], True)
    bare = read_one(write_one(tmp_path / "b.h5", None, 2.0, **how))
    assert (bare.values, bare.stats, bare.stats.max) == (None, sample.stats, 12.0)
    unread = read_one(tmp_path / "a.h5", values=False)
    assert (unread.values, unread.stats) == (None, sample.stats)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_as_recorded_on_request(tmp_path: Path, dtype: str) -> None:
    values = some_values(dtype, (4, 5))
    path = write_one(tmp_path / "t.h5", values, 1024.0, dtype=dtype)
    record = read_one(path, scaled=True)
    assert record.values is not None
    assert record.values.dtype == ("float32" if dtype == "bfloat16" else dtype)
    assert record.values.tolist() == wide(values, dtype).tolist()
    assert same(record.stats, stats_of(record.values))
    assert record.loss_scale == 1024.0


@pytest.mark.parametrize("scale", [1.0, 0.0, -2.0, math.inf, math.nan])
def test_what_cannot_be_divided_out_stays(tmp_path: Path, scale: float) -> None:
    """One is no scale: nothing is widened, nothing copied. The others are none, either."""
    x = np.array([[1.5, -2.0]], np.float16)
    record = read_one(write_one(tmp_path / "t.h5", x, scale))
    assert record.values is not None
    assert (record.values.dtype, record.values.tobytes()) == (x.dtype, x.tobytes())
    assert same(record.stats, stats_of(x))
    assert str(record.loss_scale) == str(scale)


def test_the_overview_divides_too(tmp_path: Path) -> None:
    held = [(4.0, -40, 8), (1.0, -8, 8), (0.0, -3, 16), (64.0, -64, 640)]
    with TraceWriter(tmp_path / "t.h5") as writer:
        for step, (scale, lo, hi) in enumerate(held):
            writer.write("fc", "grad_input", step, np.float32([hi, lo]), loss_scale=scale)
        writer.write("nan", "output", 0, np.float32([np.nan]))
        writer.commit(3)
    with TraceReader(tmp_path / "t.h5") as reader:
        first, second = reader.overview()
    assert (first.range, second.range) == (Range(-10.0, 16.0), None)


def test_repair_copies_the_scaled_bits(tmp_path: Path) -> None:
    x = np.float16(RNG.standard_normal((5, 6)))
    path, clean = write_one(tmp_path / "t.h5", x, 512.0), tmp_path / "clean.h5"
    repair(path, clean)
    before, after = (read_one(p, scaled=True) for p in (path, clean))
    assert after.values is not None
    assert (after.values.dtype, after.values.tobytes()) == (x.dtype, x.tobytes())
    assert (after.stats, after.loss_scale) == (before.stats, 512.0)
    assert read_one(clean).stats == read_one(path).stats != before.stats


def test_a_new_scale_is_no_moved_range(tmp_path: Path) -> None:
    x = np.float32([-1.0, 3.0])
    with TraceWriter(tmp_path / "t.h5") as writer:
        for step, scale in enumerate([1024.0, 2048.0]):
            writer.write("fc", "grad_input", step, x * np.float32(scale), loss_scale=scale)
            writer.commit(step)
    (move,) = snapshot_of(str(tmp_path / "t.h5")).moves
    assert (move.before, move.now) == (4.0, 4.0)


# --- compare ------------------------------------------------------------------------------------

SCALES = [2.0**10, 2.0**11, 2.0**11, 2.0**4]


@pytest.fixture
def traces(tmp_path: Path) -> dict[str, Path]:
    """The same gradients without and with loss scaling; and the latter, as if it were none."""
    gradients = [np.float32(RNG.standard_normal(300) * 1e-4) for _ in SCALES]
    found = {name: tmp_path / f"{name}.h5" for name in ("plain", "scaled", "raw")}
    writers = {name: TraceWriter(path) for name, path in found.items()}
    for step, (x, scale) in enumerate(zip(gradients, SCALES, strict=True)):
        carried = x * np.float32(scale)
        writers["plain"].write("fc", "grad_input", step, x)
        writers["scaled"].write("fc", "grad_input", step, carried, loss_scale=scale)
        writers["raw"].write("fc", "grad_input", step, carried)
        for writer in writers.values():
            writer.commit(step)
    for writer in writers.values():
        writer.close()
    return found


def compared(path: Path, *options: str) -> dict[str, Any]:
    """What compare says, but for the trace's name."""
    done = hqtool("compare", path, "--json", "-", "--per-step", *options)
    assert done.status == 0, done.err
    found: dict[str, Any] = json.loads(done.out.replace(str(path), "TRACE"))
    return found


def test_compare_divides_unless_told_to_keep(traces: dict[str, Path]) -> None:
    divided = compared(traces["scaled"])
    assert divided == compared(traces["plain"])
    kept = compared(traces["scaled"], "--loss-scale", "kept")
    raw = compared(traces["raw"])
    assert (kept["summary"], kept["steps"]) == (raw["summary"], raw["steps"])
    assert kept["summary"] != divided["summary"]
    assert compared(traces["scaled"], "--loss-scale", "divided") == divided


def test_the_setting_is_echoed_and_explained(traces: dict[str, Path]) -> None:
    assert compared(traces["plain"])["settings"]["loss_scale"] == "divided"
    assert compared(traces["raw"], "--loss-scale", "kept")["settings"]["loss_scale"] == "kept"
    assert "--loss-scale [divided|kept]" in hqtool("compare", "--help").out
    done = hqtool("compare", traces["plain"], "--loss-scale", "doubled")
    assert (done.status, len(done.err.splitlines())) == (2, 2)
    with pytest.raises(UsageError, match="doubled"):
        settings("current", loss_scale="doubled")


def test_dividing_leaves_the_other_fields_alone(traces: dict[str, Path]) -> None:
    with TraceReader(traces["scaled"]) as reader:
        pairs = zip(reader.records(SITE), reader.records(SITE, scaled=True), strict=True)
        for divided, kept in pairs:
            changed = {"values": None, "stats": kept.stats}
            assert asdict(replace(divided, **changed)) == asdict(replace(kept, values=None))
