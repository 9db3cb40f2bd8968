"""What a recipe's rules ask of a layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

#: The type of a product of two activations, as within attention: rules name it like a class.
PRODUCT = "matmul"


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """What a rule may ask of a layer.

    Args:
        name: the module's qualified name.
        types: names of the module's class and of the classes it derives from, or PRODUCT alone;
            None where unknown.
        first, last: it is the network's first layer, or its last one.
    """

    name: str
    types: tuple[str, ...] | None = None
    first: bool = False
    last: bool = False

    @property
    def is_product(self) -> bool:
        """Whether it multiplies two activations, and has no weight."""
        return PRODUCT in (self.types or ())


def facts_of_network(
    layers: Sequence[str], types: Mapping[str, tuple[str, ...]] | None = None
) -> dict[str, LayerFacts]:
    """The facts of every layer of a network by its name.

    Args:
        layers: names in the order in which data passes through them; equal ones count once.
            Products of two activations are neither first nor last.
        types: by layer; see `LayerFacts`.
    """
    known = types or {}
    found = [LayerFacts(name, known.get(name)) for name in dict.fromkeys(layers)]
    ends = [each.name for each in found if not each.is_product]
    first, last = (ends[0], ends[-1]) if ends else (None, None)
    return {
        each.name: replace(each, first=each.name == first, last=each.name == last) for each in found
    }
