"""The bill of a trace: its layers as they ran, calls and ranks counted, what it lacks told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from command import hqtool

from hqtool import TraceWriter

DIGITS = Path(__file__).parent.parent / "sample_data" / "digits.h5"
CONV: dict[str, Any] = {
    "name": "conv",
    "op": "conv2d",
    "in_channels": 2,
    "out_channels": 3,
    "input": [4, 5],
    "kernel": 1,
    "batch": 2,
}
FC: dict[str, Any] = {"op": "linear", "in_channels": 60, "out_channels": 7, "batch": 2}


def write(path: Path, *, calls: int = 1, micros: int = 1, **run: Any) -> Path:
    """Three steps of two layers, of which the first reads the images; a last step has one call."""
    with TraceWriter(path, **run) as trace:
        for step in range(3):
            for micro in range(micros if step < 2 else 1):
                for call in range(calls if step < 2 else 1):
                    trace.write("conv", "output", step, np.ones((2, 3, 4, 5), "f4"), micro, call)
                    trace.write("fc", "output", step, np.ones((2, 7), "f4"), micro, call)
                    trace.write("fc", "grad_input", step, np.ones((2, 60), "f4"), micro, call)
            trace.commit(step)
        trace.describe("conv", CONV)
        trace.describe("fc", FC)
        trace.write("odd", "output", 3, np.ones(3, "f4"))
        trace.describe("odd", {"name": "odd", "op": "LSTM"})
        trace.commit(3)
    return path


def billed(*args: object) -> dict[str, Any]:
    done = hqtool("traffic", *args, "--json", "-")
    assert done.status == 0, done.err
    return dict(json.loads(done.out))


def test_a_step_is_billed_as_it_ran(tmp_path: Path) -> None:
    """By hand: X = 2·2·20, Y = 2·3·20, W = 6 of one call; 2 micro-batches of 3 calls each."""
    once = billed(write(tmp_path / "once.h5"))
    often = billed(write(tmp_path / "often.h5", calls=3, micros=2))
    assert [row["name"] for row in once["layers"]] == ["conv", "fc"]
    assert once["layers"][0]["static_bytes"] == 80 + 120 + 6
    assert once["layers"][0]["dynamic_bytes"] == 80 + 120 + 6 + 2 * 120 * 4
    assert once["layers"][1]["static_bytes"] == 2 * 60 + 2 * 7 + 7 * 60
    assert often["layers"][0]["static_bytes"] == 6 * (80 + 120 + 6)


def test_a_layer_without_a_recorded_gradient_makes_none(tmp_path: Path) -> None:
    """conv makes G_W alone: X, G_Y and W in FP32; fc makes both."""
    rows = billed(write(tmp_path / "run.h5"), "--pass", "backward")["layers"]
    assert rows[0]["static_bytes"] == rows[0]["dynamic_bytes"] == 80 + 120 + 4 * 6
    assert rows[1]["dynamic_bytes"] > rows[1]["static_bytes"]


def test_ranks_are_billed_together(tmp_path: Path) -> None:
    paths = [
        write(tmp_path / f"run.rank{rank}.h5", run={"rank": rank, "world_size": 2})
        for rank in range(2)
    ]
    alone, together = billed(paths[0]), billed(*paths)
    assert together["total"]["static_bytes"] == 2 * alone["total"]["static_bytes"]
    assert "on 2 ranks together" in hqtool("traffic", *paths).out.replace("\n", " ")
    done = hqtool("traffic", paths[0], paths[0])
    assert (done.status, "both rank 0" in done.err) == (3, True)


def test_what_a_trace_does_not_know_is_said(tmp_path: Path) -> None:
    out = " ".join(hqtool("traffic", write(tmp_path / "run.h5")).out.split())
    assert "one step as run: batch 2, every call of a layer; 4 recorded steps" in out
    assert "for want of a geometry that the bill knows: odd" in out
    assert "not of the sums, norms, poolings and activations between them" in out


def test_a_trace_without_geometry_is_refused(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "bare.h5") as trace:
        trace.write("fc", "output", 0, np.ones(3, "f4"))
        trace.commit(0)
    done = hqtool("traffic", tmp_path / "bare.h5")
    assert (done.status, "no layer in it has a geometry" in done.err) == (3, True)


def test_several_files_must_be_traces(tmp_path: Path) -> None:
    spec = DIGITS.with_name("table5.toml")
    done = hqtool("traffic", spec, DIGITS)
    assert (done.status, "traces of one run's ranks" in done.err) == (2, True)


def test_the_shipped_trace_is_billed_as_its_layers_are(tmp_path: Path) -> None:
    """The head by hand: 64 samples of 32 features, 10 classes."""
    head = billed(DIGITS)["layers"][-1]
    assert head["static_bytes"] == 64 * 32 + 64 * 10 + 320
