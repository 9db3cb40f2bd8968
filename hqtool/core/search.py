"""Golden-section search for a maximum over (0, 1], several searches side by side."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

#: The share of the bracket that each step keeps, (√5−1)/2.
GOLDEN_SHARE = (math.sqrt(5) - 1) / 2

#: Lowest ratio of a coarse scan.
LOWEST_RATIO = 1e-4

#: Most evaluations of one search: a maximum at 0 itself would never meet a relative tolerance.
MOST_EVALUATIONS = 100


def golden_section(
    f: Callable[[Indices, Array], Array],
    searches: int,
    tolerance: float,
    coarse: int = 0,
    equal: float = 0.0,
    ahead: int = 1,
) -> tuple[Array, Indices]:
    """For each search the best argument in (0, 1], and the number of its evaluations of f.

    scipy's golden section needs three points that bracket a maximum inside the interval. Here the
    maximum is often at 1, so the search brackets (0, 1) and 1 is always a candidate.

    Args:
        f: (indices of searches, an argument for each) → what each is to maximise. Where that
            is unimodal the answer is the global maximum.
        searches: how many; they are independent of each other, but share the calls of f.
        tolerance: a search ends when its bracket is narrower than this share of its own middle.
        coarse: candidates to scan first, log-spaced up to 1; the search then brackets the best
            of them by its neighbours.
        equal: figures that differ by no more than this, the noise of f, are equal, and of equal
            ones the largest argument is best: a plateau is left at its upper end.
        ahead: f is called for the possible arguments of so many steps at once, 2^ahead − 1 of
            them: faster where a call costs much more than an argument. It changes no answer, and
            arguments that prove unnecessary are not counted as evaluations.
    """
    every = np.arange(searches)
    scan = np.geomspace(LOWEST_RATIO, 1.0, coarse) if coarse > 1 else np.ones(1)
    asked = _Evaluations(f, searches)
    asked.ask(np.repeat(every, scan.size), np.tile(scan, searches))
    top = np.searchsorted(scan, asked.best(equal))
    low, high = np.append(0.0, scan)[top], np.append(scan, 1.0)[top + 1]
    left, right = high - GOLDEN_SHARE * (high - low), low + GOLDEN_SHARE * (high - low)
    asked.prefetch(every, left, lambda: [right, *_possible(low, high, left, right, ahead - 1)])
    f_left, f_right = asked.ask(every, left), asked.ask(every, right)
    while (on := _unfinished(low, high, asked.times - scan.size, tolerance)).size:
        down = f_left[on] > f_right[on] + equal
        i, j = on[down], on[~down]
        high[i], right[i], f_right[i] = right[i], left[i], f_left[i]
        low[j], left[j], f_left[j] = left[j], right[j], f_right[j]
        left[i] = high[i] - GOLDEN_SHARE * (high[i] - low[i])
        right[j] = low[j] + GOLDEN_SHARE * (high[j] - low[j])
        wanted = np.where(down, left[on], right[on])
        if ahead > 1:
            bracket = low[on], high[on], left[on], right[on]
            asked.prefetch(on, wanted, partial(_possible, *bracket, ahead - 1))
        found = asked.ask(on, wanted)
        f_left[i], f_right[j] = found[down], found[~down]
    return asked.best(equal), asked.times


def _possible(low: Array, high: Array, left: Array, right: Array, steps: int) -> list[Array]:
    """The arguments that the next steps may ask for, whatever f will say."""
    if steps < 1:
        return []
    lower = right - GOLDEN_SHARE * (right - low)
    upper = left + GOLDEN_SHARE * (high - left)
    down = _possible(low, right, lower, left, steps - 1)
    return [lower, *down, upper, *_possible(left, high, right, upper, steps - 1)]


class _Evaluations:
    """Evaluates f, and keeps every argument with its figure."""

    def __init__(self, f: Callable[[Indices, Array], Array], searches: int) -> None:
        self._f = f
        self._all: list[tuple[Indices, Array, Array]] = []
        self._known: dict[tuple[int, float], float] = {}
        self.times = np.zeros(searches, np.intp)

    def prefetch(self, which: Indices, next_: Array, later: Callable[[], list[Array]]) -> None:
        """Evaluate f for the next arguments and for later ones at once, unless they are known."""
        if (int(which[0]), float(next_[0])) in self._known:
            return
        arguments = [next_, *later()]
        searches, wanted = np.tile(which, len(arguments)), np.concatenate(arguments)
        pairs = zip(searches.tolist(), wanted.tolist(), strict=True)
        self._known.update(zip(pairs, self._f(searches, wanted).tolist(), strict=True))

    def ask(self, which: Indices, arguments: Array) -> Array:
        """The figures of f for one argument of each of some searches."""
        pairs = list(zip(which.tolist(), arguments.tolist(), strict=True))
        if self._known and all(pair in self._known for pair in pairs):
            found = np.array([self._known[pair] for pair in pairs])
        else:
            found = self._f(which, arguments)
        self._all.append((which, arguments, found))
        self.times += np.bincount(which, minlength=self.times.size)
        return found

    def best(self, equal: float) -> Array:
        """For each search the largest argument whose figure equals the highest."""
        which, arguments, found = map(np.concatenate, zip(*self._all, strict=True))
        highest, best = np.full(self.times.size, -np.inf), np.zeros(self.times.size)
        np.maximum.at(highest, which, found)
        good = found >= highest[which] - equal
        np.maximum.at(best, which[good], arguments[good])
        return best


def _unfinished(low: Array, high: Array, evaluations: Indices, tolerance: float) -> Indices:
    wide = high - low > tolerance * (high + low) / 2
    return np.flatnonzero(wide & (evaluations < MOST_EVALUATIONS))
