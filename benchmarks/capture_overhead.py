"""How much slower is training under capture?

    python -m benchmarks.capture_overhead [--rounds N] [--width N] [--batch-size N]

Trains ResNet-18 on 32×32 images of noise, ten steps at a time: without capture, and under three
settings of it, in turns. All run in one process: on a shared machine, processes that do the same
may differ in speed by a factor of two.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import hqtool
from hqtool.capture.session import Session
from hqtool.capture.settings import CaptureSettings
from hqtool.trace.writer import TraceWriter

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "sample_data"))
from train_digits import Block

#: Steps in a turn: by default values are kept at the first of ten.
STEPS = 10

#: What is measured, and the options of capture for it; None: without capture.
VARIANTS: dict[str, dict[str, Any] | None] = {
    "without capture": None,
    "statistics only (`--steps 0:0`)": {"steps": (0, 0)},
    "defaults (samples of values every 10th step)": {},
    "all values every 10th step (`--full`)": {"full": True},
}
WITHOUT_CAPTURE = next(iter(VARIANTS))


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


def training(
    model: nn.Module, batch_size: int, shape: tuple[int, ...] = (3, 32, 32)
) -> Callable[[], float]:
    """An ordinary training loop; each call makes a step and tells the seconds it took."""
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    x, y = torch.randn(batch_size, *shape), torch.randint(10, (batch_size,))

    def step() -> float:
        began = time.perf_counter()
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        return time.perf_counter() - began

    return step


def run(rounds: int = 16, width: int = 64, batch_size: int = 8) -> str:
    """All of it, as Markdown.

    Args:
        rounds: how often each variant has its turn.
        width: channels of the first layers.
    """
    torch.manual_seed(0)
    model = network(width)
    step = training(model, batch_size)
    for _ in range(STEPS):
        step()
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    sizes: dict[str, int] = {}
    order = deque(VARIANTS)
    for _ in range(rounds):
        for name in order:
            taken, sizes[name] = _turn_of(step, model, VARIANTS[name])
            seconds[name].append(taken)
        order.rotate()
    sort = f"{width} channels, batches of {batch_size}"
    return "\n".join([*_lines(seconds, sizes, sort), "", *_short_steps(rounds)])


def _turn_of(
    step: Callable[[], float], model: nn.Module, options: dict[str, Any] | None
) -> tuple[float, int]:
    """Seconds of a step, and bytes of the trace of one turn."""
    if options is None:
        return _mean_seconds(step), 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.h5"
        with hqtool.capture(model, path, **options):
            seconds = _mean_seconds(step)
        return seconds, path.stat().st_size


def _mean_seconds(step: Callable[[], float]) -> float:
    return statistics.mean(step() for _ in range(STEPS))


def _lines(seconds: dict[str, list[float]], sizes: dict[str, int], sort: str) -> list[str]:
    plain = seconds[WITHOUT_CAPTURE]
    return [
        f"ResNet-18, 21 recorded layers, {sort} of 32×32 images; torch on "
        f"{torch.get_num_threads()} threads. {len(plain)} turns of {STEPS} steps each, in one "
        "process. Ratios are to the steps without capture of the same turn: the median, and the "
        "middle half of the turns.",
        "",
        f"| training | ms a step | ratio | from | to | trace of {STEPS} steps |",
        "|---|---|---|---|---|---|",
        *(_line(name, own, plain, sizes[name]) for name, own in seconds.items()),
    ]


def _line(name: str, own: list[float], plain: list[float], size: int) -> str:
    ratios = [a / b for a, b in zip(own, plain, strict=True)]
    first, median, third = statistics.quantiles(ratios, n=4)
    trace = f"{size / 2**20:.1f} MiB" if size else ""
    times = f"× {median:.3f} | {first:.3f} | {third:.3f}"
    return f"| {name} | {1e3 * statistics.median(own):.1f} | {times} | {trace} |"


# --- short steps ----------------------------------------------------------------------------------


def perceptron() -> Callable[[], object]:
    """Three linear layers: a step of about a millisecond."""
    model = nn.Sequential(
        nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
    )
    return training(model, 64, (128,))


def optimizer_for_each_parameter() -> Callable[[], object]:
    """150 optimizers, each stepped as soon as its parameter has its gradient."""
    model = nn.Sequential(*[nn.Linear(64, 64) for _ in range(75)])
    optimizers = {each: torch.optim.SGD([each], 0.01) for each in model.parameters()}

    def update(parameter: torch.Tensor) -> None:
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    for each in model.parameters():
        each.register_post_accumulate_grad_hook(update)
    x = torch.randn(32, 64)
    return lambda: model(x).square().mean().backward()


SHORT = {
    "three linear layers": perceptron,
    "75 linear layers, an optimizer for each parameter": optimizer_for_each_parameter,
}


def _short_steps(rounds: int) -> list[str]:
    lines = [
        f"Short steps, recorded with the defaults, one thread; {rounds} turns of 100 steps each.",
        "",
        "| training | ms a step | under capture | ratio | from | to |",
        "|---|---|---|---|---|---|",
    ]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name, make in SHORT.items():
        plain, captured = zip(*(_short_turn(make) for _ in range(rounds)), strict=True)
        ratios = [a / b for a, b in zip(captured, plain, strict=True)]
        first, median, third = statistics.quantiles(ratios, n=4)
        times = f"{1e3 * statistics.median(plain):.2f} | {1e3 * statistics.median(captured):.2f}"
        lines.append(f"| {name} | {times} | × {median:.2f} | {first:.2f} | {third:.2f} |")
    torch.set_num_threads(threads)
    return lines


def _short_turn(make: Callable[[], Callable[[], object]]) -> tuple[float, float]:
    """Seconds of a step without capture, and under it."""
    plain = _steps_of(make())
    with tempfile.TemporaryDirectory() as folder:
        session = open_trace(f"{folder}/trace.h5")
        try:
            return plain, _steps_of(make())
        finally:
            session.detach()
            session.close("complete")


def open_trace(path: str) -> Session:
    """A capture of whatever model trains, as `hqtool capture` makes it."""
    session = Session(TraceWriter(path), CaptureSettings())
    session.attach()
    return session


def _steps_of(step: Callable[[], object]) -> float:
    for _ in range(20):
        step()
    began = time.perf_counter()
    for _ in range(100):
        step()
    return (time.perf_counter() - began) / 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=8)
    print(run(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
