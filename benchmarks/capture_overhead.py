"""How much slower is training under capture?

    python -m benchmarks.capture_overhead [--rounds N]

Trains ResNet-18 on 32×32 images of noise, ten steps at a time: without capture, and under three
settings of it, in turns; the same with a narrow one, and networks of very short steps.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

import hqtool
from benchmarks.resnet import SIZES, network, training
from benchmarks.turns import Contender, described, in_turns, table
from hqtool.capture.session import Session
from hqtool.capture.settings import CaptureSettings
from hqtool.trace.writer import TraceWriter

#: Steps in a turn: by default values are kept at the first of ten.
STEPS = 10

#: What is measured, and the options of capture for it.
VARIANTS: dict[str, dict[str, Any]] = {
    "statistics only (`--steps 0:0`)": {"steps": (0, 0)},
    "defaults (samples of values every 10th step)": {},
    "all values every 10th step (`--full`)": {"full": True},
}


def contenders(model: nn.Module, step: Callable[[], float]) -> dict[str, Contender]:
    """Training without capture, and under each setting of it."""

    def under(options: dict[str, Any]) -> Contender:
        return Contender(step, lambda path: hqtool.capture(model, path, **options))

    captured = {name: under(options) for name, options in VARIANTS.items()}
    return {"without capture": Contender(step), **captured}


def run(rounds: int = 16) -> str:
    """All of it, as Markdown.

    Args:
        rounds: how often each variant has its turn.
    """
    return "\n\n".join(parts(rounds))


def parts(rounds: int) -> Iterator[str]:
    """The same, one sort of networks after the other."""
    yield from (_part(rounds, *size) for size in SIZES)
    yield "\n".join(_shortest_steps(rounds))


def _part(rounds: int, width: int, batch_size: int) -> str:
    torch.manual_seed(0)
    model = network(width)
    measured = in_turns(contenders(model, training(model, batch_size)), rounds, STEPS)
    sort = f"{width} channels, batches of {batch_size} of 32×32 images"
    text = f"ResNet-18, 21 recorded layers, {sort}; {described(measured, STEPS)}"
    return "\n".join([text, "", *table(measured, STEPS)])


# --- shortest steps -------------------------------------------------------------------------------


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


SHORTEST = {
    "three linear layers": perceptron,
    "75 linear layers, an optimizer for each parameter": optimizer_for_each_parameter,
}


def _shortest_steps(rounds: int) -> list[str]:
    lines = [
        f"Shortest steps, with the defaults, one thread; {rounds} turns of 100 steps each.",
        "",
        "| training | ms a step | under capture | ratio | from | to |",
        "|---|---|---|---|---|---|",
    ]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name, make in SHORTEST.items():
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
    for part in parts(parser.parse_args().rounds):
        print(part, end="\n\n", flush=True)


if __name__ == "__main__":
    main()
