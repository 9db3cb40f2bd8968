"""The journal: names, shapes, geometry and provenance, as JSON lines (see `schema`)."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from numpy.typing import NDArray

from hqtool.errors import UsageError
from hqtool.trace.appender import Appender
from hqtool.vocab import Site


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
        """A site's number; a new site is first entered into the journal."""
        site = layer, tensor
        if site not in self._sites:
            self.enter("site", len(self._sites), *site)
            self._sites[site] = len(self._sites)
        return self._sites[site]

    def shape_number(self, shape: tuple[int, ...]) -> int:
        """A shape's number; a new shape is first entered into the journal."""
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


class JournalContent(NamedTuple):
    """What a journal says.

    Args:
        sites: their numbers.
        shapes: by number.
        geometry: by layer.
        classes: names of a layer's class and of those it derives from, by layer.
        run: the provenance.
        has_channel_extremes: the extremes of each channel are stored with each record.
        has_used_ranges: what quantized each tensor is stored with its record.
        step_ends: (step, names of the optimizers that ended it and those after it), ascending.
    """

    sites: dict[Site, int]
    shapes: dict[int, tuple[int, ...]]
    geometry: dict[str, dict[str, Any]]
    classes: dict[str, tuple[str, ...]]
    run: dict[str, Any]
    has_channel_extremes: bool
    has_used_ranges: bool
    step_ends: list[tuple[int, tuple[str, ...]]]


def journal_content(journal: NDArray[Any]) -> JournalContent:
    """What the bytes of a journal say.

    Raises:
        Exception: of any kind, where a line is not a journal's.
    """
    lines = [json.loads(line) for line in journal.tobytes().splitlines()]
    ends = {line[1]: tuple(line[2]) for line in lines if line[0] == "optimizers"}
    return JournalContent(
        sites={Site(*line[2:]): line[1] for line in lines if line[0] == "site"},
        shapes={line[1]: tuple(line[2]) for line in lines if line[0] == "shape"},
        geometry={line[1]: line[2] for line in lines if line[0] == "geometry"},
        classes={line[1]: tuple(line[2]) for line in lines if line[0] == "classes"},
        run={line[1]: line[2] for line in lines if line[0] == "note"},
        has_channel_extremes=any(line == ["extremes", "channel"] for line in lines),
        has_used_ranges=any(line == ["ranges", "used"] for line in lines),
        step_ends=sorted(ends.items()),
    )
