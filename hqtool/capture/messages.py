"""What is told on stderr: how far a capture is, and what came of it."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from hqtool.capture.cost import StepCost, about
from hqtool.capture.settings import CaptureSettings
from hqtool.launch.messages import say
from hqtool.sizes import binary_bytes

if TYPE_CHECKING:
    from hqtool.capture.recorder import Recorder

#: Seconds to the first line of progress; each further one comes after twice as long, at most
#: the second figure.
_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 300.0

#: Columns that a list of names may take, and reasons for which layers are listed.
_WIDTH, _REASONS = 80, 5

#: Steps: a budget that is used up before is worth a word, wherever stderr goes.
_SOON = 10_000

#: Seconds of waiting for the disk that are worth a word, and their share of all time.
_LONG_WAIT, _LARGE_SHARE = 0.1, 0.02


class Progress:
    """Now and then a whole line, where stderr is a terminal; and what the first steps foretell.

    Not one line rewritten: the script prints to the same terminal, and would print over it.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._at_terminal = sys.stderr.isatty()
        self._foretold = False
        self._pause = _FIRST_PAUSE
        self._next = time.monotonic() + self._pause

    def update(self, recorder: Recorder) -> None:
        """Say how far the recorder is, if it is time to."""
        if self._quiet:
            return
        if recorder.steps_with_values and not self._foretold:
            self._foretold = True
            self._foretell(recorder)
        now = time.monotonic()
        if self._at_terminal and now >= self._next:
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            self._next = now + self._pause
            size = binary_bytes(recorder.writer.bytes_written)
            say(f"{recorder.steps} steps, {len(recorder.sites)} sites, {size}")

    def _foretell(self, recorder: Recorder) -> None:
        """How large the trace gets: away from a terminal only if its budget is used up soon."""
        cost = StepCost(recorder.records / recorder.steps, recorder.value_bytes)
        steps = cost.steps_to_thinning(recorder.settings)
        if self._at_terminal or (steps is not None and steps < _SOON):
            say(*projection(cost, recorder.settings))


def projection(cost: StepCost, settings: CaptureSettings) -> list[str]:
    """What a step takes, and how long the budget lasts."""
    with_values = binary_bytes(cost.statistics + cost.values)
    lines = [f"a step takes {with_values} with values, {binary_bytes(cost.statistics)} without"]
    steps = cost.steps_to_thinning(settings)
    if steps is not None:
        budget = binary_bytes(settings.budget_bytes or 0)
        lines.append(f"--budget {budget}: values get rarer after about {about(steps)} steps")
    return lines


def closing_lines(path: str, size_bytes: int, recorder: Recorder | None) -> list[str]:
    """What was missed, where the trace is, what is in it and what to do with it.

    Args:
        path: the trace, as it was named.
        size_bytes: its size.
        recorder: what recorded it; None where the program never imported torch.
    """
    lines = [f"{path} ({binary_bytes(size_bytes)})"]
    if recorder is None:
        return [*lines, "nothing recorded: the program did not import torch"]
    lines = [*_missed(recorder), *lines]
    if not recorder.sites and recorder.failed:
        return [*lines, f"nothing recorded: {_failures(path, recorder)}"]
    if not recorder.sites and recorder.left_out:
        return [
            *lines,
            _listing("nothing recorded: --layers and --exclude leave out ", recorder.left_out),
        ]
    if not recorder.sites:
        return [*lines, "nothing recorded: no layer ran a forward pass in training mode"]
    lines.append(
        f"{recorder.steps} steps ({recorder.steps_with_values} with values), "
        f"{len(recorder.sites)} sites"
    )
    if not recorder.steps:
        return [*lines, "no optimizer made a step: consider --step-on forward"]
    if recorder.failed:
        lines.append(_failures(path, recorder))
    return [*lines, f"next: hqtool compare {shlex.quote(path)}"]


def _failures(path: str, recorder: Recorder) -> str:
    remedy = f"hqtool info {shlex.quote(path)} tells why"
    return f"{len(recorder.failed)} sites could not be recorded: {remedy}"


def _missed(recorder: Recorder) -> list[str]:
    """What limits the trace, and what it cost."""
    lines = unrecorded_lines(recorder.unrecorded)
    if recorder.steps_by_forward:
        lines.append("no optimizer was made: a step ends where the next forward pass begins")
    if recorder.waited_seconds >= _LONG_WAIT and recorder.waited_share >= _LARGE_SHARE:
        share = f"{recorder.waited_share:.0%}"
        lines.append(f"training waited {recorder.waited_seconds:.1f} s ({share}) for the disk")
    return lines


def unrecorded_lines(reasons: Mapping[str, str]) -> list[str]:
    """A line for each reason why layers were not recorded.

    Args:
        reasons: layer → reason.
    """
    layers: dict[str, list[str]] = {}
    for layer, reason in sorted(reasons.items()):
        layers.setdefault(reason, []).append(layer)
    by_number = sorted(layers.items(), key=lambda item: -len(item[1]))
    lines = [_unrecorded_line(reason, each) for reason, each in by_number]
    if len(lines) > _REASONS:
        more = len(lines) - _REASONS + 1
        lines[-more:] = [f"not recorded: layers for {more} more reasons (hqtool info lists them)"]
    return lines


def _unrecorded_line(reason: str, layers: list[str]) -> str:
    if len(layers) == 1:
        return f"not recorded: {layers[0]} ({reason})"
    return _listing(f"not recorded: {len(layers)} layers ({reason}): ", layers)


def _listing(begin: str, names: Iterable[str]) -> str:
    """A line with as many names as fit, at least one."""
    first, *others = names
    line = begin + first
    for name in others:
        if len(f"hqtool: {line}, {name}, …") > _WIDTH:
            return f"{line}, …"
        line = f"{line}, {name}"
    return line
