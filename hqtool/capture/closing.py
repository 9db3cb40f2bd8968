"""What is told on stderr: how far a capture is, and what came of it."""

from __future__ import annotations

import shlex
import sys
import time
from typing import TYPE_CHECKING

from hqtool.sizes import binary_bytes

if TYPE_CHECKING:
    from hqtool.capture.recorder import Recorder

#: Seconds to the first line of progress; each further one comes after twice as long, at most
#: the second figure.
_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 300.0


class Progress:
    """Now and then a whole line, where stderr is a terminal.

    Not one line rewritten: the script prints to the same terminal, and would print over it.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._shown = not quiet and sys.stderr.isatty()
        self._pause = _FIRST_PAUSE
        self._next = time.monotonic() + self._pause

    def update(self, recorder: Recorder) -> None:
        """Say how far the recorder is, if it is time to."""
        now = time.monotonic()
        if self._shown and now >= self._next:
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            self._next = now + self._pause
            size = binary_bytes(recorder.writer.bytes_written)
            line = f"hqtool: {recorder.steps} steps, {len(recorder.sites)} sites, {size}"
            print(line, file=sys.stderr, flush=True)


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
