"""Names beside the points of a chart, where there is room for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

#: Share of a chart's width that a character takes where it is wide, and where it is narrow.
WIDE, NARROW = 0.013, 0.034

#: A chart of fewer pixels is narrow.
NARROW_WIDTH = 400

#: Share of a chart's height that a line takes.
LINE = 0.06


class _Box(NamedTuple):
    left: float
    right: float
    bottom: float
    top: float

    def meets(self, other: _Box) -> bool:
        """Whether they overlap."""
        across = self.left < other.right and other.left < self.right
        return across and self.bottom < other.top and other.bottom < self.top


#: Where a name may stand, the first choice first → whether to the right, and whether above.
PLACES = {
    "right": (True, True),
    "left": (False, True),
    "right below": (True, False),
    "left below": (False, False),
}


def sides(
    points: Sequence[tuple[float, float]], names: Sequence[str], character: float = WIDE
) -> list[str | None]:
    """On which side of each point its name stands, of `PLACES`; None without room.

    Args:
        points: on a unit square, the most important first.
        character: share of the chart's width that one takes.
    """
    taken = [_Box(x - character, x + character, y - LINE / 4, y + LINE / 4) for x, y in points]
    found: list[str | None] = []
    for (x, y), name in zip(points, names, strict=True):
        boxes = {side: _beside(x, y, character, name, side) for side in PLACES}
        free = [s for s, box in boxes.items() if _inside(box) and not any(map(box.meets, taken))]
        found.append(free[0] if free else None)
        taken += [boxes[free[0]]] if free else []
    return found


def _beside(x: float, y: float, character: float, name: str, side: str) -> _Box:
    """A name stands half a line above its point, or below."""
    right, above = PLACES[side]
    width = character * len(name)
    left = x + 1.5 * character if right else x - 1.5 * character - width
    return _Box(left, left + width, y, y + LINE) if above else _Box(left, left + width, y - LINE, y)


def _inside(box: _Box) -> bool:
    return box.left >= 0 and box.right <= 1.05


def on_unit_square(across: Sequence[float], upwards: Sequence[float]) -> list[tuple[float, float]]:
    """Where points lie between the extremes of either coordinate."""
    return list(zip(_shares(across), _shares(upwards), strict=True))


def _shares(values: Sequence[float]) -> list[float]:
    low, high = min(values, default=0.0), max(values, default=0.0)
    return [(value - low) / ((high - low) or 1.0) for value in values]
