"""`hqtool train`: run an unmodified training script, quantized as a recipe says."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

from hqtool.launch.process_rank import rank_of_group, rank_of_process
from hqtool.launch.program import find_program, require_other_file
from hqtool.launch.requirements import require_torch
from hqtool.launch.script_process import ScriptProcess
from hqtool.launch.stderr_lines import say
from hqtool.recipes.recipe import Recipe
from hqtool.training.outcome import unmet_lines
from hqtool.training.plan import TrainPlan, plan_of
from hqtool.training.settings import TrainSettings
from hqtool.training.told.provenance import provenance
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
        out: the trace to create, for each rank and each child its own (see
            `hqtool.capture.run.run_script`); None: nothing is written.
        quiet: no closing lines.
        states: of estimators, to begin with (calibration); a child begins without.

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
    if out is not None:
        require_other_file(out, target, module=module)
    plan = plan_of(target, argv, recipe, settings, module=module, out=out, quiet=quiet)
    run = TrainingRun(plan, states)
    run.open(**({} if states is None else {"calibrated": True}))
    return run.run(program)


class TrainingRun(ScriptProcess):
    """Quantizes this process from `begin` to its end.

    Args:
        states: of estimators, to begin with; never in a child.
        on_step: called with the run after each step; never in a child.
    """

    DONE: ClassVar[str] = "quantized"
    DOES: ClassVar[str] = "quantizes"

    def __init__(
        self,
        plan: TrainPlan,
        states: Mapping[Site, Any] | None = None,
        on_step: Callable[[TrainingRun], None] = lambda run: None,
    ) -> None:
        super().__init__(plan)
        self.plan = plan
        self._states = states
        self._on_step = on_step
        self._writer: TraceWriter | None = None
        self._session: Session | None = None

    def open(self, **run: Any) -> None:
        """Create RUN.h5, if it is asked for.

        Args:
            run: entries of its provenance besides those of the plan.
        """
        if self.path is None:
            return
        from hqtool.trace.writer import TraceWriter

        plan = self.plan
        self._writer = TraceWriter(
            os.path.join(plan.folder, self.path),
            force=plan.settings.force,
            run=provenance(plan.command, plan.recipe, plan.settings) | rank_of_process() | run,
            channel_extremes=plan.recipe.reads_channel_extremes,
            used_ranges=True,
        )

    def run(self, program: Callable[[], None]) -> int:
        """Run a program; its exit status, or `TOO_LITTLE`."""
        return super().run(program) or self._judged()

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

    def unmet(self) -> tuple[str, ...]:
        """What rules name and no layer that ran is, in words."""
        if self._session is None:
            return ()
        return unmet_lines(self.plan.recipe, self._session.trainer.layers)

    def open_child(self) -> None:
        self._states, self._on_step = None, _note_rank
        self.open(parent=os.getppid())

    def attach(self) -> None:
        from hqtool.training.session import Session

        plan = self.plan
        self._session = Session(
            *(plan.recipe, plan.settings, self._writer),
            quiet=plan.quiet,
            states=self._states,
            on_step=lambda: self._on_step(self),
        )
        self._session.attach()

    def drop(self) -> None:
        if self._session is not None:
            self._session.detach()
        self._session = self._writer = None

    def finish(self, state: str) -> None:
        if self._session is not None:
            self._session.close(state)
        elif self._writer is not None:
            self._writer.close(state)
        if self.is_child and not self.steps:
            self._leave_nothing()
        elif not self.plan.quiet:
            say(*self._lines())

    def note(self, key: str, value: Any) -> None:
        """Add to the provenance of RUN.h5, if there is one."""
        if self._session is not None and self._session.trace is not None:
            self._session.trace.note(key, value)

    def _judged(self) -> int:
        """The status that coverage gives; of a child, which is not followed, none."""
        least = self.plan.settings.min_coverage
        if not least or not self._at_work:
            return 0
        share = 0.0 if self._session is None else self._session.outcome_so_far().covers
        if share >= least:
            return 0
        say(f"coverage {100 * share:.1f} % is below --min-coverage {least:g}")
        return TOO_LITTLE

    def _leave_nothing(self) -> None:
        """Remove the file of a child that made no step."""
        if self._writer is not None:
            with suppress(OSError):
                os.unlink(self._writer.path)

    def _lines(self) -> list[str]:
        lines = [f"process {os.getpid()}, a child:"] if self.is_child else self.started.lines()
        if self._session is None or self._session.outcome is None:
            return [*lines, "nothing was quantized: the program did not import torch"]
        lines += self._session.outcome.lines()
        if self.path is not None:
            name = shlex.quote(self.path)
            lines += [f"{self.path}", f"next: hqtool info {name}; hqtool compare {name}"]
        return lines


def enter(plan: str) -> None:
    """What a followed child calls before anything else."""
    TrainingRun(TrainPlan.from_json(plan)).begin_as_child()


def _note_rank(run: TrainingRun) -> None:
    """Note the rank of a child: a script assigns it only after it has started the process."""
    if run.steps == 1:
        for key, value in rank_of_group().items():
            run.note(key, value)
