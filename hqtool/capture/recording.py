"""The trace of one process, from before it imports torch until it ends."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from hqtool.capture.messages import closing_lines, nothing_imported
from hqtool.capture.provenance import provenance
from hqtool.capture.settings import CaptureSettings
from hqtool.launch.process_rank import path_of_rank, rank_of_group, rank_of_process
from hqtool.launch.script_process import ScriptProcess
from hqtool.launch.stderr_lines import say

if TYPE_CHECKING:
    from hqtool.capture.outcome import CaptureOutcome
    from hqtool.capture.recorder import Recorder
    from hqtool.capture.session import Session
    from hqtool.trace.writer import TraceWriter


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

    @property
    def follows(self) -> bool:
        """Whether children are recorded, too."""
        return self.settings.follow_fork

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


class Recording(ScriptProcess):
    """Records this process from `begin` to its end, and then closes the trace.

    Args:
        plan: what to record, and where.
        on_commit: called with the recorder after each step; never in a child.
        on_close: called when the trace has been closed; never in a child.

    Attributes:
        writer: writes the trace; None where there is none (yet).
        recorder: records into the trace; None where nothing is recorded (yet).
        outcome: the result; None before the trace is closed, or where torch was never imported.
    """

    DONE: ClassVar[str] = "recorded"
    DOES: ClassVar[str] = "records"

    def __init__(
        self,
        plan: RecordingPlan,
        on_commit: Callable[[Recorder], None],
        on_close: Callable[[Recording], None],
    ) -> None:
        super().__init__(plan)
        self.plan = plan
        self.writer: TraceWriter | None = None
        self.recorder: Recorder | None = None
        self.outcome: CaptureOutcome | None = None
        self._session: Session | None = None
        self._on_commit = on_commit
        self._on_close = on_close

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
        path = os.path.join(plan.folder, str(self.path))
        settings = plan.settings
        self.writer = TraceWriter(
            path, force=settings.force, run=run, channel_extremes=settings.per_channel
        )

    def open_child(self) -> None:
        self._on_commit, self._on_close = _note_rank, _close_child
        self.open(parent=os.getppid())

    def attach(self) -> None:
        from hqtool.capture.session import Session

        assert self.writer is not None
        plan = self.plan
        self._session = Session(
            self.writer, plan.settings, on_commit=self._committed, quiet=plan.quiet
        )
        self.recorder = self._session.recorder
        self._session.attach()

    def drop(self) -> None:
        if self._session is not None:
            self._session.detach()
        self.writer = self.recorder = self.outcome = self._session = None

    def finish(self, state: str) -> None:
        if self._session is not None:
            self.outcome = self._session.close(state)
        elif self.writer is not None:
            self.writer.close(state)
        self._on_close(self)

    def closing_lines(self) -> list[str]:
        """The closing lines, once the trace is closed; none where there is no trace."""
        if self.writer is None:
            return []
        place, path, lines = self.writer.place, str(self.path), list[str]()
        if place is None:
            return [f"{path} was deleted or replaced while it was written: nothing of it is left"]
        if place != self.writer.path:
            lines, path = [f"{path} was moved while it was written"], place
        if self.outcome is None:
            return [*lines, *nothing_imported(path, self.writer.bytes_written)]
        return [*lines, *closing_lines(path, self.outcome)]

    def _committed(self, recorder: Recorder) -> None:
        """Pass a commit on, unless it is the one that closing makes."""
        if not self._closing:
            self._on_commit(recorder)


def enter(plan: str) -> None:
    """What a followed child calls before anything else."""
    Recording(RecordingPlan.from_json(plan), _note_rank, _close_child).begin_as_child()


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
