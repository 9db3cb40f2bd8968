"""A site's minimum and maximum over steps, as a small chart of characters."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hqtool.display import harmless
from hqtool.sizes import counted
from hqtool.trace.history import SiteHistory
from hqtool.vocab import Site

#: Lines that a chart's values take; each is two halves.
LINES = 9

#: Cells of a value's label, and what stands between it and the chart.
LABEL, EDGE = 10, " ┤"

#: Whether the upper and the lower half of a cell lie within the band → its character.
CELLS = {(True, True): "█", (True, False): "▀", (False, True): "▄", (False, False): " "}


def range_chart(site: Site, history: SiteHistory, width: int) -> str:
    """The band from the lowest minimum to the highest maximum of each column's records.

    Args:
        width: cells of the terminal; a chart is never narrower than twenty columns.
    """
    lo, hi = history.stats.min, history.stats.max
    if not np.isfinite(lo).any():
        return f"{harmless(str(site))}: no finite values in {counted(len(history), 'record')}"
    columns = max(20, min(len(history), width - LABEL - len(EDGE)))
    least, most = _of_columns(lo, columns, np.fmin), _of_columns(hi, columns, np.fmax)
    bottom, top = min(float(np.nanmin(least)), 0.0), max(float(np.nanmax(most)), 0.0)
    records = counted(len(history), "record")
    title = f"{harmless(str(site))}: from the lowest to the highest value, {records}"
    return "\n".join([title, *_lines(least, most, bottom, top), *_steps(history, least.size)])


def _of_columns(values: NDArray[np.float64], columns: int, pick: np.ufunc) -> NDArray[np.float64]:
    """The extreme of each column's records; as many columns as records where these are fewer."""
    starts = np.unique(np.linspace(0, values.size, columns, endpoint=False).astype(np.intp))
    found: NDArray[np.float64] = pick.reduceat(values, starts)
    return found


def _lines(
    least: NDArray[np.float64], most: NDArray[np.float64], bottom: float, top: float
) -> Iterator[str]:
    """The band, from top to bottom; labels at the ends and at the line of 0."""
    half = (top - bottom) / (2 * LINES) or 1.0
    middles = top - half * (np.arange(2 * LINES) + 0.5)
    near = np.abs(middles[:, None] - np.clip(middles[:, None], least, most)) <= half / 2
    labels = {0: top, LINES - 1: bottom}
    labels.setdefault(min(LINES - 1, math.floor(top / (2 * half))), 0.0)
    for line in range(LINES):
        pairs = zip(near[2 * line], near[2 * line + 1], strict=True)
        cells = "".join(CELLS[bool(upper), bool(lower)] for upper, lower in pairs)
        label = f"{labels[line]:.3g}" if line in labels else ""
        yield f"{label:>{LABEL}}{EDGE}{cells}".rstrip()


def _steps(history: SiteHistory, columns: int) -> Iterator[str]:
    """The axis below, with the first and the last step."""
    first, last = f"step {history.steps[0]}", f"{history.steps[-1]}"
    indent = " " * (LABEL + len(EDGE))
    yield f"{' ' * LABEL} └{'─' * columns}"
    gap = max(1, columns - len(first) - len(last))
    yield f"{indent}{first}{' ' * gap}{last}"
