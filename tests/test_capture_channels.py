"""`capture --per-channel`: the extremes of each channel, of every site, at every step."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from capture_models import ALL_KINDS, captured, read_records  # noqa: E402
from test_channel_extremes import extremes_of  # noqa: E402
from torch import nn  # noqa: E402

from hqtool.capture import recorder as recorder_module  # noqa: E402
from hqtool.capture.channels import channel_extremes  # noqa: E402
from hqtool.trace.reader import TraceReader  # noqa: E402

SHAPES = [((4, 3, 5, 5), -3), ((4, 6), -1), ((2, 3, 6), -1), ((6,), -1), ((3, 5, 5), 0)]


def train(steps: int = 2) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.ReLU(), nn.ConvTranspose2d(3, 4, 2), nn.Flatten(), nn.Linear(100, 5)
    )
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(steps):
        model(torch.randn(4, 2, 6, 6)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_extremes_are_those_of_the_finite_values(shape, axis, dtype) -> None:
    x = torch.randn(shape, dtype=torch.float64).to(dtype)
    x.view(-1)[0], x.view(-1)[1] = math.nan, -math.inf
    x.movedim(axis, 0)[-1] = math.nan
    for tensor in (
        x,
        x.nan_to_num(0.0, 0.0, 0.0),
        x.transpose(0, -1).contiguous().transpose(0, -1),
    ):
        found = channel_extremes(tensor, axis)
        np.testing.assert_array_equal(
            found.double().numpy(), extremes_of(tensor.double().numpy(), axis)
        )


def test_a_tensor_without_that_axis_has_none() -> None:
    assert channel_extremes(torch.tensor(1.0), -1) is None
    assert channel_extremes(torch.ones(3), -3) is None


def test_every_site_at_every_step(tmp_path: Path) -> None:
    path = tmp_path / "trace.h5"
    with captured(path, per_channel=True, tensors=ALL_KINDS, every=1):
        train()
    records = read_records(path)
    assert {key[1] for key in records} == set(ALL_KINDS)
    for (layer, kind, *_), record in records.items():
        axis = {"0": 1, "2": 1, "4": -1}[layer]
        if "weight" in kind:
            axis = 1 if layer == "2" else 0
        np.testing.assert_array_equal(
            record.channel_extremes, extremes_of(record.values, axis), f"{layer}/{kind}"
        )


def test_statistics_alone_and_samples_have_them_too(tmp_path: Path) -> None:
    with captured(tmp_path / "all.h5", per_channel=True, every=1):
        train()
    with captured(tmp_path / "some.h5", per_channel=True, every=2, max_elements=60):
        train()
    whole, sampled = read_records(tmp_path / "all.h5"), read_records(tmp_path / "some.h5")
    assert {record.sampled for record in sampled.values()} == {False, True}
    for key, record in sampled.items():
        np.testing.assert_array_equal(record.channel_extremes, whole[key].channel_extremes)


def test_off_by_default(tmp_path: Path) -> None:
    with captured(tmp_path / "trace.h5"):
        train()
    with TraceReader(tmp_path / "trace.h5") as trace:
        assert not trace.has_channel_extremes


def test_on_an_accelerator_they_are_fetched_at_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"per_channel": True, "every": 1, "tensors": ALL_KINDS}
    with captured(tmp_path / "cpu.h5", **options):
        train()
    monkeypatch.setattr(recorder_module, "_is_on_cpu", lambda tensor: False)
    with captured(tmp_path / "deferred.h5", **options):
        train()
    near, far = read_records(tmp_path / "cpu.h5"), read_records(tmp_path / "deferred.h5")
    for key, record in near.items():
        np.testing.assert_array_equal(far[key].channel_extremes, record.channel_extremes)
