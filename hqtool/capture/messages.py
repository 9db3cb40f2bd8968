"""Messages on stderr: the progress of a capture, and its result."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from hqtool.capture.cost import StepCost, about
from hqtool.capture.outcome import CaptureOutcome
from hqtool.capture.settings import CaptureSettings
from hqtool.launch.stderr_lines import say
from hqtool.sizes import binary_bytes, counted

if TYPE_CHECKING:
    from hqtool.capture.recorder import Recorder

#: Seconds until the first line of progress; the time to the next one doubles, up to the second
#: number.
_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 300.0

#: The longest line of names, in columns, and for how many reasons layers are listed.
_WIDTH, _REASONS = 80, 5

#: A budget that is used up within so many steps is reported even where stderr is no terminal.
_SOON_STEPS = 10_000

#: Waiting for the trace is reported from so many seconds and such a share of all time on.
_LONG_WAIT_SECONDS, _LARGE_SHARE = 0.1, 0.02


class Progress:
    """Prints a line of progress now and then, and once a projection of the trace's size.

    Progress is printed only where stderr is a terminal, as lines of their own: the script prints
    to the same terminal, and would overwrite a line that is updated in place.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._at_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._projected = False
        self._pause = _FIRST_PAUSE
        self._next = time.monotonic() + self._pause

    def update(self, recorder: Recorder) -> None:
        """Print how far the recorder is, if a line is due."""
        if self._quiet:
            return
        if recorder.steps_with_values and not self._projected:
            self._projected = True
            self._project(recorder)
        now = time.monotonic()
        if self._at_terminal and now >= self._next:
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            self._next = now + self._pause
            size = binary_bytes(recorder.writer.bytes_written)
            say(
                f"{counted(recorder.steps, 'step')}, {counted(len(recorder.sites), 'site')}, {size}"
            )

    def _project(self, recorder: Recorder) -> None:
        """Print how large the trace gets; where stderr is no terminal, only for a small budget."""
        records, extremes = recorder.records, recorder.extremes_bytes
        cost = StepCost(records / recorder.steps, recorder.value_bytes, extremes / recorder.steps)
        steps = cost.steps_to_thinning(recorder.settings)
        if self._at_terminal or (steps is not None and steps < _SOON_STEPS):
            say(*projection(cost, recorder.settings))


def projection(cost: StepCost, settings: CaptureSettings) -> list[str]:
    """Lines on the size of a step, and on how long the budget lasts."""
    with_values = binary_bytes(cost.statistics + cost.values)
    lines = [f"a step takes {with_values} with values, {binary_bytes(cost.statistics)} without"]
    steps = cost.steps_to_thinning(settings)
    if steps is not None:
        budget = binary_bytes(settings.budget_bytes or 0)
        lines.append(f"--budget {budget}: values get rarer after about {about(steps)} steps")
    return lines


def closing_lines(path: str, outcome: CaptureOutcome) -> list[str]:
    """What was not recorded, the trace and its content, and the next command to type.

    Args:
        path: the trace, as its user named it.
    """
    lines = [*_missed(outcome), f"{path} ({binary_bytes(outcome.size_bytes)})"]
    if not outcome.sites:
        return [*lines, f"nothing recorded: {_why_nothing(path, outcome)}"]
    lines.append(f"{_steps_line(outcome)}, {counted(outcome.sites, 'site')}")
    if not outcome.steps:
        return [*lines, "no optimizer made a step: consider --step-on forward"]
    if outcome.failed:
        lines.append(_failures(path, outcome))
    return [*lines, f"next: hqtool compare {shlex.quote(path)}"]


def nothing_imported(path: str, size_bytes: int) -> list[str]:
    """The closing lines for a program that never imported torch."""
    place = f"{path} ({binary_bytes(size_bytes)})"
    return [place, "nothing recorded: the program did not import torch"]


def _steps_line(outcome: CaptureOutcome) -> str:
    unfinished = ", and one that did not end" if outcome.ends_within_a_step else ""
    return f"{counted(outcome.steps, 'step')} ({outcome.steps_with_values} with values){unfinished}"


def _why_nothing(path: str, outcome: CaptureOutcome) -> str:
    watched = outcome.watched
    if outcome.failed:
        return _failures(path, outcome)
    if watched.left_out:
        return _listing("--layers and --exclude leave out ", watched.left_out)
    if watched.passes_without_backward:
        passes = counted(watched.passes_without_backward, "forward pass", "forward passes")
        return f"no backward pass reached a layer ({passes} with gradients enabled)"
    if watched.passes_without_gradients:
        passes = counted(watched.passes_without_gradients, "forward pass", "forward passes")
        return f"no layer ran with gradients enabled ({passes} without)"
    return "no layer ran a forward pass, and no optimizer updates a tensor that is multiplied with"


def _failures(path: str, outcome: CaptureOutcome) -> str:
    remedy = f"hqtool info {shlex.quote(path)} tells why"
    return f"{counted(len(outcome.failed), 'site')} could not be recorded: {remedy}"


def _missed(outcome: CaptureOutcome) -> list[str]:
    """What was not recorded, or in another way than expected, and what recording cost."""
    watched = outcome.watched
    lines = unrecorded_lines(watched.unrecorded)
    if outcome.without_geometry:
        lines.append(_listing("of unknown geometry, and in no bill: ", outcome.without_geometry))
    if watched.runs_eagerly:
        lines.append("what torch.compile compiled ran eagerly: its bits are those of eager mode")
    if watched.steps_by_forward:
        lines.append("no optimizer updated it: a step ends where the next forward pass begins")
    if outcome.waited_seconds >= _LONG_WAIT_SECONDS and outcome.waited_share >= _LARGE_SHARE:
        share = f"{outcome.waited_share:.0%}"
        waited = f"{outcome.waited_seconds:.1f} s ({share})"
        lines.append(f"training waited {waited} for the trace to be written")
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
