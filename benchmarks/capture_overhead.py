"""How much slower is a training script under `hqtool capture`?

    python -m benchmarks.capture_overhead [--rounds N] [--steps N] [--width N] [--batch-size N]

Runs train_resnet18.py as it is and under three settings of capture: statistics only, the
defaults, and all values at every tenth step. The runs take turns, so that a busy machine hurts
all alike, and each is a process of its own, as its user would start it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SCRIPT = str(HERE / "train_resnet18.py")

#: What is measured, and the options of capture for it; None: without capture.
VARIANTS: dict[str, tuple[str, ...] | None] = {
    "without capture": None,
    "statistics only (`--steps 0:0`)": ("--steps", "0:0"),
    "defaults (samples of values every 10th step)": (),
    "all values every 10th step (`--full`)": ("--full",),
}
PLAIN = next(iter(VARIANTS))


def measure(
    options: tuple[str, ...] | None, training: Sequence[str], trace: Path
) -> dict[str, Any]:
    """What one run of the script reports, and the size of its trace in bytes."""
    command = [sys.executable, SCRIPT, *training]
    if options is not None:
        capture = ["-m", "hqtool", "capture", "-q", "-f", "-o", str(trace), *options, "--"]
        command[1:1] = capture
    environment = os.environ | {"PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, cwd=trace.parent, env=environment
    )
    size = trace.stat().st_size if options is not None else None
    return json.loads(done.stdout.splitlines()[-1]) | {"trace": size}


def run(rounds: int = 7, training: Sequence[str] = ()) -> str:
    """All of it, as Markdown.

    Args:
        rounds: how often each variant runs.
        training: arguments of the training script.
    """
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in VARIANTS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            for name, options in VARIANTS.items():
                runs[name].append(measure(options, training, Path(folder) / "trace.h5"))
    return "\n".join(_lines(runs, " ".join(training)))


def _lines(runs: dict[str, list[dict[str, Any]]], training: str) -> list[str]:
    plain = runs[PLAIN]
    script = f"`train_resnet18.py{' ' * bool(training)}{training}`"
    return [
        f"{script}: ResNet-18, 21 recorded layers, 32×32 images; torch on {plain[0]['threads']} "
        f"threads. {len(plain)} runs of each. Ratios are to the run without capture of the same "
        "turn; closing the trace is not counted.",
        "",
        "| training | ms a step | wall time | processor time | trace | peak memory |",
        "|---|---|---|---|---|---|",
        *(_line(name, own, plain) for name, own in runs.items()),
    ]


def _line(name: str, own: list[dict[str, Any]], plain: list[dict[str, Any]]) -> str:
    milliseconds = 1e3 * statistics.median(each["wall"] for each in own)
    ratios = [
        statistics.median(a[clock] / b[clock] for a, b in zip(own, plain, strict=True))
        for clock in ("wall", "processor")
    ]
    wall, processor = (f"× {ratio:.3f}" for ratio in ratios)
    trace, peak = (_mebibytes(own[-1][what]) for what in ("trace", "peak"))
    return f"| {name} | {milliseconds:.1f} | {wall} | {processor} | {trace} | {peak} |"


def _mebibytes(size: int | None) -> str:
    return "" if size is None else f"{size / 2**20:.1f} MiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    args, training = parser.parse_known_args()
    print(run(args.rounds, training))


if __name__ == "__main__":
    main()
