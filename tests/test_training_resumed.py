"""A quantized training that goes on from a checkpoint ends with the same bits."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from command import hqtool as command_line  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from warm_python import WarmPython  # noqa: E402

import hqtool  # noqa: E402
from hqtool import training  # noqa: E402
from hqtool.errors import DataError  # noqa: E402
from hqtool.estimators.plain_states import from_plain, to_plain  # noqa: E402
from hqtool.recipes.recipe import Recipe  # noqa: E402
from hqtool.recipes.recipe_file import dumps, parse_recipe  # noqa: E402
from hqtool.trace.reader import TraceReader  # noqa: E402
from hqtool.vocab import EntryRanges, Range  # noqa: E402

SCRIPT = """
import os, sys, torch
from torch import nn
import hqtool.training

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
optimizer = torch.optim.SGD(model.parameters(), 0.005, momentum=0.9)
first, last = map(int, sys.argv[1:])
if first:
    saved = torch.load("saved.pt")
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    hqtool.training.load_state_dict(saved["hqtool"])
for step in range(first, last):
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(step))
    for part in (x, 2 * x):
        model(part).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    with torch.no_grad():
        print(step, model(3 * x).sum().item())
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(),
                "hqtool": hqtool.training.state_dict()}, "saved.pt")
print(len(hqtool.training.state_dict()), *(p.sum().item() for p in model.parameters()))
"""


def test_a_script_that_asks_goes_on_with_the_same_bits(
    tmp_path: Path, warm_python: WarmPython
) -> None:
    (tmp_path / "own.py").write_text(SCRIPT)

    def run(first: int, last: int, *before: str) -> list[str]:
        done = warm_python.run(tmp_path, *before, "own.py", str(first), str(last))
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def train(first: int, last: int, *options: str) -> list[str]:
        return run(first, last, "-m", "hqtool", "train", "--recipe", "mine.toml", *options)

    (tmp_path / "mine.toml").write_text(
        'schema = "hqtool.recipe/1"\n[[rule]]\nweight = "current@int8/stochastic"\n'
        'output = "hindsight@int4/stochastic"\ngrad_input = "delayed@int8/stochastic"\n'
    )
    whole = train(0, 6)
    assert train(0, 3)[:3] == whole[:3]
    assert train(3, 6, "-o", "resumed.h5") == whole[3:]
    with TraceReader(tmp_path / "resumed.h5") as trace:
        assert trace.run["resumed_at"] == 3
        (first, *_), *_ = (list(trace.records(site)) for site in trace.sites)
        assert first.step == 3
    plain = run(6, 7)  # the state of which nothing is needed here
    assert plain[-1].split()[0] == "0"


def recipe(**quantizers: str) -> Recipe:
    lines = [f'{kind} = "{text}"' for kind, text in quantizers.items()]
    return parse_recipe('schema = "hqtool.recipe/1"\n[[rule]]\n' + "\n".join(lines), "mine")


ESTIMATORS = (
    "current",
    "running",
    "hindsight",
    "hindsight:per=channel",
    "delayed:window=3",
    "dsgc:interval=2",
    "saturation:target=0.01",
    "fixed:lo=-1,hi=1",
    "std",
)


def train_some(model: nn.Module, steps: range) -> Tensor:
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for step in steps:
        x = torch.randn(4, 5, generator=torch.Generator().manual_seed(step))
        model(x).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.weight.detach().clone()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_estimators_state_passes_through_json(estimator: str, tmp_path: Path) -> None:
    """And RUN.h5 tells it, for its replay to begin with it, too."""
    torch.manual_seed(0)
    how = recipe(output=f"{estimator}@int4", grad_output=f"{estimator}@int4")
    whole = nn.Linear(5, 3)
    parts = copy.deepcopy(whole)
    with hqtool.train(whole, how):
        wanted = train_some(whole, range(6))
    with hqtool.train(parts, how):
        train_some(parts, range(3))
        saved = json.loads(json.dumps(training.state_dict()))
    assert saved["step"] == 3
    assert set(saved["sites"]) == {"linear/output", "linear/grad_output"}
    with hqtool.train(parts, how, tmp_path / "run.h5"):
        training.load_state_dict(saved)
        assert json.loads(json.dumps(training.state_dict()))["sites"] == saved["sites"]
        assert torch.equal(train_some(parts, range(3, 6)), wanted)
    if not estimator.startswith("dsgc"):  # it searches in values, which are not recorded
        assert replayed(tmp_path / "run.h5", how) == used(tmp_path / "run.h5")


Ranges = dict[tuple[str, int], tuple[float, float, bool]]


def replayed(run: Path, how: Recipe) -> Ranges:
    recipe = run.with_suffix(".toml")
    recipe.write_text(dumps(how))
    done = command_line("compare", run, "--recipe", recipe, "--per-step", "--json", "-", "-q")
    assert done.status == 0, done.err
    return {
        (f"{row['layer']}/{row['tensor']}", row["step"]): (row["lo"], row["hi"], row["looked"])
        for row in json.loads(done.out)["steps"]
    }


def used(run: Path) -> Ranges:
    with TraceReader(run) as trace:
        return {
            (str(site), each.step): (*each.range, each.looked)
            for site in trace.sites
            for each in trace.records(site)
            if each.range is not None
        }


def test_asking_changes_nothing() -> None:
    how = recipe(output="hindsight@int4/stochastic")
    found = []
    for asks in (False, True):
        torch.manual_seed(0)
        model = nn.Linear(5, 3)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        with hqtool.train(model, how):
            for _ in range(4):
                y = model(torch.randn(4, 5))
                assert not asks or training.state_dict()
                y.sum().backward()
                assert not asks or training.state_dict()
                optimizer.step()
        found.append(model.weight.detach())
    assert torch.equal(*found)


def test_where_nothing_is_quantized() -> None:
    assert training.state_dict() == {}
    training.load_state_dict({})
    model = nn.Linear(5, 3)
    with hqtool.train(model, recipe(output="current@int8")) as session:
        state = training.state_dict()
        assert state == session.state_dict()
    assert training.state_dict() == {}
    training.load_state_dict(state)
    with hqtool.train(model, "none"):
        assert training.state_dict() == {}


def test_what_cannot_be_loaded() -> None:
    model = nn.Linear(5, 3)
    with hqtool.train(model, recipe(output="current@int8")):
        state = training.state_dict()
    with hqtool.train(model, recipe(output="current@int4")):
        with pytest.raises(DataError, match="another recipe than mine"):
            training.load_state_dict(state)
        with pytest.raises(DataError, match="its schema is not hqtool"):
            training.load_state_dict({"model": {}})


def test_values_of_every_kind() -> None:
    ranges = EntryRanges("channel", np.array([-1.0, np.nan]), np.array([1.0, 2.5]))
    value: Any = (None, True, 3, 0.1, "x", Range(np.float64(-1.0), 2.0), (), ranges)
    plain = json.loads(json.dumps(to_plain(value)))
    assert from_plain(plain) == value
    for wrong in ({1, 2}, object(), {"a": 1}):
        with pytest.raises(DataError, match="cannot be saved"):
            to_plain(wrong)
    for wrong in ({"class": "os:system", "fields": {}}, {"class": "gone:X", "fields": {}}):
        with pytest.raises(DataError, match="which is not here"):
            from_plain(wrong)
