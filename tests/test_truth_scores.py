"""The scores that are set beside trainings: by hand, and against oracles."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

from benchmarks.truth.correlation import (
    Correlation,
    ceiling,
    chosen,
    lost_by_model,
    spearman,
    wins,
)
from benchmarks.truth.offline.ranges import kept_records, ranges_of
from benchmarks.truth.offline.replayed import Network, Replayed
from benchmarks.truth.offline.site_errors import site_errors
from benchmarks.truth.offline.site_scores import chain, chain_log, noise, noise_by_update, sqnr
from benchmarks.truth.offline.weight_gradients import weight_gradient
from hqtool import TraceWriter
from hqtool.compare.comparison import Selection, compare
from hqtool.compare.settings import ReplaySettings
from hqtool.estimators.quantizer import parse_quantizer
from hqtool.trace.reader import TraceReader
from hqtool.vocab import Site

DIGITS = "sample_data/digits.h5"


def test_spearman_is_scipys():
    rng = np.random.default_rng(0)
    one, other = rng.integers(5, size=(3, 12)), rng.random((3, 12))
    wanted = [stats.spearmanr(a, b).statistic for a, b in zip(one, other, strict=True)]
    assert spearman(one, other) == pytest.approx(wanted)
    assert math.isnan(spearman(np.ones(4), np.arange(4)))


def run(setting, seed, accuracy, status="finished"):
    named = {"model": "m", "setting": setting, "table": "1", "seed": str(seed)}
    return named | {"status": status, "accuracy": accuracy, "seconds": "1"}


def test_losses_are_paired_by_seed():
    found = lost_by_model(
        [
            *(run("none", 0, "90"), run("none", 1, "80"), run("int4", 1, "70")),
            *(run("int4", 0, "85"), run("int2", 0, "", "diverged"), run("int2", 1, "", "failed")),
            run("gone", 0, "", "failed"),
        ]
    )["m"]
    assert found.settings == ("int4", "int2")
    assert found.losses == pytest.approx(np.array([[5, 10], [90, math.nan]]), nan_ok=True)
    assert found.mean.tolist() == [7.5, 90.0]


def test_ceiling_by_hand():
    # Two seeds that rank 1 2 3 4 and 1 3 2 4: ρ = 0.8, reliability 1.6/1.8, ceiling its root.
    losses = np.array([[1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 4.0]]).T
    assert ceiling(SimpleNamespace(losses=losses)) == pytest.approx(math.sqrt(1.6 / 1.8))
    assert math.isnan(ceiling(SimpleNamespace(losses=losses[:, :1])))


def test_rule():
    def of(value, above_low):
        return Correlation(value, 0, 0, 0, above_low, 0, 0)

    found = {
        "residual": {"sqnr": of(0.5, 0), "a": of(0.9, 0), "b": of(0.7, 0)},
        "plain": {"sqnr": of(0.6, 0), "a": of(0.5, 0), "b": of(0.8, 0)},
        "depthwise": {"sqnr": of(0.1, 0), "a": of(0.99, 0.5), "b": of(0.6, 0.1)},
        "transformer": {"sqnr": of(0.1, 0), "a": of(0.99, 0.5), "b": of(0.6, -0.1)},
    }
    assert chosen(found) == "b"
    assert not wins(found, "b")
    assert wins(found, "a")


def test_site_scores_by_hand():
    # Of three layers the second's output and G_X are quantized, at 10 dB and 0 dB.
    network = Network(("a", "b", "c"), 18, {}, {"a": 0.5, "b": 0.25, "c": 0.25})
    sites = [
        SimpleNamespace(layer="b", tensor=tensor, sqnr_db=db, noise=10 ** (-db / 10))
        for tensor, db in (("output", 10.0), ("grad_input", 0.0))
    ]
    replayed = Replayed(network, sites, {}, {})
    assert sqnr(replayed) == -5.0
    assert noise(replayed) == pytest.approx(1.1)
    assert noise_by_update(replayed) == pytest.approx(1.1 / 4)
    # The gradient's noise is in the weight gradients of two layers of three.
    assert chain(replayed) == pytest.approx(0.1 + 2 / 3)
    assert chain_log(replayed) == pytest.approx(math.log2(1.1) + 2 / 3)


def test_site_errors_by_hand(tmp_path):
    # int2 over (−1, 2) has the levels −1, 0, 1, 2: 4 is clipped to 2, 0.25 becomes 0, 1.5 is 2.
    values = np.array([[4.0, 0.25], [1.5, -1.0]], np.float32)
    with TraceWriter(tmp_path / "one.h5") as writer:
        writer.write("fc", "output", 0, values)
        writer.commit(0)
    quantizer = parse_quantizer("fixed:lo=-1,hi=2@int2")
    with TraceReader(tmp_path / "one.h5") as reader:
        found = site_errors(reader, Site("fc", "output"), [quantizer])[quantizer]
    assert found.granular == pytest.approx((0.25**2 + 0.5**2) / (16 + 1 / 16 + 2.25 + 1))
    assert found.elements == pytest.approx((4 / 16 + 1 + 0.25 / 2.25 + 0) / 4)
    # Channels (4, 1.5) and (0.25, −1): mean errors 4.25/2 and 1/32, variances 1.25² and 0.625².
    ratios = 2.125 / 1.5625, (1 / 32) / 0.390625
    assert found.channels == pytest.approx(sum(math.log2(1 + r) for r in ratios) / 2)


@pytest.mark.parametrize(
    ("module", "shape", "geometry"),
    [
        (
            torch.nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, bias=False),
            (5, 4, 7, 7),
            {"op": "conv2d", "in_channels": 4, "out_channels": 6, "groups": 2}
            | {"kernel": [3, 3], "stride": [2, 2], "padding": [1, 1], "dilation": [1, 1]},
        ),
        (torch.nn.Linear(4, 6, bias=False), (5, 3, 4), {"op": "linear"}),
    ],
)
def test_weight_gradient_is_autograds(module, shape, geometry):
    x = torch.randn(shape)
    y = module(x)
    g = torch.randn_like(y)
    y.backward(g)
    found = weight_gradient(geometry, x, g)
    assert found.numpy() == pytest.approx(module.weight.grad.double().numpy(), abs=1e-4)


@pytest.mark.parametrize("text", ["hindsight@int4/stochastic", "dsgc:interval=20@int4"])
def test_ranges_are_the_replays(text):
    site, quantizer, rows = Site("layer2.0.conv1", "grad_input"), parse_quantizer(text), []

    def read(path):
        with open(path) as lines:
            rows.extend(map(json.loads, lines))

    selection = Selection((site.layer,), (site.tensor,))
    compare([DIGITS], ReplaySettings((quantizer,)), selection, on_spool=read)
    with TraceReader(DIGITS) as reader:
        history = reader.history(site)
        found = dict(ranges_of(history, quantizer, kept_records(history)))
    assert [tuple(each) for each in found.values()] == [(row["lo"], row["hi"]) for row in rows]
