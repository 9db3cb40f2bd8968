"""How much slower is training under capture?

    python benchmarks/capture_overhead.py [--steps N] [--rounds N] [--width N] [--threads N]

The same training of a ResNet-18 (21 recorded layers, 32×32 images) without capture and under
three settings: statistics only, the defaults, and all values at every tenth step. The variants
take turns, so that a busy machine hurts all alike. Prints for each the median time of a step, the
ratios of its wall and processor time to plain training's (medians over rounds), its trace's size,
and the peak memory of a process that runs only it.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import hqtool

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "sample_data"))
from train_digits import Block

VARIANTS: dict[str, dict[str, object] | None] = {
    "plain": None,
    "statistics": {"every": 10**9, "steps": (1, None)},
    "default": {},
    "full": {"full": True},
}


def network(width: int) -> nn.Module:
    """ResNet-18 as it is used on 32×32 images: 20 convolutions and a linear head."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, width, 3, 1, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    ]
    channels = width
    for stage in range(4):
        stage_channels, stride = width << stage, 1 if stage == 0 else 2
        layers += [Block(channels, stage_channels, stride), Block(stage_channels, stage_channels)]
        channels = stage_channels
    head = nn.Linear(channels, 10)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)


def step_seconds(variant: str, args: argparse.Namespace, folder: str) -> tuple[float, float]:
    """Mean wall and processor time of a training step, after a first one that warms up."""
    torch.manual_seed(0)
    model = network(args.width)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    x, y = torch.randn(args.batch_size, 3, 32, 32), torch.randint(10, (args.batch_size,))
    start = 0.0, 0.0
    with capturing(model, variant, folder):
        for step in range(1 + args.steps):
            if step == 1:
                start = time.perf_counter(), time.process_time()
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        wall, processor = time.perf_counter() - start[0], time.process_time() - start[1]
    return wall / args.steps, processor / args.steps


def capturing(model: nn.Module, variant: str, folder: str) -> AbstractContextManager[object]:
    """The capture of a variant; none for plain training."""
    options = VARIANTS[variant]
    if options is None:
        return nullcontext()
    return hqtool.capture(model, Path(folder) / f"{variant}.h5", force=True, **options)


def peak_bytes(variant: str) -> int:
    """Peak memory of a process that runs this script for one variant only."""
    command = [sys.executable, __file__, "--only", variant, "--rounds", "1", *sys.argv[1:]]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(output)


def own_peak_bytes() -> int:
    """Peak memory of this process.

    Where Linux tells it: `ru_maxrss` of a child starts at the peak of the parent it came from.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    lines = status.read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def report(args: argparse.Namespace, folder: str) -> None:
    """Measure all variants in turns and print the table."""
    seconds: dict[str, list[tuple[float, float]]] = {variant: [] for variant in VARIANTS}
    step_seconds("plain", args, folder)
    for _ in range(args.rounds):
        for variant, times in seconds.items():
            times.append(step_seconds(variant, args, folder))
    print(f"{'':10} {'ms/step':>8} {'wall':>6} {'cpu':>6} {'trace':>10} {'peak':>9}")
    for variant, times in seconds.items():
        wall, processor = (
            statistics.median(
                own[clock] / plain[clock]
                for own, plain in zip(times, seconds["plain"], strict=True)
            )
            for clock in (0, 1)
        )
        milliseconds = 1e3 * statistics.median(own[0] for own in times)
        path = Path(folder) / f"{variant}.h5"
        trace = path.stat().st_size / 2**20 if path.exists() else 0.0
        peak = peak_bytes(variant) / 2**20
        print(
            f"{variant:10} {milliseconds:8.1f} {wall:6.3f} {processor:6.3f}"
            f" {trace:6.1f} MiB {peak:5.0f} MiB",
            flush=True,
        )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10, help="steps a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=int, default=64, help="channels of the first layers")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", choices=VARIANTS, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        if args.only is None:
            report(args, folder)
        else:
            step_seconds(args.only, args, folder)
            print(own_peak_bytes())


if __name__ == "__main__":
    main()
