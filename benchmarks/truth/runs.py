"""The runs that were trained, as they are kept: who reached which accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hqtool.study.figures import Estimate, paired_difference

#: Accuracy in percent of a run that diverged.
DIVERGED = 0.0


@dataclass(frozen=True, slots=True)
class Runs:
    """Accuracies in percent of the runs that ended.

    Args:
        accuracy: (model, setting) → seed → accuracy; `DIVERGED` of a run that diverged.
        diverged: (model, setting) → how many did.
        seconds: of all runs together, each on one thread.
    """

    accuracy: Mapping[tuple[str, str], Mapping[int, float]]
    diverged: Mapping[tuple[str, str], int]
    seconds: float

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, str]]) -> Runs:
        """From the rows of runs.csv.gz."""
        kept = list(rows)
        accuracy: dict[tuple[str, str], dict[int, float]] = {}
        diverged: dict[tuple[str, str], int] = {}
        for row in kept:
            key = row["model"], row["setting"]
            if row["status"] == "diverged":
                diverged[key] = diverged.get(key, 0) + 1
            if row["status"] in ("finished", "diverged"):
                reached = float(row["accuracy"]) if row["status"] == "finished" else DIVERGED
                accuracy.setdefault(key, {})[int(row["seed"])] = reached
        return cls(accuracy, diverged, sum(float(row["seconds"]) for row in kept))

    @property
    def models(self) -> list[str]:
        """In the order of the file."""
        return list(dict.fromkeys(model for model, _ in self.accuracy))

    def difference(self, one: str, other: str, models: Sequence[str]) -> tuple[Estimate, int]:
        """How far one setting's accuracy lies above another's, and over how many pairs.

        A pair is of one model and one seed; the interval is Student's t over the pairs.
        """
        return self.difference_of_means((one,), (other,), models)

    def difference_of_means(
        self, ones: Sequence[str], others: Sequence[str], models: Sequence[str]
    ) -> tuple[Estimate, int]:
        """As `difference`, of the mean of some settings above that of others."""
        first, second = (self._means(each, models) for each in (ones, others))
        shared = [key for key in first if key in second]
        mine, theirs = (dict(enumerate(each[key] for key in shared)) for each in (first, second))
        return paired_difference(mine, theirs)

    def _means(
        self, settings: Sequence[str], models: Sequence[str]
    ) -> Mapping[tuple[str, int], float]:
        """(model, seed) → the mean accuracy of settings, where all of them have one."""
        found: dict[tuple[str, int], float] = {}
        for model in models:
            reached = [self.accuracy.get((model, setting), {}) for setting in settings]
            for seed in reached[0]:
                if all(seed in each for each in reached):
                    found[model, seed] = sum(each[seed] for each in reached) / len(reached)
        return found
