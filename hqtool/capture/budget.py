"""How large a trace may grow, and how values are kept less often so that it stays within that."""

from __future__ import annotations

from typing import Any

from hqtool.errors import UsageError
from hqtool.sizes import read_bytes

#: The budget of a trace, in bytes, unless another is given.
DEFAULT_BUDGET_BYTES = 8 << 30


def budget_of(text: str) -> int | None:
    """Bytes from a text such as "2GiB", "1.5 MiB" or "4096"; None from "none": no limit.

    Raises:
        UsageError: the text is not a size of at least one byte.
    """
    if text == "none":
        return None
    size = read_bytes(text)
    if not size:
        raise UsageError(f"not a budget: {text}", "write --budget 2GiB, 500MiB or none")
    return size


class Budget:
    """Decides at which steps values are kept, by the size of the trace.

    Values are kept at every `every`-th step until the trace fills half of its budget; then the
    spacing doubles, again each time that half of what then remained is used. Values that would
    not fit are never kept; statistics end where the next step's would not fit.

    Args:
        limit_bytes: the trace's largest size; None: no limit.
        every: the spacing at first, in steps.

    Attributes:
        changes: (step, spacing) of each change: the spacing holds after that step.
    """

    def __init__(self, limit_bytes: int | None, every: int) -> None:
        self.limit_bytes = limit_bytes
        self.every = every
        self.changes: list[tuple[int, int]] = []
        self._mark = (limit_bytes or 0) // 2
        self._size = 0
        self._kept = 0  # bytes of values of the current step
        self._largest_kept = 0
        self._largest_growth = 0

    def admits(self, value_bytes: int) -> bool:
        """Whether values still fit into the budget; if so, they are counted in."""
        if self.limit_bytes is None:
            return True
        coming = self._kept + value_bytes + self._largest_growth
        if self._size + coming > self.limit_bytes:
            return False
        self._kept += value_bytes
        return True

    def committed(self, step: int, size_bytes: int) -> bool:
        """Take note of the trace's size after a step.

        Returns:
            whether the spacing grew.
        """
        self._measure(size_bytes)
        before = self.every
        while self._due():
            self._mark += max(1, ((self.limit_bytes or 0) - self._mark) // 2)
            self.every *= 2
        if self.every > before:
            self.changes.append((step, self.every))
        return self.every > before

    def is_spent(self) -> bool:
        """Whether the statistics of a further step might exceed the budget."""
        limit = self.limit_bytes
        return limit is not None and self._size + self._largest_growth > limit

    def to_json(self) -> dict[str, Any]:
        """The budget and what became of it, for the trace's notes."""
        return {"bytes": self.limit_bytes, "spacing": [list(change) for change in self.changes]}

    def _measure(self, size_bytes: int) -> None:
        """Note the size, and how much of its growth was not values: rows and the file format's."""
        growth = size_bytes - self._size - self._kept if self._size else 0
        self._largest_growth = max(self._largest_growth, growth)
        self._largest_kept = max(self._largest_kept, self._kept)
        self._size, self._kept = size_bytes, 0

    def _due(self) -> bool:
        """Whether the next values would pass the mark that ends this spacing."""
        if self.limit_bytes is None or self._mark >= self.limit_bytes:
            return False
        return self._largest_kept > 0 and self._size + self._largest_kept > self._mark
