"""A trace stays within its budget, however long the run."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from capture_models import captured, read_records, read_run  # noqa: E402
from torch import nn  # noqa: E402

from hqtool.capture.budget import Budget, budget_of  # noqa: E402
from hqtool.capture.settings import CaptureSettings  # noqa: E402
from hqtool.errors import UsageError  # noqa: E402


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("none", None),
        ("4096", 4096),
        ("1B", 1),
        ("3KiB", 3072),
        ("1.5 MiB", 3 << 19),
        ("2GiB", 2 << 30),
        ("1TiB", 1 << 40),
    ],
)
def test_sizes(text: str, size: int | None) -> None:
    assert budget_of(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "GiB", "2GB", "2 gib", "1e3", "nan", "many"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(UsageError, match="not a budget"):
        budget_of(text)


def test_a_budget_below_one_byte() -> None:
    with pytest.raises(UsageError):
        CaptureSettings(budget_bytes=0)


@pytest.mark.parametrize("step_bytes", [1, 7, 100, 499])
def test_the_rule(step_bytes: int) -> None:
    """The spacing never shrinks, the size never passes the budget, and half of it gets used."""
    budget, size, spacings = Budget(1000, 3), 1, [3]
    for step in range(20_000):
        if step % budget.every == 0 and budget.admits(step_bytes):
            size += step_bytes
        budget.committed(step, size)
        spacings.append(budget.every)
    assert spacings == sorted(spacings)
    assert spacings[-1] > 3
    assert 400 < size <= 1000


def train(path: Path, steps: int, budget_bytes: int | None, width: int = 300) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, width), nn.Linear(width, 2))
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    with captured(path, every=1, budget_bytes=budget_bytes):
        for _ in range(steps):
            model(torch.randn(256, 4)).square().mean().backward()
            optimizer.step()
    return model


def test_values_get_rarer_and_training_stays(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    limit = 16 << 20
    thinned, free = train(tmp_path / "t.h5", 100, limit), train(tmp_path / "f.h5", 100, None)
    assert not torch.isnan(free[0].weight).any()
    assert all(map(torch.equal, thinned.parameters(), free.parameters()))
    assert (tmp_path / "t.h5").stat().st_size <= limit < (tmp_path / "f.h5").stat().st_size
    records = read_records(tmp_path / "t.h5")
    assert {key[2] for key in records} == set(range(100))
    kept = sorted({key[2] for key, record in records.items() if record.values is not None})
    gaps = [b - a for a, b in itertools.pairwise(kept)]
    assert gaps == sorted(gaps)
    assert gaps[0] == 1 < gaps[-1]
    spacing = read_run(tmp_path / "t.h5")["budget"]["spacing"]
    assert [every for _, every in spacing] == sorted(every for _, every in spacing)
    assert capsys.readouterr().err.count("to stay within --budget 16.0 MiB") == 1
    assert "budget" not in read_run(tmp_path / "f.h5")


def test_a_spent_budget_ends_recording(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    train(tmp_path / "t.h5", 5, 1)
    run, records = read_run(tmp_path / "t.h5"), read_records(tmp_path / "t.h5")
    assert run["budget"] == {"bytes": 1, "spacing": [], "spent_after_step": 0}
    assert {key[2] for key in records} == {0}
    assert not [record for record in records.values() if record.values is not None]
    assert "training goes on: the trace's budget is spent" in capsys.readouterr().err
