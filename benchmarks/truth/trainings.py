"""The trainings: a study a model, seed by seed, each of which goes on where it was stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.truth.settings import (
    CALIBRATION_STEPS,
    COMMANDS,
    Setting,
    calibrated,
    settings,
    study_text,
)

COLUMNS = (
    "model", "setting", "table", "bits", "seed", "status", "accuracy", "seconds",
)  # fmt: skip


def train(
    folder: Path,
    models: Sequence[str],
    seeds: int,
    jobs: int = 2,
    alone: Sequence[Setting] | None = None,
) -> None:
    """Train all models with one seed under all settings, then with the next.

    Args:
        alone: only under these.
    """
    for count in range(1, seeds + 1):
        for model in models:
            for name, chosen, calibrate in [(model, alone, 0)] if alone else _parts(model):
                text = study_text(model, chosen, range(count), calibrate)
                _study(folder / name, text, jobs)


def _parts(model: str) -> list[tuple[str, Sequence[Setting], int]]:
    """Studies of a model: the name of each, its settings, steps that calibrate."""
    return [(model, settings(), 0), (f"{model}-calibrated", calibrated(), CALIBRATION_STEPS)]


def _study(out: Path, text: str, jobs: int) -> None:
    """Run a study; one that diverges or fails is told in its results."""
    out.parent.mkdir(parents=True, exist_ok=True)
    asked = out.with_suffix(".toml")
    asked.write_text(text, encoding="utf-8")
    words = ("study", str(asked), "-o", str(out), "--jobs", str(jobs))
    done = subprocess.run([sys.executable, "-m", "hqtool", *words], stdout=subprocess.DEVNULL)
    if done.returncode not in (0, 1):
        sys.exit(done.returncode)


def rows_of(folder: Path) -> Iterator[tuple[object, ...]]:
    """A row for each run that ended, by COLUMNS; a baseline that was trained twice counts once."""
    for model in COMMANDS:
        for name, chosen, calibrate in _parts(model):
            known = {each.name: each for each in chosen[1 if calibrate else 0 :]}
            yield from _rows(model, folder / name / "result.json", known)


def _rows(model: str, path: Path, known: dict[str, Setting]) -> Iterator[tuple[object, ...]]:
    if not path.exists():
        return
    result = json.loads(path.read_text(encoding="utf-8"))
    for run in sorted(result["runs"], key=_order(known)):
        if run["recipe"] in known:
            setting = known[run["recipe"]]
            yield (
                model, setting.name, setting.table, setting.bits or "", run["seed"],
                run["outcome"], _written(run["metric"]),
                round(run["seconds"], 1),
            )  # fmt: skip


def _order(known: dict[str, Setting]) -> Any:
    place = {name: i for i, name in enumerate(known)}
    return lambda run: (place.get(run["recipe"], -1), run["seed"])


def _written(value: object) -> object:
    return "" if value is None else value
