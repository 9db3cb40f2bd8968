"""Contenders that train in turns, in one process, and the table of their times.

On a shared machine, processes that do the same may differ in speed by a factor of two; steps of one
process that follow each other do not.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch

#: What a contender's steps run within: it is given the path of a trace that it may write.
Within = Callable[[Path], AbstractContextManager[object]]


class Contender(NamedTuple):
    """A way to train.

    Args:
        step: makes a step and tells the seconds it took.
        within: entered before the steps of a turn and left after them.
    """

    step: Callable[[], float]
    within: Within = lambda path: nullcontext()


class Turns(NamedTuple):
    """What was measured of a contender.

    Args:
        seconds: of a step, for each turn.
        trace_bytes: what the last turn wrote; 0: nothing.
    """

    seconds: list[float]
    trace_bytes: int


def in_turns(
    contenders: Mapping[str, Contender],
    rounds: int,
    steps: int,
    of_steps: Callable[[Iterable[float]], float] = statistics.mean,
) -> dict[str, Turns]:
    """Let each contender have its turn of some steps, round after round.

    The order rotates, so that none always follows the same one.

    Args:
        of_steps: what counts of a turn's steps: their mean where some do more than others, else the
            median, which a step that was disturbed changes less.
    """
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    sizes: dict[str, int] = {}
    order = deque(contenders)
    for contender in contenders.values():
        _turn(contender, steps, of_steps)  # unmeasured: memory and caches are made ready
    for _ in range(rounds):
        for name in order:
            seconds, sizes[name] = _turn(contenders[name], steps, of_steps)
            taken[name].append(seconds)
        order.rotate()
    return {name: Turns(taken[name], sizes[name]) for name in contenders}


def _turn(
    contender: Contender, steps: int, of_steps: Callable[[Iterable[float]], float]
) -> tuple[float, int]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trace.h5"
        with contender.within(path):
            seconds = of_steps([contender.step() for _ in range(steps)])
        return seconds, path.stat().st_size if path.exists() else 0


def table(measured: Mapping[str, Turns], steps: int) -> list[str]:
    """Markdown; the first contender is what the others are compared with."""
    plain = next(iter(measured.values())).seconds
    return [
        f"| training | ms a step | ratio | from | to | trace of {steps} steps |",
        "|---|---|---|---|---|---|",
        *(_line(name, each, plain) for name, each in measured.items()),
    ]


def described(measured: Mapping[str, Turns], steps: int) -> str:
    """How a table was measured."""
    rounds = len(next(iter(measured.values())).seconds)
    return (
        f"torch on {torch.get_num_threads()} threads. {rounds} turns of {steps} steps each, in "
        "one process. Ratios are to the plain steps of the same turn: the median, and the middle "
        "half of the turns."
    )


def _line(name: str, each: Turns, plain: Sequence[float]) -> str:
    ratios = [a / b for a, b in zip(each.seconds, plain, strict=True)]
    first, median, third = statistics.quantiles(ratios, n=4)
    trace = f"{each.trace_bytes / 2**20:.1f} MiB" if each.trace_bytes else ""
    times = f"× {median:.3f} | {first:.3f} | {third:.3f}"
    return f"| {name} | {1e3 * statistics.median(each.seconds):.1f} | {times} | {trace} |"
