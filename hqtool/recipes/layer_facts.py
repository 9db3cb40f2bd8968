"""What a recipe's rules ask of a layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """What a rule may ask of a layer.

    Args:
        name: the module's qualified name.
        types: names of the module's class and of the classes it derives from; None where unknown.
        first, last: it is the network's first layer, or its last one.
    """

    name: str
    types: tuple[str, ...] | None = None
    first: bool = False
    last: bool = False


def facts_of_network(
    layers: Sequence[str], types: Mapping[str, tuple[str, ...]] | None = None
) -> dict[str, LayerFacts]:
    """The facts of every layer of a network by its name.

    Args:
        layers: names in the order in which data passes through them; equal ones count once.
        types: by layer; see `LayerFacts`.
    """
    names = list(dict.fromkeys(layers))
    known = types or {}
    return {
        name: LayerFacts(name, known.get(name), name == names[0], name == names[-1])
        for name in names
    }
