"""The choice at one site: the cheapest quantizer that meets every condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hqtool.compare.recommending.outcomes import NONE, Outcome
from hqtool.compare.recommending.targets import Condition
from hqtool.vocab import Site

#: (label of a condition, label of a candidate) → the outcome that it is compared with; those that
#: are not in it are compared with themselves.
References = Mapping[tuple[str, str], Outcome]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What speaks against an outcome.

    Args:
        missed: labels of the conditions that it misses.
    """

    outcome: Outcome
    missed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SiteChoice:
    """The quantizer chosen for a site, and how all candidates fared.

    Args:
        verdicts: one for each candidate, in their order.
        unquantized: that on `none`.
        chosen: an outcome of `verdicts`, or that of `none` where nothing meets the conditions.
        met: whether a candidate meets them.
    """

    site: Site
    verdicts: tuple[Verdict, ...]
    unquantized: Verdict
    chosen: Outcome
    met: bool

    @property
    def scored(self) -> bool:
        """Whether any quantizer has figures."""
        return any(v.outcome.scored for v in self.verdicts if v.outcome.quantizer != NONE)

    def fate(self, verdict: Verdict) -> str:
        """'chosen', 'missed', or 'dearer': good enough, but another one is cheaper or better."""
        if verdict.outcome is self.chosen:
            return "chosen"
        return "missed" if verdict.missed else "dearer"


def choose(
    site: Site,
    outcomes: Sequence[Outcome],
    fallback: Outcome,
    conditions: Sequence[Condition],
    references: References,
) -> SiteChoice:
    """The cheapest outcome that meets all conditions in every trace.

    Of equally cheap ones the one of higher SQNR is chosen, then the earlier one.

    Args:
        fallback: what is chosen where none meets them.
    """
    verdicts = tuple(Verdict(each, missed(each, conditions, references)) for each in outcomes)
    good = [verdict.outcome for verdict in verdicts if not verdict.missed]
    best = min(good, key=lambda each: (each.bytes, -each.quality), default=None)
    unquantized = Verdict(fallback, missed(fallback, conditions, references))
    return SiteChoice(site, verdicts, unquantized, best or fallback, best is not None)


def missed(
    outcome: Outcome, conditions: Sequence[Condition], references: References
) -> tuple[str, ...]:
    """The labels of the conditions that an outcome misses in any trace."""

    def meets(condition: Condition) -> bool:
        reference = references.get((condition.label, outcome.quantizer), outcome)
        return all(map(condition.met, outcome.figures, reference.figures))

    return tuple(condition.label for condition in conditions if not meets(condition))
