"""Training without hqtool and with it: does it end with the same bits, and how much later?"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from hqtool.capture.settings import CaptureSettings
from hqtool.file_lock import is_held
from hqtool.launch.process_rank import path_of_rank, rank_of_process
from hqtool.launch.program import find_program
from hqtool.launch.requirements import require_torch
from hqtool.launch.stderr_lines import say
from hqtool.outputs import being_written
from hqtool.recipes.named import load_recipe
from hqtool.recipes.recipe import Recipe
from hqtool.recipes.recipe_file import dumps
from hqtool.training.settings import TrainSettings
from hqtool.trial.finished_run import FinishedRun, finished_run
from hqtool.trial.same_bits import difference_of, extent, further_lines, why_incomparable

#: Exit statuses: training is the same; hqtool changed it, or two quantized runs differ; the runs
#: cannot be compared.
SAME, CHANGED, UNKNOWN = 0, 1, 3


class Verdict(NamedTuple):
    """The lines to print, and the exit status."""

    lines: list[str]
    status: int


@contextlib.contextmanager
def _runs_end_with_us() -> Iterator[None]:
    """Within it SIGTERM raises SystemExit, which ends the runs."""
    earlier = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


@_runs_end_with_us()
def verify(
    target: str,
    argv: Sequence[str],
    *,
    out: str | os.PathLike[str],
    settings: CaptureSettings,
    module: bool,
    quiet: bool,
) -> Verdict:
    """Train without capture and then under capture, and compare; the trace is kept.

    Where the two differ, a second run without capture shows whether the script reproduces itself.
    What torch.compile compiles runs eagerly under capture, and so it does in the plain run.

    Raises:
        HqtoolError: PyTorch is missing.
        DataError: the script or module is missing; nothing was run.
        UsageError: the trace exists (without `settings.force`) or has no folder.
    """
    plain = _plain_job(target, argv, module=module)
    _require_place(out, force=settings.force)
    job = plain | {"by": "capture", "out": os.fspath(out), "settings": settings.to_json()}
    with_it = _With("capture", "under capture", "parameters")
    return _unchanged(plain, job, with_it, quiet, tells=True)


@_runs_end_with_us()
def verify_training(
    target: str,
    argv: Sequence[str],
    *,
    recipe: Recipe,
    out: str | os.PathLike[str] | None,
    settings: TrainSettings,
    calibrate: int | None,
    module: bool,
    quiet: bool,
) -> Verdict:
    """Train without hqtool, then by recipe `none`, and compare; then twice by the recipe.

    A recipe that quantizes nothing is itself compared with plain training. RUN.h5 is that of the
    recipe's first run.

    Args:
        calibrate: the steps that set ranges up in each of the two; None: none do.

    Raises:
        HqtoolError: PyTorch is missing.
        DataError: the script or module is missing; nothing was run.
        UsageError: RUN.h5 exists (without `settings.force`) or has no folder.
    """
    plain = _plain_job(target, argv, module=module)
    if out is not None:
        _require_place(out, force=settings.force)
    job = plain | {"by": "train", "settings": settings.to_json(), "calibrate": None}
    kept = {"out": None if out is None else os.fspath(out)}
    nothing = load_recipe("none") if recipe.tensors else recipe
    by_none = job | _rules(nothing) | ({} if recipe.tensors else kept)
    how = f"by recipe {nothing.name}"
    verdict = _unchanged(
        plain, by_none, _With("hqtool", how, f"recipe {nothing.name}"), quiet, tells=False
    )
    if verdict.status != SAME or not recipe.tensors:
        return verdict
    by_recipe = job | _rules(recipe) | {"calibrate": calibrate}
    twice = _reproduced(by_recipe | kept, by_recipe, recipe.name, quiet)
    return Verdict([*verdict.lines, *twice.lines], twice.status)


class _With(NamedTuple):
    """What words call a way to run a script.

    Args:
        name: what a plain run is without.
        how: told beside the script's name.
        what: begins the result.
    """

    name: str
    how: str
    what: str


def _plain_job(target: str, argv: Sequence[str], *, module: bool) -> dict[str, Any]:
    """The run without hqtool, of a script that is there."""
    require_torch()
    find_program(target, argv, module=module)
    return {"target": target, "argv": list(argv), "module": module, "by": None, "out": None}


def _rules(recipe: Recipe) -> dict[str, Any]:
    return {"recipe": [recipe.name, dumps(recipe)]}


def _require_place(out: str | os.PathLike[str], *, force: bool) -> None:
    """Refuse a trace that could not be written, before anything is run."""
    from hqtool.trace import hdf5_files

    path = path_of_rank(out, rank_of_process())
    hdf5_files.require_folder(os.path.realpath(path))
    if is_held(path):
        raise being_written(path)
    if os.path.exists(path) and not force:
        raise hdf5_files.exists_already(path)


def _unchanged(
    job: dict[str, Any], by_hqtool: dict[str, Any], words: _With, quiet: bool, *, tells: bool
) -> Verdict:
    """Whether hqtool leaves a training as it is.

    Args:
        tells: what hqtool says in its run is passed on.
    """
    plain = finished_run(job, f"without {words.name}", quiet)
    other = finished_run(by_hqtool, words.how, quiet)
    if tells and not quiet:
        say(*other.messages)
    _pass_on_errors(plain, other)
    if why := why_incomparable(plain, other):
        killed = plain.report and other.status < 0
        lines = [f"{words.what}: cannot be compared: {why}"]
        return Verdict(lines, CHANGED if killed else UNKNOWN)
    further, difference = further_lines(plain, other), difference_of(plain, other)
    if difference is None:
        return Verdict([f"{words.what}: bit-identical {extent(plain)}", *further], SAME)
    again = finished_run(job, f"without {words.name}, once more", quiet)
    line = f"{words.what}: {difference}"
    if not again.report or difference_of(plain, again):
        return Verdict([line, *_irreproducible(words.name)], UNKNOWN)
    changed = f"{words.name} changed this training: two runs without {words.name} end with the same"
    return Verdict([line, f"{changed} bits", *further], CHANGED)


def _irreproducible(name: str) -> list[str]:
    return [
        f"this says nothing about {name}: two runs without it differ from each other, too",
        "  seed the script's random numbers, and let it not resume from what an earlier run left",
    ]


def _reproduced(job: dict[str, Any], again: dict[str, Any], name: str, quiet: bool) -> Verdict:
    """Whether two runs by a recipe end with the same bits."""
    first = finished_run(job, f"by recipe {name}", quiet)
    second = finished_run(again, f"by recipe {name}, once more", quiet)
    if not quiet:
        say(*first.messages)
    _pass_on_errors(first)
    return verdict_on_two(first, second, name)


def verdict_on_two(first: FinishedRun, second: FinishedRun, name: str) -> Verdict:
    """Whether two runs by a recipe of this name have ended with the same bits."""
    what = f"recipe {name}, twice"
    if why := why_incomparable(first, second):
        return Verdict([f"{what}: cannot be compared: {why}"], UNKNOWN)
    if difference := difference_of(first, second):
        return Verdict([f"{what}: {difference}"], CHANGED)
    ended = f"; exit status {first.status}" if first.status else ""
    return Verdict([f"{what}: bit-identical {extent(first)}{ended}"], SAME)


def _pass_on_errors(*runs: FinishedRun) -> None:
    """What runs printed to stderr that ended badly."""
    for run in runs:
        if run.status or not run.report:
            sys.stderr.write(run.err.decode(errors="replace"))
