"""What came of a capture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hqtool.watch.watcher import Watched


@dataclass(frozen=True, slots=True)
class CaptureOutcome:
    """What the closing lines tell of a trace.

    Args:
        size_bytes: of the file.
        steps: that ended.
        steps_with_values: those of them that kept values.
        sites: how many were recorded.
        ends_within_a_step: the last step recorded did not end.
        failed: what could not be recorded, and why.
        without_geometry: layers whose geometry is unknown, and why.
        waited_seconds, waited_share: for how long training waited for the disk, and its share of
            all time.
        watched: what was seen besides.
    """

    size_bytes: int
    steps: int
    steps_with_values: int
    sites: int
    ends_within_a_step: bool
    failed: Mapping[str, str]
    without_geometry: Mapping[str, str]
    waited_seconds: float
    waited_share: float
    watched: Watched
