"""The settings of what a capture keeps, and the closing lines that report what it left out."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from capture_models import captured, read_records  # noqa: E402

from hqtool.capture.messages import closing_lines, unrecorded_lines  # noqa: E402
from hqtool.capture.recording import RecordingPlan  # noqa: E402
from hqtool.capture.settings import CaptureSettings  # noqa: E402
from hqtool.errors import UsageError  # noqa: E402

# --- settings -------------------------------------------------------------------------------------


def kept(settings: CaptureSettings, steps: int) -> list[int]:
    return [step for step in range(steps) if settings.keeps_values(step)]


def test_a_burst_is_of_consecutive_steps() -> None:
    assert kept(CaptureSettings(every=5, burst=2), 12) == [0, 1, 5, 6, 10, 11]
    assert kept(CaptureSettings(every=5, burst=2, steps=(1, 10)), 12) == [1, 5, 6]
    assert kept(CaptureSettings(every=3, burst=3), 5) == [0, 1, 2, 3, 4]
    assert kept(CaptureSettings(every=4), 9) == [0, 4, 8]


def test_a_burst_is_recorded(tmp_path: Path) -> None:
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    with captured(tmp_path / "T.h5", every=4, burst=2):
        for _ in range(7):
            layer(torch.ones(1, 2)).sum().backward()
            optimizer.step()
    records = read_records(tmp_path / "T.h5")
    assert {key[2] for key in records} == set(range(7))
    with_values = {key[2] for key, record in records.items() if record.values is not None}
    assert with_values == {0, 1, 4, 5}


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"burst": 0}, "burst is below 1"),
        ({"every": 2, "burst": 3}, "burst 3 is longer than every 2"),
        ({"module_types": ["nn.Linear"]}, "not a class name: nn.Linear"),
        ({"module_types": "Linear"}, "module_types is one text"),
        ({"step_on": "never"}, "unknown step_on: never"),
    ],
)
def test_options_out_of_bounds(options: dict[str, object], cause: str) -> None:
    with pytest.raises(UsageError, match=cause):
        CaptureSettings(**options)  # type: ignore[arg-type]


def test_a_plan_reaches_another_process_whole() -> None:
    settings = CaptureSettings(module_types=("Own", "LSTM"), every=7, burst=3, follow_fork=True)
    plan = RecordingPlan("a b'\".h5", "/tmp", ("train.py", "--x", "ü"), settings, True)
    assert RecordingPlan.from_json(plan.to_json()) == plan


# --- at the end -----------------------------------------------------------------------------------


def test_layers_that_were_not_recorded_are_listed_by_reason() -> None:
    many = {f"block{n}": "not called as a module" for n in range(30)}
    lines = unrecorded_lines(many | {"lstm": "LSTM is not recorded"})
    first = "not recorded: 30 layers (not called as a module): block0, block1, …"
    assert lines == [first, "not recorded: lstm (LSTM is not recorded)"]
    assert unrecorded_lines({}) == []


def test_a_glob_that_takes_no_layer_is_told(tmp_path: Path) -> None:
    with captured(tmp_path / "t.h5", layers=["stem*"]) as session:
        torch.nn.Linear(2, 2)(torch.ones(1, 2)).sum().backward()
    assert session.outcome is not None
    *_, last = closing_lines("t.h5", session.outcome)
    assert last == "nothing recorded: --layers and --exclude leave out linear"


def test_of_many_reasons_the_commonest_are_told() -> None:
    reasons = {f"{why}{n}": f"reason {why}" for why in range(8) for n in range(8 - why)}
    lines = unrecorded_lines(reasons)
    assert len(lines) == 5
    assert lines[0].startswith("not recorded: 8 layers (reason 0): 00, 01, 02, ")
    assert lines[-1].startswith("not recorded: layers for 4 more reasons")
    assert all(len(f"hqtool: {line}") <= 80 for line in lines)
