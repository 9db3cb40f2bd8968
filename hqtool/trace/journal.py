"""The journal: what a trace says in words, as JSON lines (see `schema`)."""

from __future__ import annotations

import json
from typing import Any

from hqtool.errors import UsageError
from hqtool.trace.appender import Appender


class Journal:
    """Writes the journal and gives sites and shapes their numbers.

    Args:
        lines: the dataset it is written to.
    """

    def __init__(self, lines: Appender) -> None:
        self._lines = lines
        self._sites: dict[tuple[str, str], int] = {}
        self._shapes: dict[tuple[int, ...], int] = {}

    def site_number(self, layer: str, tensor: str) -> int:
        """A site's number; met for the first time, it is entered."""
        site = layer, tensor
        if site not in self._sites:
            self.enter("site", len(self._sites), *site)
            self._sites[site] = len(self._sites)
        return self._sites[site]

    def shape_number(self, shape: tuple[int, ...]) -> int:
        """A shape's number; met for the first time, it is entered."""
        if shape not in self._shapes:
            self.enter("shape", len(self._shapes), shape)
            self._shapes[shape] = len(self._shapes)
        return self._shapes[shape]

    def enter(self, kind: str, *parts: Any) -> None:
        """Add a line.

        Raises:
            UsageError: JSON cannot hold it.
        """
        try:
            line = json.dumps([kind, *parts]) + "\n"
        except (TypeError, ValueError, RecursionError) as error:
            raise UsageError(f"{kind} {parts[0]}: {error}", "give what JSON can hold") from error
        self._lines.append(line.encode("ascii"))
