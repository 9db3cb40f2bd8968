"""Everything that a page is made of; its sections draw on nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hqtool.compare.comparison import Comparison
from hqtool.compare.recommending.recommendation import Recommendation
from hqtool.estimators.quantizer import Quantizer
from hqtool.report.page.picture import SitePicture

#: Of traces such as those of hqtool train.
NOTHING_SCORED = (
    "There are no values to score: no record keeps any past calibration, only statistics. "
    "The ranges of each site over steps are drawn under “A site”."
)

#: A document that a command gives as JSON.
Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """What is known of one trace.

    Args:
        notes: sentences on its condition, and on what is missing from it.
    """

    path: str
    info: Document
    facts: Mapping[str, str]
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Material:
    """What was given, and what was found in it.

    Args:
        command: as it was typed.
        runs: the traces.
        comparison: of the traces, or as `compare --json` gave it; None without either.
        recommendation: answers the question what is good enough, from the comparison.
        drawn: the quantizers whose errors are drawn over steps.
        pictures: of each site of each run.
        bill: of `traffic --json`.
        studies: of `study --json`.
        chosen_here: the quantizers are this command's own default.
    """

    command: str
    runs: Sequence[Run] = ()
    comparison: Comparison | None = None
    recommendation: Recommendation | None = None
    drawn: Sequence[Quantizer] = ()
    pictures: Sequence[SitePicture] = ()
    bill: Document | None = None
    studies: Sequence[Document] = ()
    chosen_here: bool = False

    @property
    def nothing_scored(self) -> bool:
        """Whether there was a replay, of traces that keep no values to score."""
        found = self.comparison
        return found is not None and not any(
            figure is not None for s in found.summaries for figure in s.metrics.values()
        )
