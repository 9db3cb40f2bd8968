"""What the paper says of its estimators, and what these trainings say of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.truth.runs import Runs
from benchmarks.truth.settings import BASELINE, BITS
from hqtool.study.figures import Estimate

#: "On par": not more than so many percentage points below.
ON_PAR = 1.0

#: "Within .5 %" of full precision (section 5.2).
WITHIN = 0.5


@dataclass(frozen=True, slots=True)
class Claim:
    """Settings, named with `{b}` for the bits, that reach more than others, or hardly less.

    Args:
        text: the paper's statement.
        source: where it stands.
        margin: percentage points by which `ones` may lie below.
    """

    text: str
    source: str
    ones: tuple[str, ...]
    others: tuple[str, ...]
    margin: float = 0.0
    bits: tuple[int, ...] = BITS


CLAIMS = (
    Claim(
        "gradients: in hindsight is on par with the dynamic estimators",
        "§5.1, table 1", ("g{b}-hindsight",), ("g{b}-current", "g{b}-running"), ON_PAR,
    ),
    Claim(
        "gradients: current min-max underperforms all other methods",
        "§5.1, table 1", ("g{b}-running", "g{b}-dsgc", "g{b}-hindsight"), ("g{b}-current",),
    ),
    Claim(
        "gradients: quantizing them improves on full precision",
        "§5.1, table 1",
        ("g{b}-current", "g{b}-running", "g{b}-dsgc", "g{b}-hindsight"), (BASELINE,),
    ),
    Claim(
        "activations: in hindsight is on par with the dynamic estimators",
        "§5.1, table 2", ("a{b}-hindsight",), ("a{b}-current", "a{b}-running"), ON_PAR,
    ),
    Claim(
        "activations: in hindsight and running are better than current and DSGC",
        "§5.1, table 2", ("a{b}-hindsight", "a{b}-running"), ("a{b}-current", "a{b}-dsgc"),
    ),
    Claim(
        "everything: in hindsight is on par with the dynamic estimators",
        "§5.2, table 3",
        ("w{b}a{b}g{b}-hindsight",), ("w{b}a{b}g{b}-current", "w{b}a{b}g{b}-running"), ON_PAR,
    ),
    Claim(
        "everything: in hindsight is within 0.5 points of full precision",
        "§5.2, tables 3, 4", ("w{b}a{b}g{b}-hindsight",), (BASELINE,), WITHIN,
    ),
    Claim(
        "little sensitivity to momentum: 0 is on par with 0.9",
        "§5.2", ("w{b}a{b}g{b}-momentum-0",), ("w{b}a{b}g{b}-hindsight",), ON_PAR, (8, 4),
    ),
    Claim(
        "little sensitivity to momentum: 0.5 is on par with 0.9",
        "§5.2", ("w{b}a{b}g{b}-momentum-0.5",), ("w{b}a{b}g{b}-hindsight",), ON_PAR, (8, 4),
    ),
    Claim(
        "little sensitivity to momentum: 0.99 is on par with 0.9",
        "§5.2", ("w{b}a{b}g{b}-momentum-0.99",), ("w{b}a{b}g{b}-hindsight",), ON_PAR, (8, 4),
    ),
    Claim(
        "calibration before training benefits in hindsight",
        "§5.2",
        ("w{b}a{b}g{b}-hindsight-calibrated",), ("w{b}a{b}g{b}-hindsight",), 0.0, (8, 4),
    ),
)  # fmt: skip

Verdict = Literal["held", "did not hold", "open", "–"]


def verdict(found: Estimate, margin: float) -> Verdict:
    """Held where the whole interval lies above −margin; did not hold where all lies below it."""
    if found.low is None or found.high is None:
        return "–"
    if found.low > -margin:
        return "held"
    return "did not hold" if found.high < -margin else "open"


def reading(claim: Claim, bits: int, runs: Runs, models: Sequence[str]) -> str:
    """The difference with its interval, and what it says of the claim at this width."""
    if bits not in claim.bits:
        return ""
    ones, others = ([name.format(b=bits) for name in each] for each in (claim.ones, claim.others))
    found, _ = runs.difference_of_means(ones, others, models)
    return f"{interval(found)}: {verdict(found, claim.margin)}"


def interval(found: Estimate) -> str:
    """A difference in percentage points, with half the width of its interval."""
    if found.value is None:
        return "–"
    if found.high is None:
        return f"{found.value:+.1f}"
    return f"{found.value:+.1f} ± {found.high - found.value:.1f}"
