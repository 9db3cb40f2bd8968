"""The result of a quantized training, and what the user is told of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from hqtool.recipes.layer_facts import LayerFacts
from hqtool.recipes.recipe import Recipe
from hqtool.sizes import counted
from hqtool.training.told.coverage import Coverage
from hqtool.training.told.moved import Moved, layers_of, moved

if TYPE_CHECKING:
    from hqtool.training.trainer import Trainer
    from hqtool.watch.watcher import Watched

#: How many of the most clipped sites, and of those that were not finite, are named.
NAMED = 3


class SiteResult(NamedTuple):
    """What became of a site.

    Args:
        records: how many of its tensors trained.
        clipped: the mean share of their values that were clipped.
        nonfinite: how many held NaN or infinities, from step `first_nonfinite` on.
        overflows: how many others overflowed under a loss scale above 1.
    """

    site: str
    quantizer: str
    records: int
    looks: int
    clipped: float
    nonfinite: int
    first_nonfinite: int | None
    overflows: int


@dataclass(frozen=True, slots=True)
class TrainOutcome:
    """The result of a quantized training.

    Args:
        recipe: its name.
        quantizes: it quantizes anything at all.
        steps: how many steps ended.
        failed: what could not be watched, and why.
        unreached: layers that trained without being reached, and why.
        watched: what the watcher found out about the training.
        ranks: how ranges were joined over ranks, in words and JSON-safe.
        moved: through memory, in a mean step; None where no geometry is known.
        time: how much longer it took, in words; None where that is not known.
        wrongly_last: see `Trainer`.
        unmet: what rules name and no layer that ran is, in words.
    """

    recipe: str
    quantizes: bool
    steps: int
    seconds: float
    coverage: Coverage
    sites: tuple[SiteResult, ...]
    failed: Mapping[str, str]
    unreached: tuple[tuple[str, str], ...]
    watched: Watched
    ranks: tuple[tuple[str, ...], Mapping[str, int]] = ((), {})
    moved: Moved | None = None
    time: str | None = None
    wrongly_last: tuple[str, str] | None = None
    unmet: tuple[str, ...] = ()

    @property
    def covers(self) -> float:
        """The share of multiplications quantized; 0 where nothing was."""
        return self.coverage.share or 0.0

    def to_json(self) -> dict[str, Any]:
        """JSON-safe, for the notes of a trace."""
        return {
            "recipe": self.recipe,
            "steps": self.steps,
            "coverage": self.coverage.to_json(),
            "looks": sum(each.looks for each in self.sites),
            "records": sum(each.records for each in self.sites),
            "traffic": None if self.moved is None else self.moved.to_json(),
            "failed": dict(self.failed),
            "not_quantized": dict(self.unreached),
        } | ({"ranges_joined": dict(self.ranks[1])} if self.ranks[1] else {})

    def lines(self) -> list[str]:
        """What the user is told at the end."""
        steps = counted(self.steps, "step")
        if not self.quantizes:
            return [f"{steps}; recipe {self.recipe} quantizes nothing"]
        return [
            *self._watched_lines(),
            f"{steps}, {counted(len(self.sites), 'site')} quantized by {self.recipe}",
            *self.coverage.lines(),
            *self._looks(),
            *([] if self.moved is None else [self.moved.line()]),
            *self._clipped(),
            *self._nonfinite(),
            *([] if self.time is None else [self.time]),
            *self.ranks[0],
        ]

    def _watched_lines(self) -> list[str]:
        lines = [f"not watched: {what}: {why}" for what, why in list(self.failed.items())[:NAMED]]
        lines += [f"not quantized: {what} ({why})" for what, why in self.unreached[:NAMED]]
        if len(self.unreached) > NAMED:
            lines.append(f"not quantized: {len(self.unreached) - NAMED} more")
        if self.watched.runs_eagerly:
            lines.append("what torch.compile compiled ran eagerly")
        if self.watched.steps_by_forward:
            lines.append("no optimizer updated it: a step ends where the next forward pass begins")
        lines += self.unmet
        if self.wrongly_last is not None:
            taken, ran = self.wrongly_last
            lines.append(f"taken for the last layer: {taken}, by its place; {ran} ran last")
        return [*lines, *self._overflows()]

    def _overflows(self) -> list[str]:
        """Updates that a loss scaler skipped, and the gradients that were seen to overflow."""
        parts = []
        if self.watched.skipped_steps:
            skipped = counted(len(self.watched.skipped_steps), "update")
            parts.append(f"{skipped} skipped by the loss scaler")
        if count := sum(each.overflows for each in self.sites):
            parts.append(f"{counted(count, 'gradient tensor')} overflowed under a loss scale")
        return [", ".join(parts)] if parts else []

    def _looks(self) -> list[str]:
        looks, records = (
            sum(getattr(s, name) for s in self.sites) for name in ("looks", "records")
        )
        return [f"looks: {looks} at {counted(records, 'tensor')}"]

    def _clipped(self) -> list[str]:
        worst = sorted((s for s in self.sites if s.clipped), key=lambda s: -s.clipped)[:NAMED]
        if not worst:
            return []
        names = ", ".join(f"{each.site} {100 * each.clipped:.2g} %" for each in worst)
        return [f"clipped most: {names}"]

    def _nonfinite(self) -> list[str]:
        met = [each for each in self.sites if each.nonfinite]
        met.sort(key=lambda each: each.first_nonfinite or 0)
        return [
            f"not finite: {each.site} at {counted(each.nonfinite, 'tensor')}, "
            f"first at step {each.first_nonfinite}"
            for each in met[:NAMED]
        ] + ([f"not finite: {len(met) - NAMED} more sites"] if len(met) > NAMED else [])


def outcome_of(recipe: Recipe, trainer: Trainer, watched: Watched, seconds: float) -> TrainOutcome:
    """What a trainer did."""
    sites = tuple(
        SiteResult(
            str(site),
            each.quantizer.label,
            each.records,
            each.ledger.looks,
            each.clipped / each.records if each.records else 0.0,
            each.nonfinite,
            each.first_nonfinite,
            each.overflows,
        )
        for site, each in trainer.sites.items()
    )
    return TrainOutcome(
        recipe.name,
        bool(recipe.tensors),
        trainer.steps,
        seconds,
        trainer.coverage,
        sites,
        dict(trainer.failed),
        tuple(each for each in watched.unrecorded.items() if each[0] not in trainer.layers),
        watched,
        (tuple(trainer.ranks.lines(trainer.steps)), trainer.ranks.to_json()),
        moved(recipe, layers_of(trainer.sites, trainer.geometries), trainer.steps),
        trainer.time.line(),
        trainer.wrongly_last,
        unmet_lines(recipe, trainer.layers),
    )


def unmet_lines(recipe: Recipe, layers: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """What the recipe's rules name and none of the layers is: often a name mistyped.

    Args:
        layers: name → classes.
    """
    facts = [LayerFacts(name, types) for name, types in layers.items()]
    return tuple(
        f"rule number {number} of {recipe.name} names what did not run: {', '.join(names)}"
        for number, names in recipe.unmet(facts)
    )
