"""`hqtool study`: recipes and seeds of one training, side by side."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from hqtool.cli.choice import WholeNumber
from hqtool.cli.files import INPUT, FileCommand
from hqtool.cli.output import announce, deliver, file_options
from hqtool.cli.progress import progress_of
from hqtool.compare.execute import default_jobs, processes
from hqtool.outputs import written
from hqtool.report.export import render_json
from hqtool.report.study_report import study_report
from hqtool.sizes import counted
from hqtool.study.outcome import Result
from hqtool.study.process import THREADS, cluster, here
from hqtool.study.replayed import moved_by_recipe, offline_scores, require_scorable
from hqtool.study.study import StudyResults, run_study, threads_for
from hqtool.study.study_file import Study, read_study
from hqtool.study.table import StudyTable, table_of

#: The file in a study's folder that holds what `--json` gives.
RESULT = "result.json"


@click.command("study", cls=FileCommand)
@click.argument("path", type=INPUT, metavar="STUDY.toml")
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(),
    metavar="DIR",
    help="The folder for the journal, and for what each run prints and records; a study that was "
    "stopped goes on there. Default: NAME.study for NAME.toml, in this folder.",
)
@click.option(
    "--jobs",
    metavar="N",
    type=WholeNumber(1),
    default=1,
    show_default=True,
    help=f"Runs at a time; each gets its share of the cores ({THREADS}).",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS|local",
    help="Run on a Dask cluster that shares the folders; local starts one here with --jobs "
    "workers.",
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(0, min_open=True),
    help="End a run that takes longer; instead of the study file's.",
)
@click.option("--retry", is_flag=True, help="Run again those that failed or timed out.")
@file_options
def command(
    path: str,
    folder: str | None,
    jobs: int,
    scheduler: str | None,
    timeout: float | None,
    retry: bool,
    json_to: str | None,
    csv_to: str | None,
    force: bool,
    quiet: bool,
) -> int:
    """Train with every recipe and seed of STUDY.toml, and show all in one table.

    Each run is a process of its own: `hqtool train`, or for a recipe that quantizes nothing the
    script as it is. A run that has ended is never run again, however often the study is stopped.
    Differences from the baseline are paired by seed. The exit status is 1 where a run failed or
    timed out, or none gave a figure; a run that diverged is a result.
    """
    study = read_study(path)
    require_scorable(study)
    place = Path(folder or f"{Path(path).stem}.study")
    _say_what_is_run(study, place, jobs, quiet)
    found = _run(study, place, jobs, scheduler, timeout, retry, quiet)
    table = _table(found, quiet)
    report = study_report(table)
    with written(str(place / RESULT)) as (out, _):
        render_json(report, out)
    deliver(report, json_to, csv_to, quiet, force=force)
    announce(f"the runs' files are in {place}", quiet)
    return 0 if table.complete else 1


def _say_what_is_run(study: Study, place: Path, jobs: int, quiet: bool) -> None:
    runs = f"{counted(len(study.recipes), 'recipe')} × {counted(len(study.seeds), 'seed')}"
    threads = threads_for(jobs)
    share = f", {jobs} at a time with {THREADS}={threads}" if threads is not None else ""
    announce(f"{runs} of {shlex.join(study.command)}{share}, in {place}", quiet)


def _run(
    study: Study,
    place: Path,
    jobs: int,
    scheduler: str | None,
    timeout: float | None,
    retry: bool,
    quiet: bool,
) -> StudyResults:
    def say(result: Result, done: int, of: int, left: float) -> None:
        announce(_line(study, result, done, of, left), quiet)

    executor = cluster(scheduler, jobs) if scheduler else here(jobs)
    try:
        return run_study(study, place, executor, jobs, timeout, say, retry=retry)
    except (KeyboardInterrupt, SystemExit):
        announce("hqtool: stopped; the same command goes on from here", quiet)
        raise


def _line(study: Study, result: Result, done: int, of: int, left: float) -> str:
    figure = f"{study.metric.name} {result.metric:.6g}" if result.metric is not None else ""
    told = figure or f"{result.outcome.replace('-', ' ')}, {result.reason}"
    run = f"{result.run.recipe.name}, seed {result.run.seed}"
    rest = f"; {_duration(left)} left" if done < of else ""
    return f"[{done}/{of}] {run}: {told} ({_duration(result.ended.seconds)}){rest}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _table(found: StudyResults, quiet: bool) -> StudyTable:
    moved = moved_by_recipe(found, lambda line: announce(f"hqtool: {line}", quiet))
    with progress_of("sites", quiet) as progress:
        scores = offline_scores(found, processes(default_jobs()), progress)
    return table_of(found, moved, scores)
