"""The section on correlations of benchmarks/truth.md, from the runs and the scores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.truth.correlation import (
    BAR,
    CHOOSE_ON,
    JUDGE_ON,
    RUNS,
    SCORES,
    TODAY,
    Correlation,
    Lost,
    ceiling,
    chosen,
    correlations,
    lost_by_model,
    reaches,
    rows_of,
    scores_of,
    spearman,
    wins,
)
from benchmarks.truth.offline.candidates import MEANINGS
from benchmarks.truth.tables import markdown

#: What hqtool shows as a recipe's `noise`: it takes no values but those of the sites themselves.
SHOWN = "noise_split"

Array = NDArray[np.float64]
Found = dict[str, dict[str, Correlation]]

FAILURES = """\
Where it fails: gradients whose tails are clipped (DSGC at 2 and 3 bits) can cost far more than
their noise says. Rounding errors average out over steps, a gradient that is too short at every step
does not; hqtool's comparison says so in a note where a gain is below 0.8. Within one table, whose
recipes quantize the same tensors, `sqnr` ranks about as well (the last figure of a cell): what it
cannot do is set a recipe of activations beside one of gradients.
"""

#: So many percentage points are a small loss.
LITTLE = 2.0

SMALL = f"""\
What no figure tells well is which of several good settings is the best. ρ among those that lose
less than {LITTLE:g} points, differences that seeds hide as well:
"""

LEGEND = """\
ceiling of ρ: what a score without error would have, from how well halves of the seeds agree. In a
cell of the second table: Spearman's ρ with the accuracy lost (95 % bootstrap interval over settings
and seeds); mean of the ρ within each table of settings. The two settings with calibrated ranges
have no scores. Every score is from one trace, of seed 0; depthwise was trained on the images of the
networks chosen on, the transformer on a task of its own.
"""

RULE = f"""\
Candidates and rule were fixed before any training of these models had ended: the candidate of
highest mean ρ over {" and ".join(CHOOSE_ON)} is chosen; on {" and ".join(JUDGE_ON)}, which had no
part in it, it wins if its ρ exceeds that of `{TODAY}` on each of them, with the 95 % interval of
the difference above 0. The bar is ρ ≥ {BAR} there. Those candidates that tell clipped values from
the others, or take gradients by layer, were devised on a model that is not among these: the ResNet
of `sample_data/train_digits.py`, 41 settings of two seeds and two epochs.
"""


def section() -> str:
    """All of it, computed anew."""
    runs, scores = rows_of(RUNS), rows_of(SCORES)
    lost = lost_by_model(runs)
    of_model = {model: scores_of(each, scores) for model, each in lost.items()}
    found = {model: correlations(each, of_model[model]) for model, each in lost.items()}
    small = _small_losses(lost, of_model, (TODAY, SHOWN, chosen(found)))
    parts = [RULE, LEGEND, _models(lost), _candidates(found), _verdict(found), SMALL, small]
    return "\n".join(parts)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, and an empty line after it."""
    return markdown(head, rows) + "\n"


def _small_losses(
    lost: dict[str, Lost], scores: dict[str, dict[str, Array]], names: Sequence[str]
) -> str:
    """ρ among the settings that lose little."""
    rows = []
    for model, each in lost.items():
        known = [~np.isnan(scores[model][name]) for name in names]
        little = np.all(known, axis=0) & (each.mean < LITTLE)
        ranked = [spearman(scores[model][name][little], each.mean[little]) for name in names]
        rows.append((model, str(little.sum()), *(f"{rho:+.2f}" for rho in map(float, ranked))))
    return table(("model", "settings", *(f"`{name}`" for name in names)), rows)


def _models(lost: dict[str, Lost]) -> str:
    head = ("model", "settings", "seeds", "loss, median", "loss, largest", "ceiling of ρ")
    rows = [
        (
            model,
            str(len(each.settings)),
            str(each.losses.shape[1]),
            f"{np.median(each.mean):.2f}",
            f"{each.mean.max():.2f}",
            f"{ceiling(each):.2f}",
        )
        for model, each in lost.items()
    ]
    return table(head, rows)


def _candidates(found: Found) -> str:
    """A row for each candidate, the best to choose from first."""
    models = [model for model in (*CHOOSE_ON, *JUDGE_ON) if model in found]
    names = sorted(MEANINGS, key=lambda name: -_mean_to_choose(found, name))
    rows = [
        (f"`{name}`", *(_cell(found[model].get(name)) for model in models), MEANINGS[name])
        for name in names
    ]
    return table(("candidate", *models, "what it is"), rows)


def _mean_to_choose(found: Found, name: str) -> float:
    values = [found[m][name].value for m in CHOOSE_ON if m in found and name in found[m]]
    return float(np.nan_to_num(np.mean(values), nan=-1.0)) if values else -1.0


def _cell(each: Correlation | None) -> str:
    if each is None:
        return "–"
    return f"{each.value:+.2f} ({each.low:+.2f} … {each.high:+.2f}); {each.within:+.2f}"


def _verdict(found: Found) -> str:
    if not set(CHOOSE_ON) <= set(found):
        return "No choice: the trainings of the models to choose on are missing.\n"
    name = chosen(found)
    judged = ", ".join(_judged(model, found[model][name]) for model in JUDGE_ON if model in found)
    won = "wins" if wins(found, name) else "does not win"
    bar = "reaches" if reaches(found, name) else "does not reach"
    shown = ", ".join(_judged(model, found[model][SHOWN]) for model in JUDGE_ON if model in found)
    return (
        f"Chosen: `{name}`. On {judged}: it {won} against `{TODAY}`, and {bar} the bar.\n\n"
        "It takes whole inputs and output gradients, which most traces do not keep. What hqtool "
        f"shows as the `noise` of a recipe is `{SHOWN}`, which needs only the sites that are "
        f"quantized; it was taken by its ρ on {' and '.join(CHOOSE_ON)} alone, too. "
        f"On {shown}.\n\n{FAILURES}"
    )


def _judged(model: str, each: Correlation) -> str:
    return (
        f"{model} ρ = {each.value:+.2f} ({each.low:+.2f} … {each.high:+.2f}), "
        f"{each.above:+.2f} ({each.above_low:+.2f} … {each.above_high:+.2f}) above `{TODAY}`"
    )
