"""What a quantized run moved through memory in a mean step, by its own looks (section 8)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, NamedTuple, Protocol

from hqtool.errors import DataError
from hqtool.estimators.ledger import Ledger
from hqtool.estimators.quantizer import Quantizer
from hqtool.recipes.recipe import Recipe
from hqtool.sizes import binary_bytes
from hqtool.traffic.bill import DEFAULT_BITS, works_bill
from hqtool.traffic.layers import Layer, layer_from_json
from hqtool.traffic.pricing.scheme import ARRIVING, Scheme, SchemeStore, places_of
from hqtool.traffic.pricing.store import AT_EVERY_STEP, NO_LOOKS, Looks
from hqtool.traffic.works import Operand, Work
from hqtool.vocab import Site


class Trained(Protocol):
    """What a bill needs of a site that trained."""

    quantizer: Quantizer
    ledger: Ledger
    records: int


@dataclass(frozen=True, slots=True)
class Moved:
    """Bytes that a mean step of a run moves: the products of figure 1, forward and backward.

    Args:
        static: were no tensor looked at.
        dynamic: were every quantized result looked at, at every step (eq. 5).
        as_run: with the looks that the estimators took, those of the first step among them.
        unbilled: layers that are left out: their geometry is unknown.
    """

    static: float
    dynamic: float
    as_run: float
    unbilled: tuple[str, ...] = ()

    def line(self) -> str:
        """What the user is told at the end."""
        sizes = ", ".join(
            f"{binary_bytes(amount)} {name}"
            for name, amount in (
                ("static", self.static),
                ("dynamic", self.dynamic),
                ("as run", self.as_run),
            )
        )
        left_out = f" ({len(self.unbilled)} layers of unknown geometry left out)"
        return f"traffic a step: {sizes}{left_out if self.unbilled else ''}"

    def to_json(self) -> dict[str, Any]:
        """JSON-safe, for the notes of a trace."""
        return {
            "static_bytes": self.static,
            "dynamic_bytes": self.dynamic,
            "traffic_bytes": self.as_run,
            "unbilled": list(self.unbilled),
        }


class TrainedLayer(NamedTuple):
    """A layer that trained.

    Args:
        name: the layer's.
        geometry: its keys in a layer spec; None where unknown.
        sites: by tensor kind.
    """

    name: str
    geometry: Mapping[str, Any] | None
    sites: Mapping[str, Trained]

    def calls(self, steps: int) -> Fraction:
        """How often a mean step calls it."""
        return Fraction(max((each.records for each in self.sites.values()), default=0), steps)


def moved(recipe: Recipe, layers: list[TrainedLayer], steps: int) -> Moved | None:
    """What a mean step moved; None where no layer's geometry is known.

    Args:
        layers: those that have sites.
        steps: how many steps ended.
    """
    scheme, bills = Scheme(recipe.name, recipe), []
    billed = {each.name: (each, layer) for each in layers if (layer := _layer(each)) and steps}
    places = places_of([layer for _, layer in billed.values()], recipe)
    for (each, layer), place in zip(billed.values(), places, strict=True):
        bill = works_bill(layer.works(), _LookingStore(scheme, place, DEFAULT_BITS), layer.repeat)
        looks = sum(_looked(scheme, kind, site) for kind, site in each.sites.items())
        calls = each.calls(steps)
        fixed, every = bill.static_bits * calls, bill.dynamic_bits * calls
        bills.append((fixed, every, fixed + looks / steps))
    if not bills:
        return None
    static, dynamic, as_run = (sum(bits) / 8 for bits in zip(*bills, strict=True))
    unbilled = tuple(each.name for each in layers if each.name not in billed)
    return Moved(float(static), float(dynamic), float(as_run), unbilled)


def _layer(trained: TrainedLayer) -> Layer | None:
    """The layer as a bill takes it; one whose G_X never came computes none."""
    try:
        layer = layer_from_json(dict(trained.geometry or {}) | {"name": trained.name})
    except DataError:  # of an operation that the bill does not know
        return None
    of_gradient = trained.sites.get("grad_input")
    return layer if of_gradient is None or of_gradient.records else replace(layer, grad_input=False)


class _LookingStore(SchemeStore):
    """A recipe's tensors, every quantized result looked at."""

    def looks_at_made(self, work: Work) -> Looks:
        quantizer = self.scheme.quantizer(self.place, work.made.kind)
        return AT_EVERY_STEP if work.quantizes and quantizer is not None else NO_LOOKS

    def looks_at_read(self, operand: Operand) -> Looks:
        return NO_LOOKS


def _looked(scheme: Scheme, kind: str, site: Trained) -> Fraction:
    """Bits that looks at a site's tensors moved over the whole run.

    A result was saved and loaded as accumulators have it; what was quantized anew as it was loaded
    was loaded once more, as it was stored. Looks at weights are free: their ranges are found as
    they are updated.
    """
    ledger = site.ledger
    if kind == "weight" or not ledger.looks:
        return Fraction(0)
    if kind in ARRIVING and scheme.requantizes(kind):
        evaluations = Fraction(ledger.evaluations, ledger.looks)
        again = ledger.moved() * (1 + evaluations) / (2 + evaluations)
        return again * Fraction(site.quantizer.bits)
    return Fraction(ledger.moved() * DEFAULT_BITS.acc)


def layers_of(
    sites: Mapping[Site, Trained], geometries: Mapping[str, Mapping[str, Any]]
) -> list[TrainedLayer]:
    """The layers that have sites, in order."""
    found: dict[str, dict[str, Trained]] = {}
    for site, each in sites.items():
        found.setdefault(site.layer, {})[site.tensor] = each
    return [TrainedLayer(name, geometries.get(name), kinds) for name, kinds in found.items()]
