"""The result of a capture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hqtool.watch.watcher import Watched


@dataclass(frozen=True, slots=True)
class CaptureOutcome:
    """The result of a capture, for the closing lines.

    Args:
        size_bytes: size of the trace.
        steps: how many steps ended.
        steps_with_values: how many of them kept values.
        sites: how many sites were recorded.
        ends_within_a_step: the last step recorded did not end.
        failed: what could not be recorded, and why.
        without_geometry: layers whose geometry is unknown, and why.
        waited_seconds, waited_share: for how long training waited until records were written,
            and its share of all time.
        watched: what the watcher found out about the training.
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
