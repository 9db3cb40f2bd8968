"""The sites of one layer."""

from __future__ import annotations

from collections.abc import Mapping

from hqtool.recipes.recipe import StraightThrough
from hqtool.training.sites.trained_site import TrainedSite


class LayerSites:
    """The sites of one layer that have a quantizer, by tensor kind.

    Args:
        ste: how gradients pass through its quantizers.
    """

    def __init__(self, sites: Mapping[str, TrainedSite], ste: StraightThrough) -> None:
        self._sites = dict(sites)
        self.ste = ste
        self.any = bool(sites)

    def of(self, kind: str) -> TrainedSite | None:
        """The site of a tensor kind; None where the recipe gives it no quantizer."""
        return self._sites.get(kind)
