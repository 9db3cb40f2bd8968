"""The trace of one process, from before it imports torch until it ends."""

from __future__ import annotations

import atexit
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

from hqtool.capture.messages import closing_lines, nothing_imported
from hqtool.capture.provenance import provenance
from hqtool.capture.settings import CaptureSettings
from hqtool.errors import HqtoolError
from hqtool.launch.importing import after_import
from hqtool.launch.process_rank import path_of_process, path_of_rank, rank_of_group, rank_of_process
from hqtool.launch.stderr_lines import program_runs, say

if TYPE_CHECKING:
    from hqtool.capture.outcome import CaptureOutcome
    from hqtool.capture.recorder import Recorder
    from hqtool.capture.session import Session
    from hqtool.trace.writer import TraceWriter

#: Priority of closing the trace among what multiprocessing does when a child ends: the last.
_LAST = -1000


@dataclass(frozen=True, slots=True)
class RecordingPlan:
    """What the processes of a program are to record, and where.

    Args:
        path: the trace of the first process, as its user named it.
        folder: the folder that a relative path starts from.
        command: the program's name, without folders, and its arguments.
        settings: what to record.
        quiet: print neither progress nor closing lines.
    """

    path: str
    folder: str
    command: tuple[str, ...]
    settings: CaptureSettings
    quiet: bool

    def to_json(self) -> str:
        """The plan as text, for a process that is to be started."""
        return json.dumps(asdict(self) | {"settings": self.settings.to_json()})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The plan that was written as text."""
        fields = json.loads(text)
        fields |= {
            "settings": CaptureSettings(**fields["settings"]),
            "command": tuple(fields["command"]),
        }
        return cls(**fields)


def plan_of(
    target: str,
    argv: Sequence[str],
    *,
    module: bool,
    out: str | os.PathLike[str],
    settings: CaptureSettings,
    quiet: bool,
) -> RecordingPlan:
    """The plan for a script or module and its arguments; each rank makes a trace of its own."""
    path = path_of_rank(out, rank_of_process())
    command = (target if module else os.path.basename(target), *argv)
    return RecordingPlan(path, os.getcwd(), command, settings, quiet)


class Recording:
    """Records this process from `begin` to its end, and then closes the trace.

    A forked child inherits the recording. In the child it drops its parent's trace and waits for
    training: with `CaptureSettings.follow_fork` it then opens a trace for the child, otherwise it
    prints that none is written.

    Args:
        plan: what to record, and where.
        on_commit: called with the recorder after each step; never in a child.
        on_close: called when the trace has been closed; never in a child.

    Attributes:
        path: the trace, as messages name it.
        writer: writes the trace; None where there is none (yet).
        recorder: records into the trace; None where nothing is recorded (yet).
        outcome: the result; None before the trace is closed, or where torch was never imported.
    """

    def __init__(
        self,
        plan: RecordingPlan,
        on_commit: Callable[[Recorder], None],
        on_close: Callable[[Recording], None],
    ) -> None:
        self.plan = plan
        self.path = plan.path
        self.writer: TraceWriter | None = None
        self.recorder: Recorder | None = None
        self.outcome: CaptureOutcome | None = None
        self._session: Session | None = None
        self._on_commit = on_commit
        self._on_close = on_close
        self._torch_is_here = False
        self._awaiting = ExitStack()
        self._running = ExitStack()  # while it is open, messages bypass the program's own stderr
        self._state = "truncated"
        self._closing = self._terminated = False
        self._pid = os.getpid()

    @classmethod
    def of_child(cls, plan: RecordingPlan) -> Self:
        """The recording of a process that was started by a recorded one."""
        recording = cls(plan, _note_rank, _close_child)
        recording._become_child()
        return recording

    def open(self, **run: Any) -> None:
        """Create the trace.

        Args:
            run: entries of its provenance besides those of the plan.

        Raises:
            UsageError: it exists (without `force`) or cannot be created.
            TraceFull: the disk is nearly full.
        """
        from hqtool.trace.writer import TraceWriter

        plan = self.plan
        run |= provenance(plan.command, plan.settings) | rank_of_process()
        path = os.path.join(plan.folder, self.path)
        settings = plan.settings
        self.writer = TraceWriter(
            path, force=settings.force, run=run, channel_extremes=settings.per_channel
        )

    def begin(self) -> None:
        """Watch for torch, for forks and for the end of the process."""
        self._running.enter_context(program_runs())
        atexit.register(self.close)
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._on_terminate)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)
        after_import("torch", self._torch_came)

    def ended(self, status: int) -> None:
        """Note how the program's main thread ended; other threads may go on training."""
        self._state = "truncated" if status else "complete"

    def close(self) -> None:
        """Close the trace, once, and only in the process that it belongs to."""
        if os.getpid() != self._pid:
            return
        self._pid, self._closing = -1, True
        self._awaiting.close()
        if self._session is not None:
            self.outcome = self._session.close(self._state)
        elif self.writer is not None:
            self.writer.close(self._state)
        self._on_close(self)
        self._running.close()
        self._closing = False
        if self._terminated:
            _die()

    def closing_lines(self) -> list[str]:
        """The closing lines, once the trace is closed; none where there is no trace."""
        if self.writer is None:
            return []
        place, path, lines = self.writer.place, self.path, []
        if place is None:
            return [f"{path} was deleted or replaced while it was written: nothing of it is left"]
        if place != self.writer.path:
            lines, path = [f"{path} was moved while it was written"], place
        if self.outcome is None:
            return [*lines, *nothing_imported(path, self.writer.bytes_written)]
        return [*lines, *closing_lines(path, self.outcome)]

    def is_of_child(self) -> bool:
        """Whether this process was started by the one that was to be recorded."""
        return self.path != self.plan.path

    # This process

    def _torch_came(self) -> None:
        from hqtool.watch.first_training import at_first_training, at_first_update

        self._torch_is_here = True
        if self.writer is not None:
            self._attach()
        elif self.plan.settings.follow_fork:
            self._awaiting = at_first_training(self._child_trains)
        else:
            self._awaiting = at_first_update(self._say_not_recorded)

    def _attach(self) -> None:
        from hqtool.capture.session import Session

        assert self.writer is not None
        plan = self.plan
        self._session = Session(
            self.writer, plan.settings, on_commit=self._committed, quiet=plan.quiet
        )
        self.recorder = self._session.recorder
        self._session.attach()

    def _committed(self, recorder: Recorder) -> None:
        """Pass a commit on, unless it is the one that closing makes."""
        if not self._closing:
            self._on_commit(recorder)

    def _on_terminate(self, number: int, frame: FrameType | None) -> None:
        """Close the trace and die; while it is being closed, a second SIGTERM kills now."""
        repeated, self._terminated = self._terminated, True
        self.close()
        if repeated or not self._closing:
            _die()

    # Children

    def _forked(self) -> None:
        """Start again in a forked child."""
        if self._pid == -1:
            return
        self._awaiting.close()
        if self._session is not None:
            self._session.detach()
        self._become_child()
        if self._torch_is_here:
            self._torch_came()

    def _become_child(self) -> None:
        self._pid = os.getpid()
        self.path = path_of_process(self.plan.path, self._pid)
        self.writer = self.recorder = self.outcome = self._session = None
        self._on_commit, self._on_close = _note_rank, _close_child

    def _child_trains(self) -> None:
        """Record this child from now on, if a trace can be opened."""
        try:
            self.open(parent=os.getppid())
        except HqtoolError as error:
            say(f"process {self._pid} is not recorded: {error.cause}")
            return
        self._attach()
        self._await_end()

    def _await_end(self) -> None:
        """See that the trace is closed at exit, before its writer closes it as truncated.

        multiprocessing ends its children without calling atexit's functions.
        """
        from multiprocessing import parent_process, util

        atexit.register(self.close)
        if parent_process() is not None:
            util.Finalize(None, self._child_ended, exitpriority=_LAST)

    def _child_ended(self) -> None:
        """Close the trace; an exception that ended the child is still being handled."""
        error = sys.exception()
        exits_well = isinstance(error, SystemExit) and not error.code
        self.ended(0 if error is None or exits_well else 1)
        self.close()

    def _say_not_recorded(self) -> None:
        if not self.plan.quiet:
            say(
                f"process {self._pid} trains, but is a child of the one recorded: "
                "not recorded (--follow-fork records it)"
            )


def _die() -> None:
    """End as SIGTERM ends a process that does not handle it."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


def _note_rank(recorder: Recorder) -> None:
    """Note the rank of a child: a script assigns it only after it has started the process."""
    if recorder.steps == 1:
        for key, value in rank_of_group().items():
            recorder.writer.note(key, value)


def _close_child(recording: Recording) -> None:
    """Print the closing lines of a child that trained; remove the trace of one that did not."""
    if recording.writer is None:
        return
    if recording.recorder is None or not recording.recorder.steps:
        with suppress(OSError):
            os.unlink(recording.writer.path)
    elif not recording.plan.quiet:
        say(*recording.closing_lines())
