"""The Pareto front: what nothing else beats in quality and in every cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Point(NamedTuple):
    """One of several choices.

    Args:
        quality: more is better; −∞ where it is missing.
        costs: less is better; as many for every point.
    """

    quality: float
    costs: tuple[float, ...]

    def dominates(self, other: Point) -> bool:
        """No worse and in no cost dearer, and one of them in earnest."""
        pairs = list(zip(self.costs, other.costs, strict=True))
        no_worse = self.quality >= other.quality and all(mine <= theirs for mine, theirs in pairs)
        return no_worse and self != other


def on_front(points: Sequence[Point]) -> list[bool]:
    """Which points no other one dominates; one whose quality is missing never is on the front."""
    return [
        point.quality > -math.inf and not any(other.dominates(point) for other in points)
        for point in points
    ]
