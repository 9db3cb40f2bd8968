"""The sites of two runs side by side, and how far apart they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hqtool.compare.results import Summary
from hqtool.report.compared.naming import lane_label
from hqtool.report.page.material import Material
from hqtool.report.page.picture import SitePicture
from hqtool.vocab import Site


@dataclass(frozen=True, slots=True)
class Pair:
    """One site in both runs.

    Args:
        places: of its pictures among all; None where there is none.
        sqnr_db: mean under the first quantizer; None where nothing was scored.
        largest: magnitude over all records; None where it is not known.
    """

    site: Site
    places: tuple[int | None, int | None]
    sqnr_db: tuple[float | None, float | None]
    largest: tuple[float | None, float | None]

    @property
    def difference_db(self) -> float | None:
        """Of the mean SQNR: second − first."""
        first, second = self.sqnr_db
        return None if first is None or second is None else second - first

    @property
    def ratio(self) -> float | None:
        """Of the largest magnitudes: second ÷ first."""
        first, second = self.largest
        return second / first if first and second else None

    @property
    def apart_db(self) -> float:
        """The larger of both differences, that of magnitudes as 20·log10 of the ratio."""
        ratio = self.ratio
        sizes = 20 * abs(math.log10(ratio)) if ratio else 0.0
        return max(abs(self.difference_db or 0.0), sizes)


@dataclass(frozen=True, slots=True)
class SideBySide:
    """Two runs.

    Args:
        paths: of their traces.
        quantizer: label of that whose SQNR is compared; None where there is none.
        pairs: the sites that both have, those farthest apart first.
        alone: the sites that only one has.
    """

    paths: tuple[str, str]
    quantizer: str | None
    pairs: Sequence[Pair]
    alone: tuple[Sequence[Site], Sequence[Site]]

    @property
    def first_place(self) -> int | None:
        """The picture of the pair that is farthest apart; None without pictures."""
        places = (place for pair in self.pairs for place in pair.places if place is not None)
        return next(places, None)

    @classmethod
    def of(cls, material: Material) -> SideBySide | None:
        """The first two traces; None where there are fewer, or they are ranks of one run."""
        comparison = material.comparison
        paths = [] if comparison is None else [facts.path for facts in comparison.traces]
        if comparison is None or len(paths) < 2 or comparison.ranks is not None:
            return None
        both = paths[0], paths[1]
        scores = [_summaries(material, path) for path in both]
        seen = [_pictures(material, path) for path in both]
        sites = [dict.fromkeys([*scores[run], *seen[run]]) for run in range(2)]
        pairs = [
            _pair(site, [each.get(site) for each in scores], [each.get(site) for each in seen])
            for site in sites[0]
            if site in sites[1]
        ]
        return cls(
            both,
            next(map(_label, scores[0].values()), None),
            sorted(pairs, key=lambda pair: -pair.apart_db),
            (
                [site for site in sites[0] if site not in sites[1]],
                [site for site in sites[1] if site not in sites[0]],
            ),
        )


def _summaries(material: Material, path: str) -> Mapping[Site, Summary]:
    """Of each site the summary of the first quantizer."""
    assert material.comparison is not None
    return {
        result.task.site: next(s for s in result.summaries if s.recipe is None)
        for result in material.comparison.results
        if result.task.path == path and any(s.recipe is None for s in result.summaries)
    }


def _label(summary: Summary) -> str:
    return lane_label((summary.estimator, summary.format, summary.rounding))


def _pictures(material: Material, path: str) -> Mapping[Site, tuple[int, SitePicture]]:
    """Of each site its picture, and its place among all."""
    return {
        picture.site: (place, picture)
        for place, picture in enumerate(material.pictures)
        if material.runs[picture.run].path == path
    }


def _pair(
    site: Site,
    scores: Sequence[Summary | None],
    seen: Sequence[tuple[int, SitePicture] | None],
) -> Pair:
    places = [None if each is None else each[0] for each in seen]
    sqnr_db = [None if each is None else each.metrics["sqnr_db"] for each in scores]
    largest = [None if each is None else _largest(each[1]) for each in seen]
    return Pair(site, (places[0], places[1]), (sqnr_db[0], sqnr_db[1]), (largest[0], largest[1]))


def _largest(picture: SitePicture) -> float | None:
    """The largest magnitude of all records of a site."""
    if picture.seen.range is None:
        return None
    found = max(map(abs, picture.seen.range))
    return found if math.isfinite(found) else None
