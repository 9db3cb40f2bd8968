"""`hqtool capture`: run an unmodified training script, recording it."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING

from hqtool.capture import require_torch
from hqtool.capture.closing import Progress, closing_lines
from hqtool.capture.importing import after_import
from hqtool.capture.program import exit_status, find_program
from hqtool.capture.provenance import provenance
from hqtool.capture.ranks import path_of_rank, rank_of_process
from hqtool.capture.settings import Settings
from hqtool.trace.writer import TraceWriter

if TYPE_CHECKING:
    from hqtool.capture.session import Session


def run_script(
    target: str,
    argv: Sequence[str],
    *,
    out: str | os.PathLike[str],
    settings: Settings,
    module: bool = False,
    quiet: bool = False,
) -> int:
    """Run a training script as `__main__` of this process, and record its training.

    The process is the script's from here on: leave it with the status returned. The trace is
    closed when the process ends, after the script's threads and its atexit functions:
    complete where the status is 0, else truncated; SIGTERM closes it, too, and then kills the
    process as ever. The closing lines go to stderr.

    Args:
        target: the script's path, or with `module` a module's name.
        argv: its arguments.
        out: the trace to create; where several ranks train, each makes its own, T.rank0.h5 for
            T.h5, as RANK and WORLD_SIZE in the environment tell.
        settings: what to record.
        quiet: print neither progress nor closing lines.

    Returns:
        the script's exit status: 1 after an uncaught exception, 130 after Ctrl-C.

    Raises:
        HqtoolError: PyTorch is missing.
        DataError: the script or module is missing; nothing was created.
        UsageError: the trace exists (without `settings.force`) or cannot be created.
    """
    require_torch()
    program = find_program(target, argv, module=module)
    command = [target if module else os.path.basename(target), *argv]
    rank = rank_of_process()
    path = path_of_rank(out, rank)
    writer = TraceWriter(path, force=settings.force, run=provenance(command, settings) | rank)
    recording = _Recording(writer, path, settings, quiet=quiet)
    recording.begin()
    status = exit_status(program)
    recording.script_ended(status)
    return status


class _Recording:
    """The trace of a script, from before it imports torch until the process ends."""

    def __init__(self, writer: TraceWriter, path: str, settings: Settings, *, quiet: bool) -> None:
        self._writer = writer
        self._path = path
        self._settings = settings
        self._quiet = quiet
        self._progress = Progress(quiet=quiet)
        self._session: Session | None = None
        self._state = "truncated"
        self._pid = os.getpid()

    def begin(self) -> None:
        """Watch for torch, and for the end of the process."""
        atexit.register(self._close)
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._on_terminate)
        after_import("torch", self._attach)

    def script_ended(self, status: int) -> None:
        """The script's main thread has ended; others may go on training."""
        self._state = "truncated" if status else "complete"

    def _attach(self) -> None:
        from hqtool.capture.session import Session

        self._session = Session(self._writer, self._settings, on_commit=self._progress.update)
        self._session.attach()

    def _close(self) -> None:
        """Close the trace, once, and only in the process that opened it."""
        if os.getpid() != self._pid:
            return
        self._pid = -1
        (self._session or self._writer).close(self._state)
        recorder = self._session.recorder if self._session else None
        lines = closing_lines(self._path, self._writer.bytes_written, recorder)
        if not self._quiet:
            print(*lines, sep="\n", file=sys.stderr, flush=True)

    def _on_terminate(self, number: int, frame: FrameType | None) -> None:
        self._close()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
