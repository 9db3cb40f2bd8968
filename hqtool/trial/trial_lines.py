"""The results of a trial as lines of text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hqtool.capture.cost import about
from hqtool.capture.settings import CaptureSettings
from hqtool.sizes import binary_bytes, counted
from hqtool.trial.dry_run import Timing, Trial
from hqtool.vocab import Site


def listing(trial: Trial) -> list[str]:
    """A line for each site, below one that names the columns."""
    rows = [("layer", "tensor", "shape", "elements", "op")]
    for each in trial.sites:
        shape = each.shapes[0]
        op = trial.ops.get(each.site.layer, "")
        rows.append((*_named(each.site), _shape(shape), f"{math.prod(shape):,}", op))
    return _aligned(rows, right=(3,))


def estimate(trial: Trial, settings: CaptureSettings, expected_steps: int) -> list[str]:
    """The size of each site, of a step and of the whole trace, and how much slower training gets.

    Args:
        settings: those of the capture that is planned.
        expected_steps: how many steps it is to record.
    """
    rows = [("layer", "tensor", "shape", "values")]
    for each in trial.sites:
        size = binary_bytes(trial.values_bytes(each))
        rows.append((*_named(each.site), _shape(each.shapes[0]), size))
    return [*_aligned(rows, right=(3,)), "", *_aligned(_sums(trial, settings, expected_steps))]


def _sums(trial: Trial, settings: CaptureSettings, expected_steps: int) -> list[tuple[str, str]]:
    cost, often = trial.cost, f"--every {settings.every}"
    if settings.burst > 1:
        often += f" --burst {settings.burst}"
    sums = [
        ("a step with values", binary_bytes(cost.statistics + cost.values)),
        ("a step with statistics only", binary_bytes(cost.statistics)),
        (f"mean at {often}", binary_bytes(cost.mean(settings))),
        (counted(expected_steps, "step"), binary_bytes(cost.total(settings, expected_steps))),
    ]
    lasts = cost.steps_to_thinning(settings)
    if lasts is not None:
        budget = binary_bytes(settings.budget_bytes or 0)
        sums.append((f"--budget {budget}", f"values get rarer after about {about(lasts)} steps"))
    if trial.timing is not None:
        sums.append(("slowdown", slowdown(trial.timing, settings)))
    return sums


def slowdown(timing: Timing, settings: CaptureSettings) -> str:
    """How much slower training gets, unless the two steps measured are too noisy to tell."""
    added = timing.capture(settings)
    if added <= 0 or timing.training <= 0:
        return "within the noise of the two steps that were timed"
    factor = f"about {1 + added / timing.training:.2f}×"
    return f"{factor} (two steps: {_duration(timing.training)} each, {_duration(added)} more)"


def _duration(seconds: float) -> str:
    return f"{1000 * seconds:.2g} ms" if seconds < 0.1 else f"{seconds:.2g} s"


def _named(site: Site) -> tuple[str, str]:
    return site.layer, site.tensor


def _shape(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape)) or "scalar"


def _aligned(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Rows as lines of aligned columns, two spaces apart.

    Args:
        right: the columns that are set flush right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            text.rjust(width) if place in right else text.ljust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
