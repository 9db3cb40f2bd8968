"""Smoothings: combine a step's reading with those of earlier steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from hqtool.vocab import Range


class Memory(NamedTuple):
    """The smoothed range, and the earlier readings that the next smoothing needs."""

    range: Range
    recent: tuple[Range, ...] = ()


class Smoothing(Protocol):
    """Pure: the memory before (range None: no reading yet) and a reading → the memory after."""

    def __call__(self, old: Range | None, recent: tuple[Range, ...], new: Range) -> Memory: ...


@dataclass(frozen=True, slots=True)
class Latest:
    """The last reading alone."""

    def __call__(self, old: Range | None, recent: tuple[Range, ...], new: Range) -> Memory:
        return Memory(new)


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

    def __call__(self, old: Range | None, recent: tuple[Range, ...], new: Range) -> Memory:
        if old is None:
            return Memory(new)
        return Memory(Range(self._mix(old.lo, new.lo), self._mix(old.hi, new.hi)))

    def _mix(self, old: float, new: float) -> float:
        return (1 - self.momentum) * new + self.momentum * old


@dataclass(frozen=True, slots=True)
class WindowMax:
    """The widest ends of the last `window` steps' readings, as FP8 delayed scaling keeps amax.

    Args:
        window: number of steps whose readings are kept, ≥ 1.
    """

    window: int

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"window={self.window} is less than 1")

    def __call__(self, old: Range | None, recent: tuple[Range, ...], new: Range) -> Memory:
        kept = (*recent, new)[-self.window :]
        return Memory(Range(min(r.lo for r in kept), max(r.hi for r in kept)), kept)
