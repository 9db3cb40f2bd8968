"""The traffic that a quantized run tells at its end is that of its bill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import hqtool

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import hqtool as api  # noqa: E402
from hqtool.training.told.moved import Moved  # noqa: E402

STEPS = 4

RECIPE = """
schema = "hqtool.recipe/1"
[[rule]]
layers = ["*"]
weight = "current@int8"
output = "{output}"
grad_input = "{grad_input}"
"""


def run(folder: Path, output: str, grad_input: str) -> tuple[Moved, dict[str, Any]]:
    """What a run says that it moved, and its bill by `hqtool traffic`."""
    recipe, trace = folder / "mine.toml", folder / "run.h5"
    recipe.write_text(RECIPE.format(output=output, grad_input=grad_input))
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.Conv2d(4, 8, 3, groups=2), nn.Flatten(), nn.Linear(128, 3)
    )
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with api.train(model, recipe, trace, force=True) as session:
        for _ in range(STEPS):
            optimizer.zero_grad()
            model(torch.randn(5, 2, 8, 8)).square().mean().backward()
            optimizer.step()
    done = hqtool("traffic", trace, "--recipe", recipe, "--pass", "both", "--json", "-")
    assert done.status == 0, done.err
    assert session.outcome is not None
    assert session.outcome.moved is not None
    assert session.outcome.moved.line() in "\n".join(session.outcome.lines())
    return session.outcome.moved, json.loads(done.out)


def spilled() -> float:
    """Bytes of accumulator outputs, saved and loaded: Y of all layers, G_X of all but one."""
    outputs = 5 * (4 * 6 * 6 + 8 * 4 * 4 + 3)
    gradients = 5 * (4 * 6 * 6 + 128)
    return 2 * 4 * (outputs + gradients)


def test_what_hindsight_moves(tmp_path: Path) -> None:
    """A look at each tensor of step 0 alone."""
    moved, bill = run(tmp_path, "hindsight@int8", "hindsight@int8/stochastic")
    assert moved.static == bill["quantizers"][0]["bytes"]
    assert moved.dynamic == moved.static + spilled()
    assert moved.as_run == moved.static + spilled() / STEPS


def test_what_dynamic_estimators_move(tmp_path: Path) -> None:
    moved, bill = run(tmp_path, "current@e4m3", "running@int4")
    assert moved.as_run == moved.dynamic == bill["quantizers"][0]["bytes"]


def test_what_blocks_move(tmp_path: Path) -> None:
    """They read themselves on chip, and have scales to move."""
    moved, bill = run(tmp_path, "local@mxfp8", "local@mxfp4")
    assert moved.as_run == moved.static == bill["quantizers"][0]["bytes"]
    assert moved.dynamic == moved.static + spilled()
