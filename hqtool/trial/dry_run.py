"""Trying a script: its first steps are recorded into a temporary trace, to see what it holds."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, TextIO

from hqtool.capture.cost import StepCost
from hqtool.capture.recording import Recording, plan_of
from hqtool.capture.settings import CaptureSettings
from hqtool.launch.program import INTERRUPTED, exit_status, find_program
from hqtool.launch.requirements import require_torch

if TYPE_CHECKING:
    from hqtool.capture.recorder import Recorder
    from hqtool.trace.overview import SiteSummary

#: Steps of a trial that only lists sites, and of one that measures: of the latter the first is to
#: warm up, the second keeps values, the third does not.
LISTING_STEPS, MEASURING_STEPS = 1, 3


class StepEnd(NamedTuple):
    """When a step ended.

    Args:
        seconds: the time, on a clock that only runs forward.
        busy_seconds: how much of the time so far hqtool took.
    """

    seconds: float
    busy_seconds: float


class Timing(NamedTuple):
    """How long a step takes, in seconds.

    Args:
        training: without capture.
        values, statistics: what capture adds where values are kept, and where they are not.
    """

    training: float
    values: float
    statistics: float

    def capture(self, settings: CaptureSettings) -> float:
        """Seconds that capture adds to a step on average."""
        return self.statistics + (self.values - self.statistics) * settings.burst / settings.every


@dataclass(frozen=True, slots=True)
class Trial:
    """The result of running a script's first steps.

    Args:
        sites: in the order in which they were first recorded.
        ops: layer → its op in a layer spec, where it has one.
        steps: how many steps ended.
        status: the script's exit status; 0 where it was stopped.
        steps_with_values: how many of the steps kept values.
        timing: None where the script ended before it could be measured.
        extremes_bytes: size of the extremes of channels, of all steps.
    """

    sites: tuple[SiteSummary, ...]
    ops: Mapping[str, str]
    steps: int
    status: int
    steps_with_values: int
    timing: Timing | None
    extremes_bytes: int = 0

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the script."""
        return self.status == INTERRUPTED

    @property
    def cost(self) -> StepCost:
        """What a step adds to the trace, on average."""
        steps = max(1, self.steps)
        records = sum(each.records for each in self.sites) / steps
        values = sum(map(self.values_bytes, self.sites))
        return StepCost(records, values, self.extremes_bytes / steps)

    def values_bytes(self, site: SiteSummary) -> float:
        """Bytes of one site's values in a step that keeps values."""
        return site.payload_bytes / max(1, self.steps_with_values)


def try_script(
    target: str,
    argv: Sequence[str],
    *,
    settings: CaptureSettings,
    module: bool,
    steps: int,
    quiet: bool,
) -> Trial:
    """Run a script as `run_script` does, but stop it after its first steps, and keep no trace.

    It is stopped as by `sys.exit()`; if it catches that and goes on, again after its next step.
    What it prints goes to stderr. Its child processes are not recorded.

    Args:
        steps: LISTING_STEPS or MEASURING_STEPS.

    Raises:
        HqtoolError: PyTorch is missing, or the disk is nearly full.
        DataError: the script or module is missing.
    """
    require_torch()
    program = find_program(target, argv, module=module)
    tried = _tried_settings(settings, steps)
    stop, trace = _StopAfter(steps), _TemporaryTrace()
    plan = plan_of(target, argv, module=module, out=trace.path, settings=tried, quiet=quiet)
    recording = Recording(plan, stop.update, trace.finish)
    try:
        recording.open()
        recording.begin()
        with _printing_to_stderr():
            status = exit_status(program)
        if recording.is_child:  # the script has forked, and this is the child's end
            sys.exit(status)
    finally:
        recording.close()
    timing = _timing(stop.ends, tried)
    counts = trace.steps_with_values, timing, trace.extremes_bytes
    return Trial(trace.sites, trace.ops, trace.steps, status, *counts)


def _tried_settings(settings: CaptureSettings, steps: int) -> CaptureSettings:
    """Settings that keep values at two steps of three; none where sites are only listed."""
    always = settings.burst == settings.every
    every, burst = (1, 1) if always else (MEASURING_STEPS, MEASURING_STEPS - 1)
    window = (0, 0) if steps == LISTING_STEPS else None
    return replace(
        settings, every=every, burst=burst, steps=window, budget_bytes=None, follow_fork=False
    )


class _StopAfter:
    """Notes when steps end, and stops the script after the last one wanted."""

    def __init__(self, steps: int) -> None:
        self.ends: list[StepEnd] = []
        self._steps = steps

    def update(self, recorder: Recorder) -> None:
        """To be called at the end of each step."""
        self.ends.append(StepEnd(time.perf_counter(), recorder.busy_seconds))
        if recorder.steps >= self._steps:
            sys.exit()


class _TemporaryTrace:
    """A trace in a folder of its own, which is read when it is closed and then removed."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="hqtool-")
        self.path = os.path.join(self._folder, "trial.h5")
        self.sites: tuple[SiteSummary, ...] = ()
        self.ops: dict[str, str] = {}
        self.steps = self.steps_with_values = self.extremes_bytes = 0

    def finish(self, recording: Recording) -> None:
        """Read what a `Trial` needs, and remove the folder."""
        try:
            if recording.writer is not None:
                self._read(recording.writer.path)
            if recording.recorder is not None:
                self.steps = recording.recorder.steps
                self.steps_with_values = recording.recorder.steps_with_values
                self.extremes_bytes = recording.recorder.extremes_bytes
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _read(self, path: str) -> None:
        from hqtool.trace.reader import TraceReader

        with TraceReader(path) as trace:
            self.sites = tuple(trace.overview())
            for site in trace.sites:
                geometry = trace.geometry(site.layer)
                if geometry is not None:
                    self.ops[site.layer] = geometry["op"]


def _timing(ends: Sequence[StepEnd], tried: CaptureSettings) -> Timing | None:
    """The timing of the second and third step; only the second one keeps values."""
    if len(ends) < MEASURING_STEPS:
        return None
    first, second, third = ends[:MEASURING_STEPS]
    busy = third.busy_seconds - first.busy_seconds
    training = (third.seconds - first.seconds - busy) / 2
    if tried.burst == tried.every:
        return Timing(training, busy / 2, busy / 2)
    values = second.busy_seconds - first.busy_seconds
    return Timing(training, values, busy - values)


@contextmanager
def _printing_to_stderr() -> Iterator[None]:
    """Send what is printed to stderr, by child processes too: stdout is for the result."""
    stream = sys.stdout
    _flush(stream)
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout = stream  # a script may put another in its place
        _flush(stream)
        os.dup2(stdout, 1)
        os.close(stdout)


def _flush(stream: TextIO | None) -> None:
    """Flush a stream; sys.stdout is None where Python was started with stdout closed."""
    if stream is not None:
        stream.flush()
