"""The extremes of each channel in a trace: written, read, divided, joined, repaired, damaged."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from command import hqtool

from hqtool import TraceReader, TraceWriter
from hqtool.core.stats import stats_of
from hqtool.errors import DataError, UsageError
from hqtool.trace.ranks import RanksReader
from hqtool.trace.repair import repair
from hqtool.vocab import Record, SampleLayout, Site

RNG = np.random.default_rng(1)
SITE, STEPS = Site("conv", "output"), 4


def extremes_of(values: np.ndarray, axis: int = 1) -> np.ndarray:
    """The slow way: channel by channel."""
    ends = []
    for channel in np.moveaxis(values, axis, 0):
        finite = [float(v) for v in channel.reshape(-1) if math.isfinite(v)]
        ends.append((min(finite), max(finite)) if finite else (math.nan, math.nan))
    return np.array(ends, np.float64).reshape(-1, 2).T


def tensors() -> list[np.ndarray]:
    return [RNG.standard_normal((2, 3, 5)).astype("f4") for _ in range(STEPS)]


def write(path: Path, values: list[np.ndarray], **run: Any) -> Path:
    """Steps 0, 2, …: whole tensors; 1: statistics alone; 3: a sample with a layout."""
    with TraceWriter(path, channel_extremes=True, run=run) as writer:
        for step, x in enumerate(values):
            how: dict[str, Any] = {"channel_extremes": extremes_of(x)}
            kept: Any = x
            if step == 1:
                kept, how = None, how | {"stats": stats_of(x), "shape": x.shape}
            if step == 3:
                layout = SampleLayout(np.array([1, 4]), 3, 5, x.reshape(-1)[:2], np.array([0, 1]))
                kept = np.moveaxis(x, 1, -1).reshape(-1, 3)[[1, 4]].reshape(-1)
                how |= {"stats": stats_of(x), "shape": x.shape, "sampled": True, "layout": layout}
            writer.write("conv", "output", step, kept, **how)
            writer.commit(step)
    return path


@pytest.fixture
def values() -> list[np.ndarray]:
    return tensors()


@pytest.fixture
def path(tmp_path: Path, values: list[np.ndarray]) -> Path:
    return write(tmp_path / "trace.h5", values)


def records(path: Path, **how: Any) -> list[Record]:
    with TraceReader(path) as reader:
        return list(reader.records(SITE, **how))


def assert_extremes(found: list[Record], values: list[np.ndarray]) -> None:
    for record, x in zip(found, values, strict=True):
        np.testing.assert_array_equal(record.channel_extremes, extremes_of(x))


def test_they_come_back_beside_all_else(path: Path, values: list[np.ndarray]) -> None:
    found = records(path)
    assert_extremes(found, values)
    np.testing.assert_array_equal(found[0].values, values[0])
    assert found[1].values is None
    assert found[3].layout is not None
    assert found[3].layout.fibres.tolist() == [1, 4]
    with TraceReader(path) as reader:
        assert reader.has_channel_extremes
        assert reader.damaged_values() == 0
        history = reader.history(SITE)
        assert history.has_channel_extremes.all()
        assert_extremes([history.record(i) for i in range(STEPS)], values)


def test_without_values_they_are_not_read(path: Path) -> None:
    assert {record.channel_extremes is None for record in records(path, values=False)} == {True}


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_they_are_exact_in_every_type(tmp_path: Path, dtype: str) -> None:
    x = (RNG.standard_normal((2, 4)) * 1.1).astype(dtype)
    x[:, 1] = math.nan
    with TraceWriter(tmp_path / "t.h5", channel_extremes=True) as writer:
        writer.write("conv", "output", 0, x, channel_extremes=extremes_of(x))
    assert_extremes(records(tmp_path / "t.h5"), [x])


def test_the_loss_scale_is_divided_out(tmp_path: Path) -> None:
    x = np.array([[1.0, -8.0], [2.0, 4.0]], "f4")
    with TraceWriter(tmp_path / "t.h5", channel_extremes=True) as writer:
        writer.write("conv", "output", 0, x, channel_extremes=extremes_of(x), loss_scale=4.0)
    assert_extremes(records(tmp_path / "t.h5"), [x / 4])
    assert_extremes(records(tmp_path / "t.h5", scaled=True), [x])


def test_a_record_may_lack_them(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "t.h5", channel_extremes=True) as writer:
        writer.write("conv", "output", 0, np.ones(3))
    (record,) = records(tmp_path / "t.h5")
    assert record.channel_extremes is None
    assert record.values.tolist() == [1, 1, 1]


def test_a_trace_is_opened_for_them(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "t.h5") as writer:
        with pytest.raises(UsageError, match="does not keep the extremes of channels"):
            writer.write("conv", "output", 0, np.ones((1, 3)), channel_extremes=np.ones((2, 3)))
        writer.write("conv", "output", 0, np.ones(3))
    with TraceReader(tmp_path / "t.h5") as reader:
        assert not reader.has_channel_extremes


@pytest.mark.parametrize("wrong", [np.ones(3), np.ones((3, 2)), np.ones((2, 3), int)])
def test_what_are_not_extremes_is_refused(tmp_path: Path, wrong: np.ndarray) -> None:
    with (
        TraceWriter(tmp_path / "t.h5", channel_extremes=True) as writer,
        pytest.raises(DataError, match=r"give floats in the shape \(2, channels\)"),
    ):
        writer.write("conv", "output", 0, np.ones((1, 3)), channel_extremes=wrong)


def test_info_says_so(path: Path) -> None:
    status, out, _ = hqtool("info", str(path), "--json", "-")
    assert status == 0
    assert json.loads(out)["channel_extremes"] is True
    assert "of each channel, beside those of each tensor" in hqtool("info", str(path))[1]


def test_ranks_are_joined_channel_by_channel(tmp_path: Path) -> None:
    parts = [tensors(), tensors()]
    paths = [write(tmp_path / f"rank{n}.h5", x, rank=n, world_size=2) for n, x in enumerate(parts)]
    wanted = [np.concatenate(pair) for pair in zip(*parts, strict=True)]
    with RanksReader(paths) as reader:
        assert_extremes(list(reader.records(SITE)), wanted)
        history = reader.history(SITE)
        assert history.has_channel_extremes.all()
        assert_extremes([history.record(i) for i in range(STEPS)], wanted)


def test_repair_keeps_them(path: Path, values: list[np.ndarray], tmp_path: Path) -> None:
    done = repair(path, tmp_path / "clean.h5")
    assert (done.lost, done.state) == (False, "complete")
    assert_extremes(records(tmp_path / "clean.h5"), values)
    assert (tmp_path / "clean.h5").stat().st_size <= path.stat().st_size + 4096


def test_a_byte_lost_anywhere_is_found(path: Path, tmp_path: Path) -> None:
    with h5py.File(path) as file:
        size = file["payload"].shape[0]
    whole = records(path)
    for place in range(0, size, 13):
        with h5py.File(path, "r+") as file:
            file["payload"][place] ^= 0x10
        with TraceReader(path) as reader:
            assert reader.damaged_values() == 1
        with pytest.raises(DataError, match="hqtool repair"):
            records(path)
        done = repair(path, tmp_path / "clean.h5", force=True)
        assert (done.values_lost, done.extremes_lost) in [(1, 0), (0, 1)]
        kept = records(tmp_path / "clean.h5")
        assert [r.stats for r in kept] == [r.stats for r in whole]
        with h5py.File(path, "r+") as file:
            file["payload"][place] ^= 0x10
