"""Which quantizer each recipe gives each site of a trace."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hqtool.estimators.quantizer import Quantizer
from hqtool.recipes.layer_facts import LayerFacts, facts_of_network
from hqtool.recipes.recipe import Recipe
from hqtool.trace.ranks import RanksReader
from hqtool.trace.reader import TraceReader
from hqtool.traffic.layers import OPS
from hqtool.traffic.pricing.scheme import class_of
from hqtool.vocab import COUNTERPARTS, FORWARD, Site


@dataclass(frozen=True, slots=True)
class SiteQuantizer:
    """What a recipe gives a site.

    Args:
        recipe: its name.
        quantizer: None where the tensor stays as it is.
        tensor: the tensor kind that the recipe gives this quantizer to: the site's own, or its
            counterpart, which the trace does not hold.
    """

    recipe: str
    quantizer: Quantizer | None
    tensor: str


@dataclass(frozen=True, slots=True)
class RecipeSites:
    """What recipes give the sites of one trace.

    Args:
        given: for each site what each recipe gives it, in the order of the recipes.
        missing: recipe → tensor kinds that it quantizes, and the trace has not, nor what may stand
            for them.
        unjudged: recipe → layers whose class it asks for, which the trace does not tell.
        unmet: recipe → names and classes in its rules that no layer of the trace has.
    """

    recipes: tuple[Recipe, ...]
    given: Mapping[Site, tuple[SiteQuantizer, ...]]
    missing: Mapping[str, tuple[str, ...]]
    unjudged: Mapping[str, tuple[str, ...]]
    unmet: Mapping[str, tuple[str, ...]]

    def quantizers(self, site: Site) -> tuple[Quantizer, ...]:
        """The quantizers that the recipes give a site, each once."""
        return tuple(dict.fromkeys(g.quantizer for g in self.given[site] if g.quantizer))

    def of_recipe(self, name: str) -> dict[Site, SiteQuantizer]:
        """What one recipe gives every site."""
        return {
            site: each
            for site, given in self.given.items()
            for each in given
            if each.recipe == name
        }

    def taken(self, takes: Callable[[Site], bool]) -> RecipeSites:
        """The same of some sites only."""
        return replace(self, given={site: each for site, each in self.given.items() if takes(site)})


def recipe_sites(
    recipes: Sequence[Recipe],
    sites: Sequence[Site],
    classes: Callable[[str], tuple[str, ...] | None],
) -> RecipeSites:
    """What recipes give the sites of a trace.

    A recipe that quantizes the inputs of layers, and not their outputs, is scored on the outputs of
    a trace without inputs; and likewise for every kind of `COUNTERPARTS`.

    Args:
        sites: in the order in which they were first recorded.
        classes: layer → names of its class and of those it derives from; None where unknown.
    """
    layers = layers_in_order(sites)
    types = {layer: names for layer in layers if (names := classes(layer))}
    network = facts_of_network(layers, types)
    held = frozenset(site.tensor for site in sites)
    given = {
        site: tuple(_given(recipe, network[site.layer], site.tensor, held) for recipe in recipes)
        for site in sites
    }
    return RecipeSites(
        recipes=tuple(recipes),
        given=given,
        missing=_some({r.name: _missing(r, i, given.values()) for i, r in enumerate(recipes)}),
        unjudged=_some({r.name: tuple(r.unjudged(network.values())) for r in recipes}),
        unmet=_some({r.name: _unmet(r, network.values()) for r in recipes}),
    )


def _some(of: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    return {name: each for name, each in of.items() if each}


def _unmet(recipe: Recipe, layers: Collection[LayerFacts]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for _, names in recipe.unmet(layers) for name in names))


def _missing(
    recipe: Recipe, index: int, given: Iterable[tuple[SiteQuantizer, ...]]
) -> tuple[str, ...]:
    scored = {each[index].tensor for each in given}
    return tuple(kind for kind in recipe.tensors if kind not in scored)


def _given(recipe: Recipe, layer: LayerFacts, tensor: str, held: frozenset[str]) -> SiteQuantizer:
    other, named = COUNTERPARTS.get(tensor, tensor), recipe.tensors
    if tensor not in named and other in named and other not in held:
        tensor = other
    return SiteQuantizer(recipe.name, recipe.quantizer(layer, tensor), tensor)


def layers_in_order(sites: Iterable[Site]) -> list[str]:
    """Layers in the order in which data passed through them, as far as the trace tells.

    Gradients pass backward: where nothing else was recorded, theirs is the order reversed.
    """
    sites = list(sites)
    forward = [site.layer for site in sites if site.tensor in FORWARD]
    backward = [site.layer for site in sites if site.tensor not in FORWARD]
    return list(dict.fromkeys(forward + backward[::-1]))


def classes_of(trace: TraceReader | RanksReader, layer: str) -> tuple[str, ...] | None:
    """Names of a layer's class and of those it derives from; None where the trace does not tell.

    Of a trace that has no classes the geometry's op tells PyTorch's own class, whatever class
    derives from it.
    """
    return trace.classes(layer) or class_of_op(trace.geometry(layer))


def class_of_op(geometry: Mapping[str, Any] | None) -> tuple[str, ...] | None:
    """The class that a recorded op stands for, or is the name of; None where there is none."""
    op = (geometry or {}).get("op")
    if not isinstance(op, str):
        return None
    return (class_of(op) if op in OPS else op,)
