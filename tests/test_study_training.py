"""A study that really trains: quantized runs beside plain ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import hqtool

from hqtool.trace.reader import TraceReader

SCRIPT = """
import sys
import torch
seed = int(sys.argv[1])
torch.manual_seed(seed)
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), 0.1)
x = torch.randn(16, 4)
for step in range(4):
    loss = (model(x * (float("inf") if seed == 1 else 1)) - x[:, :1]).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"loss: {loss.item()}")
"""

STUDY = """
schema = "hqtool.study/1"
command = ["s.py", "{seed}"]
metric = 'loss: ([0-9.e+-]+)'
seeds = [0, 1]
recipes = ["none", "paper-w8a8g8", {name = "looks", output = "current@int8"}]
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    (folder / "s.py").write_text(SCRIPT)
    (folder / "study.toml").write_text(STUDY)
    words = ["study", folder / "study.toml", "-o", folder / "out", "--jobs", "2", "--json", "-"]
    done = hqtool(*words)
    assert done.status == 0, done.err
    return json.loads(done.out)


def test_rows_of_the_table(found):
    rows = {row["recipe"]: row for row in found["table"]}
    assert [row["runs"] for row in rows.values()] == [1, 1, 1]
    assert [row["diverged"] for row in rows.values()] == [1, 1, 1]
    assert [row["static"] for row in rows.values()] == [None, True, False]
    assert rows["paper-w8a8g8"]["mean"] == pytest.approx(rows["none"]["mean"], rel=0.2)
    assert rows["paper-w8a8g8"]["difference"] != 0


def test_traffic_is_of_the_same_tensors_for_all(found):
    none, paper, looks = (row["traffic_bytes"] for row in found["table"])
    assert paper == pytest.approx(none / 4)  # 8 bits of 32, and no look
    assert paper < looks


def test_divergence_is_told_with_site_and_step(found):
    reasons = [run["reason"] for run in found["runs"] if run["outcome"] == "diverged"]
    assert reasons[0] == "loss is nan"
    assert "is not finite at step 0" in reasons[1]


def test_runs_are_recorded(found):
    places = {run["recipe"]: Path(run["folder"]) for run in found["runs"] if run["seed"] == 0}
    assert not (places["none"] / "run.h5").exists()
    with TraceReader(places["paper-w8a8g8"] / "run.h5") as reader:
        assert len(reader.steps) == 4
