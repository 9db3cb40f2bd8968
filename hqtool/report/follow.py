"""Following a trace while a training run writes it: how far it is, and whose range moved."""

from __future__ import annotations

import math
import os
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple, TextIO

from rich.live import Live
from rich.text import Text

from hqtool.display import harmless
from hqtool.errors import DataError
from hqtool.report.console import Screen
from hqtool.report.model import MISSING
from hqtool.sizes import binary_bytes, counted
from hqtool.trace.reader import TraceReader
from hqtool.vocab import Record, Site

#: How many sites are shown: those whose range moved most.
SITES_SHOWN = 5

#: How many updates the rate, in steps per second, is averaged over.
RATE_UPDATES = 10

#: How often to try to open a trace, and seconds between two tries: while its writer closes it,
#: HDF5 opens it neither as a closed file nor as one being written.
ATTEMPTS = 3
RETRY_PAUSE_SECONDS = 0.1


class Move(NamedTuple):
    """A site's range at two steps, as widths that hold 0, as a grid does."""

    site: Site
    before: float
    now: float

    @property
    def factor(self) -> float:
        """Width now over width before."""
        return self.now / self.before

    @property
    def octaves(self) -> float:
        """How often the width was doubled or halved."""
        return abs(math.log2(self.now) - math.log2(self.before))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A trace at one moment.

    Args:
        steps: those committed, ascending.
        file_bytes: size of the file.
        moves: the sites whose range moved most between the last two steps, most first.
        rate: steps per second lately; None where it is not known yet.
    """

    path: str
    state: str
    steps: list[int]
    file_bytes: int
    moves: tuple[Move, ...]
    rate: float | None = None


def snapshot_of(path: str) -> Snapshot:
    """A trace as it is now; of its records only the last two steps' statistics are read.

    Raises:
        DataError: the file is missing, not a trace, or damaged.
    """
    with TraceReader(path, recent=2) as reader:
        moves = _most_moved(reader)
        return Snapshot(path, reader.state, reader.steps, os.path.getsize(path), moves)


def snapshots(
    path: str,
    interval: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Snapshot]:
    """A snapshot every `interval` seconds; the last one is of the closed trace.

    Args:
        clock, sleep: functions like time.monotonic and time.sleep.

    Raises:
        DataError: while iterating, the file is missing, not a trace, or damaged.
    """
    updates: deque[tuple[float, int]] = deque(maxlen=RATE_UPDATES + 1)
    while True:
        seen = _snapshot_with_retries(path, sleep)
        yield replace(seen, rate=_rate(updates, clock(), len(seen.steps)))
        if seen.state != "open":
            return
        sleep(interval)


def follow(path: str, out: TextIO, interval: float) -> None:
    """Show a trace as it grows, until it is closed: redrawn in place, or line by line in a pipe.

    Raises:
        DataError: the file is missing, not a trace, or damaged.
    """
    with _block(out) if out.isatty() else _lines(out) as show:
        for seen in snapshots(path, interval):
            show(seen)


def _snapshot_with_retries(path: str, sleep: Callable[[float], None]) -> Snapshot:
    for _ in range(ATTEMPTS - 1):
        try:
            return snapshot_of(path)
        except DataError:
            sleep(RETRY_PAUSE_SECONDS)
    return snapshot_of(path)


def _rate(updates: deque[tuple[float, int]], now: float, steps: int) -> float | None:
    """Add this update to those kept; steps per second since the oldest of them."""
    if updates and steps < updates[-1][1]:
        updates.clear()  # another trace has replaced it
    updates.append((now, steps))
    start, steps_then = updates[0]
    return (steps - steps_then) / (now - start) if now > start else None


# Ranges


def _most_moved(reader: TraceReader) -> tuple[Move, ...]:
    moves = [move for site in reader.sites for move in _move(reader, site)]
    return tuple(sorted(moves, key=lambda move: -move.octaves)[:SITES_SHOWN])


def _move(reader: TraceReader, site: Site) -> Iterator[Move]:
    """A site's move between the last two steps, if both recorded it and neither range is empty."""
    widths = _widths(reader.records(site, values=False))
    before, now = (widths.get(step, 0.0) for step in [-1, *reader.steps][-2:])
    if 0 < before < math.inf and 0 < now < math.inf:
        yield Move(site, before, now)


def _widths(records: Iterable[Record]) -> dict[int, float]:
    """Step → width of the range that holds 0 and all finite values of its records."""
    ranges: defaultdict[int, list[float]] = defaultdict(list)
    for record in records:
        if record.stats.range is not None:
            ranges[record.step] += [0.0, *record.stats.range]
    return {step: max(ends) - min(ends) for step, ends in ranges.items()}


# Words


@contextmanager
def _block(out: TextIO) -> Iterator[Callable[[Snapshot], None]]:
    console = Screen(out)
    with Live(console=console, auto_refresh=False) as live:
        yield lambda seen: live.update(
            Text("\n".join(map(harmless, _block_of(seen)))), refresh=True
        )


@contextmanager
def _lines(out: TextIO) -> Iterator[Callable[[Snapshot], None]]:
    yield lambda seen: print(harmless(_line_of(seen)), file=out, flush=True)


def _line_of(seen: Snapshot) -> str:
    moves = ", ".join(f"{move.site} {_factor_text(move.factor)}" for move in seen.moves)
    return _headline(seen) + (f"; moved most: {moves}" if moves else "")


def _block_of(seen: Snapshot) -> list[str]:
    if not seen.moves:
        return [_headline(seen)]
    before, now = seen.steps[-2:]
    title = f"ranges that moved most, step {before} to {now}"
    return [_headline(seen), "", title, *map(_move_line, seen.moves)]


def _move_line(move: Move) -> str:
    widths = f"width {move.before:.3g} to {move.now:.3g}"
    return f"  {_factor_text(move.factor):>9}  {move.site}, {widths}"


def _headline(seen: Snapshot) -> str:
    rate = MISSING if seen.rate is None else f"{seen.rate:.2f}"
    size = binary_bytes(seen.file_bytes)
    return f"{seen.path}: {seen.state}, {counted(len(seen.steps), 'step')}, {rate} steps/s, {size}"


def _factor_text(factor: float) -> str:
    return f"{factor:.3g}×"
