"""Running a study: every recipe with every seed once, however often it is stopped and resumed."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hqtool.compare.execute import default_jobs
from hqtool.errors import DataError, UsageError
from hqtool.recipes.recipe_file import dumps
from hqtool.study.journal import SCHEMA, Journal
from hqtool.study.outcome import Result, result_of
from hqtool.study.process import THREADS, Executor, Job, here
from hqtool.study.run import Command, Ended, Run, command_of
from hqtool.study.study_file import Study, StudyRecipe
from hqtool.version import __version__

JOURNAL, RECIPES, RUNS = "journal.jsonl", "recipes", "runs"


@dataclass(frozen=True, slots=True)
class StudyResults:
    """What all runs of a study gave, in the order of its recipes, then seeds.

    Args:
        folder: where each run's files lie.
        resumed: how many of the runs had ended before.
        changed: the script is not what it was when the study began.
    """

    study: Study
    folder: Path
    results: tuple[Result, ...]
    resumed: int
    changed: bool = False

    def of(self, recipe: StudyRecipe) -> list[Result]:
        """The runs of one recipe."""
        return [result for result in self.results if result.run.recipe.key == recipe.key]


#: Called with each run that ended, how many have, how many there are, seconds left (a guess).
OnRun = Callable[[Result, int, int, float], None]


def run_study(
    study: Study,
    folder: Path,
    executor: Executor | None = None,
    jobs: int = 1,
    timeout: float | None = None,
    on_run: OnRun = lambda result, done, of, left: None,
    *,
    retry: bool = False,
    command: Command = command_of,
) -> StudyResults:
    """Run what has not run yet; the results of all runs.

    Args:
        folder: the study's; made where it is missing, resumed where it is there.
        executor: how to run processes; None: here.
        jobs: how many run at a time: each gets its share of the cores.
        timeout: seconds for each run, instead of the study file's.
        retry: run again those that failed or timed out.
        command: what each run starts.

    Raises:
        UsageError: the folder holds something else, or another study, or is in use.
        DataError: it cannot be written, or its journal is damaged.
    """
    with ExitStack() as stack:
        journal = stack.enter_context(_journal_of(study, folder))
        runs = runs_of(study, folder)
        results = _ended(journal, runs, study, folder)
        if retry:
            again = ("failed", "timed-out")
            results = {key: r for key, r in results.items() if r.outcome not in again}
        resumed, todo = len(results), [run for run in runs if run.key not in results]
        tasks = _Tasks(study, folder, jobs, timeout or study.timeout, command)
        tracked = _Tracked(len(runs), resumed, jobs)
        start = (executor or here(jobs)) if todo else here(1)
        work = start([tasks.job(run) for run in todo])
        for index, end in stack.enter_context(closing(work)):
            run = todo[index]
            journal.enter(_entry(run, folder, end))
            results[run.key] = result_of(run, end, study.metric)
            on_run(results[run.key], *tracked.after(end))
        changed = journal.entries[0].get("script") != _digest(study.script)
    in_order = sorted(runs, key=lambda run: study.recipes.index(run.recipe))
    return StudyResults(study, folder, tuple(results[r.key] for r in in_order), resumed, changed)


def runs_of(study: Study, folder: Path) -> list[Run]:
    """All runs of a study, the first seed of every recipe first; of recipes alike only one's."""
    recipes = {recipe.key: recipe for recipe in reversed(study.recipes)}.values()
    return [
        Run(recipe, seed, folder / RUNS / _label(recipe) / f"seed-{seed}")
        for seed in study.seeds
        for recipe in reversed(list(recipes))
    ]


def _label(recipe: StudyRecipe) -> str:
    """A name for files: the recipe's as far as file systems take it, and the key of its rules."""
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', recipe.name).strip('-.')[:60]}-{recipe.key}"


# --- the folder ---------------------------------------------------------------------------------


def _journal_of(study: Study, folder: Path) -> Journal:
    """The open journal of a new study, or of this one begun earlier."""
    _require_own(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        cause = f"cannot make {folder}: {error.strerror}"
        raise DataError(cause, "name another folder with -o") from error
    journal = Journal(folder / JOURNAL)
    try:
        if not journal.entries:
            journal.enter(_header(study))
        _require_same(study, journal.entries, folder)
    except BaseException:
        journal.close()
        raise
    return journal


def _require_own(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is not a folder", "name another one with -o")
    if folder.is_dir() and not (folder / JOURNAL).exists() and any(folder.iterdir()):
        cause = f"{folder} holds files, but no study"
        raise UsageError(cause, "name a new folder with -o")


def _header(study: Study) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "hqtool": __version__,
        "command": list(study.command),
        "options": list(study.options),
        "script": _digest(study.script),
    }


def _require_same(study: Study, entries: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Refuse to mix runs of another command, or of a recipe that has changed, with those to come.

    Recipes and seeds may be added or left out; metric and timeout may change.
    """
    remedy = "name a new folder with -o, or change it back; recipes and seeds may be added"
    header = _header(study)
    for key in ("schema", "command", "options"):
        if entries[0].get(key) != header[key]:
            raise UsageError(f"{folder} is of a study with another {key}", remedy)
    keys = {recipe.name: recipe.key for recipe in study.recipes}
    for entry in entries[1:]:
        if keys.get(entry["recipe"], entry["key"]) != entry["key"]:
            raise UsageError(f"recipe '{entry['recipe']}' has changed since its runs", remedy)


def _ended(
    journal: Journal, runs: Sequence[Run], study: Study, folder: Path
) -> dict[tuple[str, int], Result]:
    """How each run ended that did, the last time; its files lie where they were written."""
    entries = {(entry["key"], entry["seed"]): entry for entry in journal.entries[1:]}
    found = {}
    for run in runs:
        if entry := entries.get(run.key):
            run = Run(run.recipe, run.seed, folder / entry["place"])
            found[run.key] = result_of(run, Ended.from_json(entry), study.metric)
    return found


def _entry(run: Run, folder: Path, ended: Ended) -> dict[str, Any]:
    place = run.place.relative_to(folder).as_posix()
    own = {"recipe": run.recipe.name, "key": run.recipe.key, "seed": run.seed, "place": place}
    return own | ended.to_json()


def _digest(script: Path | None) -> str | None:
    try:
        return None if script is None else hashlib.sha256(script.read_bytes()).hexdigest()
    except OSError:
        return None


# --- the runs -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Tasks:
    """Makes jobs of runs."""

    study: Study
    folder: Path
    jobs: int
    timeout: float | None
    command: Command

    def job(self, run: Run) -> Job:
        """A run as a process; its paths are absolute, for it starts elsewhere."""
        run = Run(run.recipe, run.seed, run.place.absolute())
        words = self.command(self.study, run, self._recipe_file(run.recipe).absolute())
        shared = threads_for(self.jobs)
        environment = {} if shared is None else {THREADS: str(shared)}
        return Job(tuple(words), run.place, self.study.folder, environment, self.timeout)

    def _recipe_file(self, recipe: StudyRecipe) -> Path:
        """The recipe as it is now: its own file may change before the last run."""
        path = self.folder / RECIPES / f"{_label(recipe)}.toml"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".part")
            partial.write_text(dumps(recipe.recipe), encoding="utf-8")
            os.replace(partial, path)
        return path


def threads_for(jobs: int) -> int | None:
    """The threads of each of several runs: its share of the cores.

    None: of a single run, and where the user's OMP_NUM_THREADS says it.
    """
    if jobs < 2 or THREADS in os.environ:
        return None
    return max(1, default_jobs() // jobs)


class _Tracked:
    """Counts runs and guesses how long the rest will take."""

    def __init__(self, runs: int, done: int, jobs: int) -> None:
        self._runs, self._done, self._jobs = runs, done, jobs
        self._seconds: list[float] = []

    def after(self, ended: Ended) -> tuple[int, int, float]:
        """Runs done and in all, and seconds left, after one more."""
        self._done += 1
        self._seconds.append(ended.seconds)
        mean = sum(self._seconds) / len(self._seconds)
        return self._done, self._runs, mean * (self._runs - self._done) / self._jobs
