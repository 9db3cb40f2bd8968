"""One run of a study: what is started, and how it ended."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hqtool.study.study_file import SEED, Study, StudyRecipe

#: Runs `hqtool` without putting the working folder on the path that modules are imported from.
_HQTOOL = "import sys; sys.path[:1] = []; from hqtool.cli.main import main; main()"


@dataclass(frozen=True, slots=True)
class Run:
    """A recipe with a seed.

    Args:
        place: the run's own folder within the study's.
    """

    recipe: StudyRecipe
    seed: int
    place: Path

    @property
    def key(self) -> tuple[str, int]:
        """What tells it from the other runs of a study."""
        return self.recipe.key, self.seed


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run's process ended.

    Args:
        status: its exit status, negative of a signal; None where it could not be started.
        timed_out: it was ended because it took too long.
        seconds: how long it took.
        threads: what OMP_NUM_THREADS was; None: it was not set.
    """

    status: int | None
    timed_out: bool
    seconds: float
    threads: str | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON-safe; `from_json` reads it back."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Ended:
        """What `to_json` wrote, among other keys."""
        return cls(**{name: entry[name] for name in cls.__slots__})


#: (study, run, the recipe's file) → the words of the process to start, and of nothing else.
Command = Callable[[Study, Run, Path], list[str]]


def command_of(study: Study, run: Run, recipe: Path) -> list[str]:
    """The process of a run: `hqtool train`, or the script as it is where nothing is quantized.

    A file of defaults in the folder of the run has no say: the study file says what is trained.
    """
    script = [word.replace(SEED, str(run.seed)) for word in study.command]
    if run.recipe.trains_plain:
        return [sys.executable, *script]
    own = ["--recipe", str(recipe), "-o", str(run.place / TRACE), "--seed", str(run.seed)]
    module = ["-m"] if script[0] == "-m" else []
    words = [*own, *study.options, *module, "--", *script[len(module) :]]
    return [sys.executable, "-c", _HQTOOL, "train", "--no-config", *words]


#: Names of the files in a run's folder.
STDOUT, STDERR, TRACE = "stdout.txt", "stderr.txt", "run.h5"
