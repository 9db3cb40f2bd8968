"""Speed of block formats on one tensor, in multiples of sorting it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from hqtool.core.formats.named import FORMATS
from hqtool.core.observation import values_of
from hqtool.core.stats import stats_of
from hqtool.vocab import Range, Record

FORMATS_TIMED = ("mxfp8", "mxfp4", "mxint8", "nvfp4", "e4m3-block128", "e4m3-block128:tile=1")

#: A linear layer's tensor, a convolution's, and one whose rows end in short blocks.
SHAPES = ((1024, 256), (16, 256, 8, 8), (1344, 195))


def run(rounds: int) -> list[str]:
    """A table: each format by shape, under rounding to nearest and in expectation."""
    shown = " | ".join("×".join(map(str, shape)) for shape in SHAPES)
    lines = [
        "About 262,144 float32 values; processor time in multiples of `np.sort` of them: rounded "
        "to nearest / in expectation.",
        "",
        f"| format | {shown} |",
        "|---|" + "---|" * len(SHAPES),
    ]
    columns = [_ratios(shape, rounds) for shape in SHAPES]
    for name in FORMATS_TIMED:
        cells = (
            f"{nearest:.2f} / {expected:.2f}" for nearest, expected in (c[name] for c in columns)
        )
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return lines


def _ratios(shape: tuple[int, ...], rounds: int) -> dict[str, tuple[float, float]]:
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    record = Record(0, 0, 0, shape, stats_of(x), x)
    contenders = {("np.sort", ""): lambda: np.sort(x.reshape(-1))} | {
        (name, rounding): _replayed(record, name, rounding)
        for name in FORMATS_TIMED
        for rounding in ("nearest", "stochastic")
    }
    taken = _seconds(contenders, rounds)
    sort = taken["np.sort", ""]
    return {n: (taken[n, "nearest"] / sort, taken[n, "stochastic"] / sort) for n in FORMATS_TIMED}


def _replayed(record: Record, name: str, rounding: str) -> Callable[[], object]:
    format_ = FORMATS.parse(name).value

    def run() -> object:
        values = values_of(record)
        assert values is not None
        return values.moments([Range(-4.0, 4.0)], [format_], rounding)

    return run


def _seconds(contenders: dict, rounds: int) -> dict:
    """Median processor time of each; they take turns."""
    taken: dict = {name: [] for name in contenders}
    for _ in range(2 * rounds + 1):
        for name, each in contenders.items():
            start = time.thread_time()
            each()
            taken[name].append(time.thread_time() - start)
    return {name: statistics.median(found) for name, found in taken.items()}
