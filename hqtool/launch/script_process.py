"""What a command does in a script's process and its children, from before they import torch."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from types import FrameType
from typing import ClassVar, Protocol

from hqtool.errors import HqtoolError
from hqtool.launch.child_processes import StartedProcesses
from hqtool.launch.followed_children import follow_children
from hqtool.launch.importing import after_import
from hqtool.launch.process_rank import path_of_process
from hqtool.launch.program import exit_status
from hqtool.launch.stderr_lines import program_runs, say

#: Priority of ending among what multiprocessing does when a child ends: the last.
_LAST = -1000


class ScriptPlan(Protocol):
    """What is to be done in the processes of a script.

    Args:
        path: the file of the first process, as its user named it; None: none is written.
        quiet: print no messages.
        follows: it is done in child processes, too.
    """

    @property
    def path(self) -> str | None: ...

    @property
    def quiet(self) -> bool: ...

    @property
    def follows(self) -> bool: ...

    def to_json(self) -> str:
        """The plan as text, for a process that is to be started."""


class ScriptProcess(ABC):
    """Is at work in this process from `begin` to its end.

    A forked child inherits it. In the child it drops what is its parent's and waits for training:
    where the plan follows children, it opens a file of the child's own and goes to work, otherwise
    it says that it does not.

    Attributes:
        path: the file, as messages name it; of a child its own: T.pid1234.h5 for T.h5.
        is_child: this process was started by the first one.
    """

    #: What is done, and what --follow-fork does: 'recorded', 'records'.
    DONE: ClassVar[str]
    DOES: ClassVar[str]

    def __init__(self, plan: ScriptPlan) -> None:
        self.path = plan.path
        self.is_child = False
        self.started = StartedProcesses(f"not {self.DONE}")
        self._shared_plan = plan
        self._at_work = True
        self._torch_is_here = False
        self._awaiting = ExitStack()
        self._running = ExitStack()  # while it is open, messages bypass the program's own stderr
        self._state = "truncated"
        self._closing = self._terminated = False
        self._pid = os.getpid()

    # What each command does in its own way

    @abstractmethod
    def open_child(self) -> None:
        """Open what a child writes.

        Raises:
            HqtoolError: it cannot be written.
        """

    @abstractmethod
    def attach(self) -> None:
        """Go to work: torch has been imported."""

    @abstractmethod
    def drop(self) -> None:
        """In a forked child: stop, and forget what is the parent's."""

    @abstractmethod
    def finish(self, state: str) -> None:
        """Close what is written, 'complete' or 'truncated', and print the closing lines."""

    # The first process

    def run(self, program: Callable[[], None]) -> int:
        """Run a program; its exit status. All else ends with the process."""
        self.begin()
        self.started.watch(followed=self._shared_plan.follows)
        if self._shared_plan.follows:
            self._follow()
        status = exit_status(program)
        self.ended(status)
        return status

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
        """Finish, once, and only in the process that this belongs to."""
        if os.getpid() != self._pid:
            return
        self._pid, self._closing = -1, True
        self._awaiting.close()
        if self._at_work:
            self.finish(self._state)
        self._running.close()
        self._closing = False
        if self._terminated:
            _die()

    def _torch_came(self) -> None:
        from hqtool.launch.first_training import at_first_training, at_first_update

        self._torch_is_here = True
        if self._at_work:
            self.attach()
        elif self._shared_plan.follows:
            self._awaiting = at_first_training(self._child_trains)
        elif not self._shared_plan.quiet:
            self._awaiting = at_first_update(self._say_left_alone)

    def _on_terminate(self, number: int, frame: FrameType | None) -> None:
        """Finish and die; while it is finishing, a second SIGTERM kills now."""
        repeated, self._terminated = self._terminated, True
        self.close()
        if repeated or not self._closing:
            _die()

    # Children

    def begin_as_child(self) -> None:
        """Begin in a process that multiprocessing has started."""
        self._become_child()
        self._follow()
        self.begin()

    def _follow(self) -> None:
        place, plan = type(self).__module__, self._shared_plan.to_json()
        follow_children(f"from {place} import enter; enter({plan!r})")

    def _forked(self) -> None:
        """Start again in a forked child."""
        if self._pid == -1:
            return
        self._awaiting.close()
        self.drop()
        self._become_child()
        if self._torch_is_here:
            self._torch_came()

    def _become_child(self) -> None:
        self._pid = os.getpid()
        self.is_child, self._at_work = True, False
        first = self._shared_plan.path
        self.path = None if first is None else path_of_process(first, self._pid)

    def _child_trains(self) -> None:
        """Go to work in this child from now on, if its file can be opened."""
        try:
            self.open_child()
        except HqtoolError as error:
            say(f"process {self._pid} is not {self.DONE}: {error.cause}")
            return
        self._at_work = True
        self.attach()
        self._await_end()

    def _await_end(self) -> None:
        """See that this is closed at exit, before what it writes closes itself as truncated.

        multiprocessing ends its children without calling atexit's functions.
        """
        from multiprocessing import parent_process, util

        atexit.register(self.close)
        if parent_process() is not None:
            util.Finalize(None, self._child_ended, exitpriority=_LAST)

    def _child_ended(self) -> None:
        """Close; an exception that ended the child is still being handled."""
        error = sys.exception()
        exits_well = isinstance(error, SystemExit) and not error.code
        self.ended(0 if error is None or exits_well else 1)
        self.close()

    def _say_left_alone(self) -> None:
        say(
            f"process {self._pid} trains, but is a child of the one {self.DONE}: "
            f"not {self.DONE} (--follow-fork {self.DOES} it)"
        )


def _die() -> None:
    """End as SIGTERM ends a process that does not handle it."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
