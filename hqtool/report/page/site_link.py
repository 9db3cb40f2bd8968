"""Links to the section that shows one site."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hqtool.report.model import TableRow
from hqtool.report.page.markup import Content, element
from hqtool.report.page.material import Material
from hqtool.vocab import Site


@dataclass(frozen=True, slots=True)
class SiteLinks:
    """The place of each site's picture among all.

    Args:
        places: (trace, site) → place; the trace is None of ranks taken together.
    """

    places: Mapping[tuple[str | None, Site], int]

    @classmethod
    def of(cls, material: Material) -> SiteLinks:
        """Those of the material's pictures."""
        paths: list[str | None] = [run.path for run in material.runs]
        together = material.comparison is not None and material.comparison.ranks is not None
        return cls(
            {
                (None if together else paths[picture.run], picture.site): place
                for place, picture in enumerate(material.pictures)
            }
        )

    def place(self, path: str | None, site: Site) -> int | None:
        """None where there is no picture."""
        return self.places.get((path, site))

    @staticmethod
    def cell(row: TableRow) -> Content:
        """A layer's name as a link, by the row's entry `site`."""
        if row.get("site") is None:
            return str(row["layer"])
        return element("a", str(row["layer"]), href="#site", data_site=str(row["site"]))
