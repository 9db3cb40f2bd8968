"""Golden-section search for a maximum over (0, 1]."""

from __future__ import annotations

import math
from collections.abc import Callable

#: Share of the bracket that each step keeps, (√5−1)/2.
KEPT = (math.sqrt(5) - 1) / 2

#: Most evaluations of one search: a maximum at 0 itself would never meet a relative tolerance.
LIMIT = 100


def golden_section(f: Callable[[float], float], tolerance: float) -> tuple[float, int]:
    """The best argument seen in (0, 1], 1 always among them, and how often f was asked.

    scipy's golden section wants three points that bracket a maximum inside the interval; here
    the maximum is often at 1 itself, so the search brackets (0, 1) and holds 1 as a candidate.

    Args:
        f: what to maximise; unimodal for the answer to be the global maximum.
        tolerance: stop when the bracket is narrower than this share of its own middle, > 0.
    """
    seen: dict[float, float] = {}

    def ask(a: float) -> float:
        seen[a] = f(a)
        return seen[a]

    ask(1.0)
    low, high = 0.0, 1.0
    left, right = high - KEPT * (high - low), low + KEPT * (high - low)
    f_left, f_right = ask(left), ask(right)
    while high - low > tolerance * (high + low) / 2 and len(seen) < LIMIT:
        if f_left > f_right:
            high, right, f_right = right, left, f_left
            left = high - KEPT * (high - low)
            f_left = ask(left)
        else:
            low, left, f_left = left, right, f_right
            right = low + KEPT * (high - low)
            f_right = ask(right)
    return max(seen, key=lambda a: (seen[a], a)), len(seen)
