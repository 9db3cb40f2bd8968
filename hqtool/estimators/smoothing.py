"""Smoothings: combine a step's reading with those of earlier steps, entry by entry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from hqtool.estimators.entry_ranges import each_end, joined_ranges, known_or
from hqtool.vocab import AnyRange


class Memory(NamedTuple):
    """The smoothed range, and the earlier readings that the next smoothing needs."""

    range: AnyRange
    recent: tuple[AnyRange, ...] = ()


class Smoothing(Protocol):
    """Pure: the memory before (range None: no reading yet) and a reading → the memory after.

    Where a reading says nothing of an entry, what was known of that entry stays.
    """

    def __call__(
        self, old: AnyRange | None, recent: tuple[AnyRange, ...], new: AnyRange
    ) -> Memory: ...


@dataclass(frozen=True, slots=True)
class Latest:
    """The last reading alone."""

    def __call__(self, old: AnyRange | None, recent: tuple[AnyRange, ...], new: AnyRange) -> Memory:
        return Memory(known_or(new, old))


@dataclass(frozen=True, slots=True)
class Ema:
    """Exponential moving average of both ends, eq. 2 and 3: (1−η)·new + η·old.

    Args:
        momentum: η, weight of the OLD value, 0 … 1. The first reading is taken as it is.
    """

    momentum: float

    def __post_init__(self) -> None:
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"momentum={self.momentum:g} lies outside 0…1")

    def __call__(self, old: AnyRange | None, recent: tuple[AnyRange, ...], new: AnyRange) -> Memory:
        return Memory(new if old is None else each_end(self._mix, old, new))

    def _mix(self, old: Any, new: Any) -> Any:
        return (1 - self.momentum) * new + self.momentum * old


@dataclass(frozen=True, slots=True)
class WindowMax:
    """The widest ends of the last `window` steps' readings, as FP8 delayed scaling keeps amax.

    An entry of which these readings say nothing keeps the range that it had.

    Args:
        window: number of steps whose readings are kept, ≥ 1.
    """

    window: int

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"window={self.window} is less than 1")

    def __call__(self, old: AnyRange | None, recent: tuple[AnyRange, ...], new: AnyRange) -> Memory:
        kept = (*recent, new)[-self.window :]
        return Memory(known_or(joined_ranges(kept), old), kept)


@dataclass(frozen=True, slots=True)
class Widest:
    """The widest ends of all readings so far."""

    def __call__(self, old: AnyRange | None, recent: tuple[AnyRange, ...], new: AnyRange) -> Memory:
        return Memory(new if old is None else joined_ranges((old, new)))
