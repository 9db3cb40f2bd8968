"""What is told on stderr: how far a capture is, and what came of it."""

from __future__ import annotations

import shlex
import sys
import time
from typing import TYPE_CHECKING

from hqtool.sizes import binary_bytes

if TYPE_CHECKING:
    from hqtool.capture.recorder import Recorder

_SECONDS_BETWEEN = 0.25
_CLEAR_TO_END = "\x1b[K"


class Progress:
    """One line, rewritten at most four times a second, where stderr is a terminal.

    It ends by going back to the line's start, so that what the script prints overwrites it.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._shown = not quiet and sys.stderr.isatty()
        self._next = 0.0

    def update(self, recorder: Recorder) -> None:
        """Show how far the recorder is."""
        now = time.monotonic()
        if self._shown and now >= self._next:
            self._next = now + _SECONDS_BETWEEN
            size = binary_bytes(recorder.writer.bytes_written)
            line = f"hqtool: {recorder.steps} steps, {len(recorder.sites)} sites, {size}"
            self._write(f"{line}{_CLEAR_TO_END}\r")

    def end(self) -> None:
        """Take the line away."""
        if self._shown:
            self._write(_CLEAR_TO_END)

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


def closing_lines(path: str, size_bytes: int, recorder: Recorder | None) -> list[str]:
    """Where the trace is, what is in it and what to do with it.

    Args:
        path: the trace, as it was named.
        size_bytes: its size.
        recorder: what recorded it; None where the program never imported torch.
    """
    lines = [f"hqtool: {path} ({binary_bytes(size_bytes)})"]
    if recorder is None:
        return [*lines, "hqtool: nothing recorded: the program did not import torch"]
    if not recorder.sites:
        return [*lines, "hqtool: nothing recorded: no layer ran a forward pass in training mode"]
    lines.append(
        f"hqtool: {recorder.steps} steps ({recorder.steps_with_values} with values), "
        f"{len(recorder.sites)} sites"
    )
    if not recorder.steps:
        return [*lines, "hqtool: no optimizer made a step: consider --step-on forward"]
    if recorder.failed:
        remedy = f"hqtool info {shlex.quote(path)} tells why"
        lines.append(f"hqtool: {len(recorder.failed)} sites could not be recorded: {remedy}")
    return [*lines, f"hqtool: next: hqtool compare {shlex.quote(path)}"]
