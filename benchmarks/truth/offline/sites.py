"""What hqtool's own comparison says of each site under each setting, from one trace."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence

from benchmarks.truth.offline.site_figures import CRITERION, SiteFigures, mean
from hqtool.compare.comparison import compare
from hqtool.compare.recipe_sites import RecipeSites
from hqtool.compare.results import Summary
from hqtool.compare.settings import ReplaySettings
from hqtool.compare.unquantized import NONE
from hqtool.estimators.quantizer import Key
from hqtool.recipes.recipe import Recipe

#: What a scored record is found by.
Place = tuple[str, str, Key]


def sites_by_setting(
    trace: str, recipes: Mapping[str, Recipe]
) -> tuple[dict[str, list[SiteFigures]], RecipeSites]:
    """For each setting the sites that it quantizes, in the order of the trace; what it gives them.

    Args:
        recipes: by setting; each under a name of its own.
    """
    rows: dict[Place, list[dict[str, float | None]]] = defaultdict(list)
    settings = ReplaySettings((), recipes=tuple(recipes.values()))
    found = compare([trace], settings, on_spool=lambda path: _read(path, rows))
    names = {recipe.name: setting for setting, recipe in recipes.items()}
    sites: dict[str, list[SiteFigures]] = {setting: [] for setting in recipes}
    for summary in found.summaries:
        if summary.format != NONE and summary.recipe is not None:
            place = (summary.layer, summary.tensor, _key(summary))
            sites[names[summary.recipe]].append(_figures(summary, rows[place]))
    return sites, found.recipes[0]


def _key(summary: Summary) -> Key:
    return summary.estimator, summary.format, summary.rounding


def _read(path: str, rows: dict[Place, list[dict[str, float | None]]]) -> None:
    with open(path, encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            key = (row["estimator"], row["format"], row["rounding"])
            rows[row["layer"], row["tensor"], key].append(row)


def _figures(summary: Summary, rows: Sequence[Mapping[str, float | None]]) -> SiteFigures:
    noise = [_noise(row["sqnr_db"]) for row in rows]
    return SiteFigures(
        layer=summary.layer,
        tensor=summary.tensor,
        sqnr_db=summary.metrics["sqnr_db"],
        sqnr_db_low=summary.sqnr_db_low,
        cosine=summary.metrics["cosine"] or 0.0,
        saturation=summary.metrics["saturation"] or 0.0,
        underflow=summary.metrics["underflow"] or 0.0,
        noise=mean(noise),
        noise_low=_noise(summary.sqnr_db_low),
        bias=mean((1 - (row["gain"] or 0.0)) ** 2 for row in rows),
        lost=mean(each > CRITERION for each in noise),
    )


def _noise(db: float | None) -> float:
    """Relative to the signal; 0 where there is no error."""
    return 0.0 if db is None else 10 ** (-db / 10)
