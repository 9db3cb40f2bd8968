"""The ranges of a quantized run are those of its replay, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import hqtool

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import hqtool as api  # noqa: E402
from hqtool.estimators.presets import ESTIMATORS  # noqa: E402
from hqtool.recipes.recipe import Recipe  # noqa: E402
from hqtool.recipes.recipe_file import parse_recipe  # noqa: E402

STEPS, PARTS = 7, 2

#: Statistics do not tell what these read: quantiles, cosines, mean magnitudes, shares clipped,
#: extremes of samples.
READ_VALUES = {
    *("best-mse", "best-sqnr", "chunks", "dsgc", "fp8-lm", "percentile", "saturation", "sawb"),
}

#: Those that every new estimator must join here or there.
FROM_STATISTICS = [
    *("current", "running:momentum=0.5", "hindsight", "hindsight:momentum=0", "maxabs", "std"),
    *("fixed:lo=-1,hi=2", "delayed:window=3", "delayed:init=one,margin=1", "te-current"),
    *("window:steps=3", "luq", "wage", "wage:hindsight=true", "sakr", "exponent"),
    "exponent:hindsight=true",
]
BY_CHANNEL = [f"{name}:per=channel" for name in ("current", "running", "hindsight", "maxabs")]


def test_every_estimator_is_tried_or_known_to_read_values() -> None:
    tried = {label.partition(":")[0] for label in FROM_STATISTICS}
    assert {each.name for each in ESTIMATORS} == tried | READ_VALUES | {"local"}


def recipe_of(labels: list[str]) -> Recipe:
    """A layer for each estimator, quantized everywhere by it."""
    kinds = ("weight", "output", "grad_output", "grad_input", "grad_weight")
    rules = [
        f'[[rule]]\nlayers = ["{place}"]\n'
        + "\n".join(f'{kind} = "{label}@{FORMATS[place % len(FORMATS)]}"' for kind in kinds)
        for place, label in enumerate(labels)
    ]
    return parse_recipe('schema = "hqtool.recipe/1"\n' + "\n".join(rules), "mine")


def trained(path: Path, labels: list[str]) -> None:
    """A layer for each estimator, trained with weights, gradients, and two micro-batches a step."""
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(6, 6) for _ in labels))
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    with api.train(model, recipe_of(labels), path):
        for _ in range(STEPS):
            optimizer.zero_grad()
            for _ in range(PARTS):
                (model(torch.randn(5, 6, requires_grad=True)) - 1).square().mean().backward()
            optimizer.step()


FORMATS = ("int8", "int8-symmetric", "e4m3")


@pytest.mark.parametrize("labels", [FROM_STATISTICS, BY_CHANNEL], ids=["tensor", "channel"])
def test_replay_gives_the_ranges_used(labels: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run.h5"
    trained(run, labels)
    quantizers = [f"--quantizer={label}@{FORMATS[i % 3]}" for i, label in enumerate(labels)]
    to = tmp_path / "c.json"
    assert hqtool("compare", run, *quantizers, "--per-step", "--json", to).status == 0
    rows = {
        (int(row["layer"]), row["tensor"], row["step"], row["micro"], row["estimator"]): row
        for row in json.loads(to.read_text())["steps"]
    }
    with api.TraceReader(run) as trace:
        assert len(trace.sites) == 5 * len(labels)
        for site in trace.sites:
            records = list(trace.records(site))
            assert len(records) == STEPS * PARTS
            for each in records:
                place = int(site.layer)
                row = rows[place, site.tensor, each.step, each.micro, labels[place]]
                used = (None, None) if each.range is None else each.range
                assert (row["lo"], row["hi"], row["looked"]) == (*used, each.looked), row
                assert row["mse"] is row["nonfinite"] is None


def test_info_tells_what_was_used(tmp_path: Path) -> None:
    run = tmp_path / "run.h5"
    trained(run, ["hindsight:momentum=0", "fixed:lo=-0.01,hi=0.01"])
    found = json.loads(hqtool("info", run, "--json", "-").out)
    with api.TraceReader(run) as trace:
        for row, site in zip(found["sites"], trace.sites, strict=True):
            records = list(trace.records(site))
            assert row["looks"] == (PARTS if site.layer == "0" else 0)
            assert row["clipped"] == pytest.approx(sum(r.clipped or 0 for r in records) / 14)
            assert (row["last_lo"], row["last_hi"]) == records[-1].range
    assert "100 % of all multiplications quantized, 10 looks at 140 tensors" in hqtool(
        "info", run
    ).out.replace("\n          ", "")
