"""`hqtool train`: run an unmodified training script, quantized as a recipe says."""

from __future__ import annotations

import atexit
import os
import shlex
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import FrameType
from typing import TYPE_CHECKING, Any

from hqtool.launch.child_processes import StartedProcesses
from hqtool.launch.importing import after_import
from hqtool.launch.process_rank import path_of_rank, rank_of_process
from hqtool.launch.program import exit_status, find_program, require_other_file
from hqtool.launch.requirements import require_torch
from hqtool.launch.stderr_lines import program_runs, say
from hqtool.recipes.recipe import Recipe
from hqtool.training.provenance import provenance
from hqtool.training.settings import TrainSettings
from hqtool.vocab import Site

if TYPE_CHECKING:
    from hqtool.trace.writer import TraceWriter
    from hqtool.training.session import Session

#: The status where the script ended well, but less was quantized than asked for.
TOO_LITTLE = 1


def train_script(
    target: str,
    argv: Sequence[str],
    *,
    recipe: Recipe,
    out: str | os.PathLike[str] | None,
    settings: TrainSettings,
    module: bool = False,
    quiet: bool = False,
    states: Mapping[Site, Any] | None = None,
) -> int:
    """Run a training script as `__main__` of this process, and quantize its training.

    From here on the process belongs to the script: exit it with the status returned. RUN.h5 is
    closed when the process ends; SIGTERM closes it, too. The closing lines go to stderr.

    Args:
        target: the script's path, or with `module` a module's name.
        argv: its arguments.
        out: the trace to create, for each rank its own (see `hqtool.capture.run.run_script`); None:
            nothing is written.
        quiet: no closing lines.
        states: of estimators, to begin with (calibration).

    Returns:
        the script's exit status; 1 where that is 0, but coverage is below `min_coverage`.

    Raises:
        HqtoolError: PyTorch is missing.
        DataError: the script or module is missing; nothing was created.
        UsageError: the trace is the program itself, exists (without `settings.force`) or cannot
            be created.
    """
    require_torch()
    program = find_program(target, argv, module=module)
    name = target if module else os.path.basename(target)
    run = TrainingRun(recipe, settings, (name, *argv), quiet=quiet, states=states)
    if out is not None:
        require_other_file(out, target, module=module)
        run.open(path_of_rank(out, rank_of_process()))
    run.begin()
    return run.ended(exit_status(program))


class TrainingRun:
    """Quantizes this process from `begin` to its end.

    A forked child does not inherit it: what it trains is not quantized, and that is said.

    Args:
        command: the program's name, without folders, and its arguments.
        quiet: print no closing lines.
        states: of estimators, to begin with.
        on_step: called with the run after each step.
    """

    def __init__(
        self,
        recipe: Recipe,
        settings: TrainSettings,
        command: Sequence[str],
        *,
        quiet: bool,
        states: Mapping[Site, Any] | None = None,
        on_step: Callable[[TrainingRun], None] = lambda run: None,
    ) -> None:
        self._states = states
        self._on_step = on_step
        self._recipe = recipe
        self._settings = settings
        self._command = command
        self._quiet = quiet
        self._path: str | None = None
        self._writer: TraceWriter | None = None
        self._session: Session | None = None
        self._started = StartedProcesses("not quantized", "")
        self._running = ExitStack()
        self._awaiting = ExitStack()
        self._state = "truncated"
        self._pid = os.getpid()
        self._terminated = False

    def open(self, path: str) -> None:
        """Create RUN.h5."""
        from hqtool.trace.writer import TraceWriter

        run: dict[str, Any] = provenance(self._command, self._recipe, self._settings)
        run |= {} if self._states is None else {"calibrated": True}
        force = self._settings.force
        self._path = path
        self._writer = TraceWriter(
            path,
            force=force,
            run=run | rank_of_process(),
            channel_extremes=self._recipe.reads_channel_extremes,
            used_ranges=True,
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
        self._started.watch(followed=False)

    @property
    def steps(self) -> int:
        """How many steps have ended."""
        return 0 if self._session is None else self._session.trainer.steps

    def states(self) -> list[tuple[Site, str, Any]]:
        """Each site, its quantizer's label and its estimator's state."""
        if self._session is None:
            return []
        self._session.trainer.ranks.settle()
        sites = self._session.trainer.sites
        return [(site, each.quantizer.label, each.learn_all()) for site, each in sites.items()]

    def excluded(self) -> tuple[str, ...]:
        """The layers that ran and have no quantizer."""
        if self._session is None:
            return ()
        quantized = {site.layer for site in self._session.trainer.sites}
        return tuple(name for name in self._session.trainer.layers if name not in quantized)

    def ended(self, status: int) -> int:
        """The program's main thread has ended; the status to exit with."""
        self._state = "truncated" if status else "complete"
        least = self._settings.min_coverage
        if status or not least:
            return status
        share = 0.0 if self._session is None else self._session.outcome_so_far().covers
        if share >= least:
            return status
        say(f"coverage {100 * share:.1f} % is below --min-coverage {least:g}")
        return TOO_LITTLE

    def close(self) -> None:
        """Close RUN.h5 and tell what was done, once, and only in the process it belongs to."""
        if os.getpid() != self._pid:
            return
        self._pid = -1
        if self._session is not None:
            self._session.close(self._state)
        elif self._writer is not None:
            self._writer.close(self._state)
        if not self._quiet:
            say(*self._lines())
        self._running.close()

    def _lines(self) -> list[str]:
        if self._session is None or self._session.outcome is None:
            return ["nothing was quantized: the program did not import torch"]
        lines = [*self._started.lines(), *self._session.outcome.lines()]
        if self._path is not None:
            name = shlex.quote(self._path)
            lines += [f"{self._path}", f"next: hqtool info {name}; hqtool compare {name}"]
        return lines

    def _torch_came(self) -> None:
        from hqtool.training.session import Session

        self._session = Session(
            *(self._recipe, self._settings, self._writer),
            quiet=self._quiet,
            states=self._states,
            on_step=lambda: self._on_step(self),
        )
        self._session.attach()

    def _on_terminate(self, number: int, frame: FrameType | None) -> None:
        """Close RUN.h5 and die; a second SIGTERM kills now."""
        if not self._terminated:
            self._terminated = True
            self.close()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)

    def _forked(self) -> None:
        """In a forked child: quantize nothing, and say so once it trains."""
        if self._pid == -1:
            return
        if self._session is None:
            return
        self._session.detach()
        self._session = self._writer = None
        if not self._quiet:
            from hqtool.watch.first_training import at_first_update

            self._awaiting = at_first_update(self._say_not_quantized)

    def _say_not_quantized(self) -> None:
        say(f"process {os.getpid()} trains, but is a child of the one quantized: not quantized")
