"""A setting as one trace shows it: what candidates are computed from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.truth.offline.gradient_sums import GradientSums
from benchmarks.truth.offline.site_figures import SiteErrors, SiteFigures
from hqtool.vocab import FORWARD


@dataclass(frozen=True, slots=True)
class Network:
    """What a trace tells of the network.

    Args:
        layers: in the order in which data passes.
        sites: how many there are of all kinds.
        macs: by layer, its share of all multiply-accumulates.
        update: by layer, its share of the squared norm of the gradient of all weights.
    """

    layers: tuple[str, ...]
    sites: int
    macs: Mapping[str, float]
    update: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Replayed:
    """A setting.

    Args:
        sites: those that it quantizes.
        errors: by layer and tensor kind, what more is known of these sites.
        gradients: of every layer, its weight gradient from quantized operands.
    """

    network: Network
    sites: Sequence[SiteFigures]
    errors: Mapping[tuple[str, str], SiteErrors]
    gradients: Mapping[str, GradientSums]

    @property
    def forward(self) -> list[SiteFigures]:
        """The sites whose errors reach the loss."""
        return [s for s in self.sites if s.tensor in FORWARD]

    @property
    def backward(self) -> list[SiteFigures]:
        """The sites of gradients."""
        return [s for s in self.sites if s.tensor not in FORWARD]
