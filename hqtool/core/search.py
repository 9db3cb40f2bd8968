"""Golden-section search for a maximum over (0, 1], several searches side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import NamedTuple

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
    scan = np.geomspace(LOWEST_RATIO, 1.0, coarse).tolist() if coarse > 1 else [1.0]
    runs = [_Run(_steps(scan, tolerance, equal, ahead)) for _ in range(searches)]
    while wanted := [(i, run.unknown()) for i, run in enumerate(runs) if run.goes_on]:
        which = np.repeat([i for i, _ in wanted], [len(arguments) for _, arguments in wanted])
        found = f(which, np.array([a for _, arguments in wanted for a in arguments])).tolist()
        figures = iter(found)
        for i, arguments in wanted:
            runs[i].learn(dict(zip(arguments, figures, strict=False)))
    best = [_best(run.evaluated, equal) for run in runs]
    return np.array(best), np.array([len(run.evaluated) for run in runs], np.intp)


class _Bracket(NamedTuple):
    """A maximum lies between low and high; f is compared at left and right."""

    low: float
    high: float
    left: float
    right: float

    @classmethod
    def between(cls, low: float, high: float) -> _Bracket:
        inside = GOLDEN_SHARE * (high - low)
        return cls(low, high, high - inside, low + inside)

    def lower(self) -> _Bracket:
        """What is left where f is larger at `left`."""
        fresh = self.right - GOLDEN_SHARE * (self.right - self.low)
        return _Bracket(self.low, self.right, fresh, self.left)

    def upper(self) -> _Bracket:
        """What is left where f is larger at `right`."""
        fresh = self.left + GOLDEN_SHARE * (self.high - self.left)
        return _Bracket(self.left, self.high, self.right, fresh)

    def possible(self, steps: int) -> list[float]:
        """The arguments that the next steps may need, depending on the values of f."""
        if steps < 1:
            return []
        lower, upper = self.lower(), self.upper()
        later = [*lower.possible(steps - 1), *upper.possible(steps - 1)]
        return [lower.left, upper.right, *later]


#: What a search needs next, and all that it may need soon; it is sent the figure of the former.
_Steps = Generator[tuple[float, Callable[[], list[float]]], float, None]


def _steps(scan: list[float], tolerance: float, equal: float, ahead: int) -> _Steps:
    """One search, an evaluation after the other."""
    figures = []
    certain = _Bracket.between(0.0, 1.0) if len(scan) == 1 and ahead > 1 else None
    for argument in scan:
        figure = yield argument, partial(_soon, certain, ahead, scan)
        figures.append(figure)
    top = scan.index(_best(list(zip(scan, figures, strict=True)), equal))
    bracket = _Bracket.between([0.0, *scan][top], [*scan, 1.0][top + 1])
    f_left = yield bracket.left, partial(_soon, bracket, ahead)
    f_right = yield bracket.right, partial(_soon, bracket, ahead)
    for _ in range(MOST_EVALUATIONS - 2):
        if bracket.high - bracket.low <= tolerance * (bracket.high + bracket.low) / 2:
            return
        if f_left > f_right + equal:
            bracket, f_right = bracket.lower(), f_left
            f_left = yield bracket.left, partial(bracket.possible, ahead - 1)
        else:
            bracket, f_left = bracket.upper(), f_right
            f_right = yield bracket.right, partial(bracket.possible, ahead - 1)


def _soon(bracket: _Bracket | None, ahead: int, scan: Sequence[float] = ()) -> list[float]:
    """The rest of a scan, and the arguments that a bracket needs at first."""
    if bracket is None:
        return [*scan]
    return [*scan, bracket.left, bracket.right, *bracket.possible(ahead - 1)]


class _Run:
    """A search under way, and what is known of f already."""

    def __init__(self, steps: _Steps) -> None:
        self._steps = steps
        self._argument, self._soon = next(steps)
        self._known: dict[float, float] = {}
        self.evaluated: list[tuple[float, float]] = []
        self.goes_on = True

    def unknown(self) -> list[float]:
        """The arguments to evaluate: the next one and, since f is called, those needed soon."""
        arguments = dict.fromkeys([self._argument, *self._soon()])
        return [argument for argument in arguments if argument not in self._known]

    def learn(self, figures: dict[float, float]) -> None:
        """Go on as far as what is known suffices."""
        self._known |= figures
        while self.goes_on and self._argument in self._known:
            figure = self._known[self._argument]
            self.evaluated.append((self._argument, figure))
            try:
                self._argument, self._soon = self._steps.send(figure)
            except StopIteration:
                self.goes_on = False


def _best(evaluated: list[tuple[float, float]], equal: float) -> float:
    """The largest argument whose figure equals the highest."""
    highest = max(figure for _, figure in evaluated)
    return max(argument for argument, figure in evaluated if figure >= highest - equal)
