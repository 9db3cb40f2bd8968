"""Replay of ranges for each channel, sample and row: what is known, learned, looked at and told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import hqtool
from test_channel_extremes import extremes_of

from hqtool import TraceReader, TraceWriter
from hqtool.core.arrangement import Axes, axes_of
from hqtool.core.stats import stats_of
from hqtool.vocab import Site

RNG = np.random.default_rng(8)
GEOMETRY = {"name": "conv", "op": "conv2d", "in_channels": 3, "out_channels": 4,
            "input": [2, 2], "kernel": 1}  # fmt: skip
STEPS = [
    RNG.standard_normal((2, 4, 2, 2)) * np.array([1, 5, 25, 0.1]).reshape(4, 1, 1) * (1 + step)
    for step in range(9)
]


def write(path: Path, *, every: int, per_channel: bool = False, kind: str = "output") -> Path:
    """All statistics, and values at every so many steps."""
    with TraceWriter(path, channel_extremes=per_channel) as writer:
        writer.describe("conv", GEOMETRY)
        for step, x in enumerate(STEPS):
            how: dict[str, Any] = {"stats": stats_of(x), "shape": x.shape}
            if per_channel:
                how["channel_extremes"] = extremes_of(x)
            writer.write("conv", kind, step, x if step % every == 0 else None, **how)
            writer.commit(step)
    return path


def compared(path: Path, *specs: str) -> tuple[dict[str, Any], str]:
    """The JSON document of a comparison, and its text."""
    chosen = [part for spec in specs for part in ("--estimator", spec)]
    done = hqtool("compare", path, *chosen, "--per-step", "--json", path.with_suffix(".json"), "-f")
    assert done.status == 0, done.err
    return json.loads(path.with_suffix(".json").read_text()), " ".join(done.out.split())


def figures(document: dict[str, Any], estimator: str, steps: list[int]) -> list[tuple[float, ...]]:
    names = ("lo", "hi", "mse", "cosine", "saturation")
    rows = [r for r in document["steps"] if r["estimator"] == estimator and r["step"] in steps]
    return [tuple(row[name] for name in names) for row in rows]


def scored(x: np.ndarray, lo: np.ndarray, hi: np.ndarray) -> float:
    """Mean (x − q)² of each channel alone in eight bits."""
    total = 0.0
    for channel, (low, high) in enumerate(zip(lo, hi, strict=True)):
        low, high = min(low, 0.0), max(high, 0.0)
        step = (high - low) / 255
        zero = round(-low / step)
        for v in x[:, channel].reshape(-1).tolist():
            code = min(max(round(v / step) + zero, 0), 255)
            total += (v - (code - zero) * step) ** 2
    return total / x.size


def test_hindsight_of_channels_is_that_of_the_loop(tmp_path: Path) -> None:
    document, _ = compared(write(tmp_path / "t.h5", every=1), "hindsight:momentum=0.5,per=channel")
    known = None
    for step, x in enumerate(STEPS):
        ends = extremes_of(x)
        known = ends if known is None else known
        row = document["steps"][step]
        assert (row["lo"], row["hi"]) == (known[0].min(), known[1].max())
        assert row["mse"] == pytest.approx(scored(x, *known), rel=1e-9)
        known = (ends + known) / 2 if step else ends


def test_recorded_extremes_teach_as_values_do(tmp_path: Path) -> None:
    spec = "hindsight:momentum=0.5,per=channel"
    whole, _ = compared(write(tmp_path / "whole.h5", every=1), spec)
    told, text = compared(write(tmp_path / "told.h5", every=4, per_channel=True), spec)
    steps = [0, 4, 8]
    assert figures(told, spec, steps) == figures(whole, spec, steps)
    assert told["summary"][0]["missed_steps"] == 0
    assert "learned from" not in text


def test_what_could_not_be_learned_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "t.h5", every=4)
    specs = ("hindsight:per=channel", "hindsight:per=sample", "current:per=channel", "hindsight")
    document, text = compared(path, *specs)
    missed = {row["estimator"]: row["missed_steps"] for row in document["summary"]}
    assert missed == dict(zip(specs, (6, 6, 0, 0), strict=True))
    assert "hindsight:per=channel learned from 3 of 9 steps at conv/output" in text
    assert text.count("capture --per-channel records what it needs") == 1


def test_a_look_counts_where_no_values_were_recorded(tmp_path: Path) -> None:
    specs = ("current", "current:per=channel", "current:per=row", "hindsight:per=channel")
    document, _ = compared(write(tmp_path / "t.h5", every=4), *specs)
    rows = {row["estimator"]: row for row in document["summary"]}
    assert [rows[spec]["looks"] for spec in specs] == [9, 9, 9, 1]
    assert len({rows[spec]["traffic_bytes"] for spec in specs[:3]}) == 1
    assert {row["postponed"] for row in rows.values()} == {0}


@pytest.mark.parametrize(("per", "size"), [("sample", 16 * 4), ("row", 4 * 4)])
@pytest.mark.parametrize("silent", [False, True])
def test_a_look_that_the_chip_holds_is_free_whether_or_not_values_were_recorded(
    tmp_path: Path, per: str, size: int, silent: bool
) -> None:
    """Of (2, 4, 2, 2) a sample has 16 elements and a row 4, of 4 bytes of accumulator each."""
    path = tmp_path / "t.h5"
    with TraceWriter(path) as writer:
        writer.describe("conv", GEOMETRY)
        for step, x in enumerate(STEPS):
            x = x * (0 if silent and step % 2 else 1)
            values = x if step % 3 == 0 else None
            writer.write("conv", "output", step, values, stats=stats_of(x), shape=x.shape)
            writer.commit(step)
    looks = (0, 2 * 32 * 4)
    for buffer, moved in zip((size, size - 1), looks, strict=True):
        words = ("--estimator", f"current:per={per}", "--buffer", f"{buffer}B", "--json", "-")
        (row,) = json.loads(hqtool("compare", path, *words).out)["summary"]
        assert row["looks"] == 9
        assert row["traffic_bytes"] == row["static_bytes"] + moved


@pytest.mark.parametrize(
    ("op", "kind", "axes"),
    [
        ("conv2d", "output", Axes(-3, None)),
        ("conv1d", "grad_input", Axes(-2, None)),
        ("conv3d", "weight", Axes(-4, 0)),
        ("conv_transpose2d", "grad_weight", Axes(-3, 1)),
        ("linear", "input", Axes(-1, None)),
        ("LSTM", "weight", Axes(-1, 0)),
        (None, "output", Axes(None, None)),
        (None, "weight", Axes(None, 0)),
    ],
)
def test_axes_by_the_layer(op: str | None, kind: str, axes: Axes) -> None:
    assert axes_of(op, kind) == axes


@pytest.mark.parametrize("kind", ["output", "weight"])
def test_a_trace_tells_the_axes(tmp_path: Path, kind: str) -> None:
    with TraceReader(write(tmp_path / "t.h5", every=1, kind=kind)) as reader:
        assert reader.history(Site("conv", kind)).axes == axes_of("conv2d", kind)


def test_each_output_channel_of_a_weight_has_a_range(tmp_path: Path) -> None:
    document, _ = compared(write(tmp_path / "t.h5", every=1, kind="weight"), "current:per=channel")
    x = STEPS[0]
    assert document["steps"][0]["mse"] == pytest.approx(
        scored(x.swapaxes(0, 1), *extremes_of(x, 0)), rel=1e-9
    )
