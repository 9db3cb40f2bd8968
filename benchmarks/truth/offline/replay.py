"""One trace, all settings of a model: each setting's sites and weight gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.truth.offline.gradient_sums import GradientSums
from benchmarks.truth.offline.replayed import Network, Replayed
from benchmarks.truth.offline.site_errors import site_errors
from benchmarks.truth.offline.site_figures import SiteErrors
from benchmarks.truth.offline.sites import sites_by_setting
from benchmarks.truth.offline.weight_gradients import Operands, gradient_sums
from hqtool.compare.execute import counts_of
from hqtool.compare.recipe_sites import RecipeSites, classes_of, layers_in_order
from hqtool.estimators.quantizer import Quantizer
from hqtool.recipes.layer_facts import LayerFacts, facts_of_network
from hqtool.recipes.recipe import Recipe
from hqtool.trace.reader import TraceReader
from hqtool.vocab import COUNTERPARTS, Site


def replayed(trace: str, recipes: Mapping[str, Recipe]) -> dict[str, Replayed]:
    """Every setting as the trace shows it.

    Args:
        trace: of a full-precision run, with whole tensors of all six kinds.
        recipes: by setting, no two under one name.
    """
    sites, given = sites_by_setting(trace, recipes)
    with TraceReader(trace) as reader:
        errors = {s: site_errors(reader, s, given.quantizers(s)) for s in given.given}
        facts = _facts(reader)
        operands = {
            name: {layer: operands_of(recipe, each) for layer, each in facts.items()}
            for name, recipe in recipes.items()
        }
        made = {
            layer: gradient_sums(reader, layer, [of[layer] for of in operands.values()])
            for layer in facts
        }
        network = _network(reader, {layer: next(iter(of.values())) for layer, of in made.items()})
    return {
        name: Replayed(
            network,
            sites[name],
            _of_recipe(errors, given, recipe),
            {layer: made[layer][pair] for layer, pair in operands[name].items()},
        )
        for name, recipe in recipes.items()
    }


def _of_recipe(
    errors: Mapping[Site, Mapping[Quantizer, SiteErrors]], given: RecipeSites, recipe: Recipe
) -> dict[tuple[str, str], SiteErrors]:
    return {
        (site.layer, site.tensor): errors[site][each.quantizer]
        for site, each in given.of_recipe(recipe.name).items()
        if each.quantizer is not None and errors[site]
    }


def _facts(reader: TraceReader) -> dict[str, LayerFacts]:
    """Of the layers whose operands the trace keeps, in the order in which data passes."""
    held = set(reader.sites)
    layers = layers_in_order(reader.sites)
    types = {layer: names for layer in layers if (names := classes_of(reader, layer))}
    found = facts_of_network(layers, types)
    return {
        layer: found[layer]
        for layer in layers
        if {Site(layer, "input"), Site(layer, "grad_output")} <= held
    }


def operands_of(recipe: Recipe, layer: LayerFacts) -> Operands:
    """What quantizes a layer's X and G_Y.

    Where a recipe quantizes outputs, X is what an earlier layer put out; that of the first layer is
    the network's own input. Likewise G_Y is a later layer's G_X, and that of the last layer the
    loss's.
    """
    return (
        _operand(recipe, layer, "input", at_the_end=layer.first),
        _operand(recipe, layer, "grad_output", at_the_end=layer.last),
    )


def _operand(recipe: Recipe, layer: LayerFacts, kind: str, *, at_the_end: bool) -> Any:
    if kind in recipe.tensors:
        return recipe.quantizer(layer, kind)
    return None if at_the_end else recipe.quantizer(layer, COUNTERPARTS[kind])


def _network(reader: TraceReader, gradients: Mapping[str, GradientSums]) -> Network:
    exact = {layer: each.exact for layer, each in gradients.items()}
    whole = np.sum(list(exact.values()), axis=0)
    return Network(
        layers=tuple(gradients),
        sites=len(reader.sites),
        macs=_shares({layer: _macs(reader, layer) for layer in gradients}),
        update={layer: float(np.mean(each / whole)) for layer, each in exact.items()},
    )


def _macs(reader: TraceReader, layer: str) -> float:
    """Multiply-accumulates forward: an element of Y sums over the weights of its channel."""
    geometry = reader.geometry(layer) or {}
    counts = counts_of(layer, geometry)
    return counts.output * counts.weight / geometry["out_channels"] if counts else 0.0


def _shares(amounts: Mapping[str, float]) -> dict[str, float]:
    total = sum(amounts.values())
    return {name: amount / total for name, amount in amounts.items()}
