"""Train, score and write benchmarks/truth.md.

python -m benchmarks.truth [--quick] [--seeds N] [--jobs N] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.__main__ import machine
from benchmarks.truth.correlation import RUNS, SCORES, write_rows
from benchmarks.truth.document import ABOUT, write
from benchmarks.truth.runs import Runs
from benchmarks.truth.scoring import COLUMNS as SCORE_COLUMNS
from benchmarks.truth.scoring import score_rows
from benchmarks.truth.settings import COMMANDS, Setting, settings
from benchmarks.truth.tables import settings_table
from benchmarks.truth.trainings import COLUMNS, rows_of, train

#: What the quick form trains.
QUICK = ("none", "w8a8g8-hindsight", "w4a4g4-hindsight", "w4a4g4-current", "w2a2g2-hindsight")


def main(arguments: Sequence[str] | None = None) -> None:
    """As asked on the command line, or by these arguments."""
    asked = _asked(arguments)
    if asked.quick:
        _quick(asked.out.with_name(f"{asked.out.name}-quick"), asked.jobs)
        return
    train(asked.out, list(COMMANDS), asked.seeds, asked.jobs)
    keep(asked.out)


def keep(folder: Path) -> None:
    """Keep the runs that ended, score their settings, and write the document."""
    write_rows(RUNS, COLUMNS, rows_of(folder))
    write_rows(SCORES, SCORE_COLUMNS, score_rows(folder, list(COMMANDS)))
    about = {"machine": machine().partition(" Medians;")[0]}
    ABOUT.write_text(json.dumps(about) + "\n", encoding="utf-8")
    write()


def _quick(folder: Path, jobs: int) -> None:
    """A few settings, two seeds, printed."""
    chosen: list[Setting] = [each for each in settings() if each.name in QUICK]
    train(folder, list(COMMANDS), 2, jobs, chosen)
    rows = [dict(zip(COLUMNS, map(str, row), strict=True)) for row in rows_of(folder)]
    print(settings_table(chosen, Runs.of(rows)))


def _asked(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench truth", description="Does replay tell?")
    parser.add_argument("--quick", action="store_true", help="a few settings, under ten minutes")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("truth-runs"), help="the studies' folder")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
