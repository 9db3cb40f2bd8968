"""Running the first steps of a script aside, in a child process that leaves the script's own alone.

What the script writes to files in these steps it writes twice; what it prints is thrown away.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from hqtool.errors import DataError, UsageError
from hqtool.launch.meeting import meet_apart
from hqtool.launch.program import find_program
from hqtool.launch.requirements import require_torch
from hqtool.recipes.recipe import Recipe
from hqtool.training.plan import TrainPlan
from hqtool.training.ranks.aside import part
from hqtool.training.run import TrainingRun
from hqtool.training.settings import TrainSettings
from hqtool.vocab import Site


class AsideSite(NamedTuple):
    """A site that ran aside.

    Args:
        quantizer: its label.
        state: of its estimator after the steps.
    """

    site: Site
    quantizer: str
    state: Any


class Aside(NamedTuple):
    """What ran aside: sites in the order in which they ran, and layers without a quantizer.

    Args:
        unmet: what rules name and no layer that ran is, in words.
    """

    steps: int
    sites: tuple[AsideSite, ...]
    excluded: tuple[str, ...]
    unmet: tuple[str, ...]

    @property
    def states(self) -> dict[Site, Any]:
        """The estimators' states."""
        return {each.site: each.state for each in self.sites}

    def listing(self) -> list[str]:
        """A line for each site, and one for each layer that is left as it is."""
        width = max((len(str(each.site)) for each in self.sites), default=0)
        lines = [f"{each.site!s:{width}}  {each.quantizer}" for each in self.sites]
        return [*lines, *(f"{name}  none" for name in self.excluded)]


def aside(
    target: str,
    argv: Sequence[str],
    *,
    recipe: Recipe,
    settings: TrainSettings,
    module: bool,
    steps: int,
) -> Aside:
    """Run a script or module for so many steps, in a child process.

    Raises:
        HqtoolError: PyTorch is missing.
        UsageError: this system cannot fork.
        DataError: the script or module is missing, or ended before its first step did.
    """
    require_torch()
    return _run_aside(find_program(target, argv, module=module), recipe, settings, steps)


def _run_aside(
    program: Callable[[], None], recipe: Recipe, settings: TrainSettings, steps: int
) -> Aside:
    if not hasattr(os, "fork"):
        raise UsageError("running steps aside takes fork, which is not here", "train without it")
    with tempfile.TemporaryDirectory(prefix="hqtool-") as folder:
        result = Path(folder, "aside")
        sys.stdout.flush()
        sys.stderr.flush()
        parent, child = os.getpid(), os.fork()
        if not child:
            _end_with(parent)
            _run_to_end(program, recipe, settings, steps, result)
        status = _status_of(child)
        if not result.exists():
            cause = f"the script ended, with status {status}, before its first step did"
            remedy = "see what it prints: python SCRIPT; what a child process trains is not reached"
            raise DataError(cause, remedy)
        found: Aside = pickle.loads(result.read_bytes())
    return found


def _status_of(child: int) -> int:
    """Wait for the end of a child; where this process is to end first, the child is killed."""
    try:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise


def _end_with(parent: int) -> None:
    """Let the system kill this process when its parent is killed (Linux)."""
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(_ON_PARENTS_END, signal.SIGKILL)
    if os.getppid() != parent:  # it was killed before
        os._exit(1)


#: The option PR_SET_PDEATHSIG of prctl.
_ON_PARENTS_END = 1


class _AsideRun(TrainingRun):
    """Quantizes steps aside. A child ends where its training would begin: it is not the script's
    own process, and would go on to its end.
    """

    def open_child(self) -> NoReturn:
        os._exit(0)


def enter(plan: str) -> None:
    """What a child begins with that multiprocessing starts."""
    _AsideRun(TrainPlan.from_json(plan)).begin_as_child()


def _run_to_end(
    program: Callable[[], None], recipe: Recipe, settings: TrainSettings, steps: int, result: Path
) -> NoReturn:
    """In the child: run, and end the process without anything that the script has registered."""
    try:
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nothing, descriptor)

        def stepped(run: TrainingRun) -> None:
            if run.steps >= steps:
                _write(run, result)
                part()
                os._exit(0)

        following = replace(settings, follow_fork=True, min_coverage=0.0)
        plan = TrainPlan(None, os.getcwd(), (), recipe, following, quiet=True)
        run = _AsideRun(plan, on_step=stepped)
        meet_apart("aside")
        status = run.run(program)
        if run.steps:
            _write(run, result)
        os._exit(status)
    finally:
        os._exit(1)


def _write(run: TrainingRun, result: Path) -> None:
    sites = tuple(AsideSite(*each) for each in run.states())
    partial = result.with_suffix(".part")
    partial.write_bytes(pickle.dumps(Aside(run.steps, sites, run.excluded(), run.unmet())))
    partial.replace(result)
