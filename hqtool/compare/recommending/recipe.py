"""A recommendation as a recipe: the commonest quantizer of each tensor kind, and exceptions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from hqtool.compare.recommending.choosing import SiteChoice
from hqtool.compare.recommending.recommendation import Recommendation
from hqtool.estimators.quantizer import Quantizer
from hqtool.recipes.recipe import Recipe, Rule
from hqtool.vocab import TENSOR_KINDS

#: Which layers, in the order of the trace → quantizers by tensor kind.
_Exceptions = dict[tuple[str, ...], dict[str, Quantizer | None]]


def recipe_of(found: Recommendation) -> Recipe:
    """The recipe, without a name, that gives each site its chosen quantizer.

    Layers that the traces lack get the commonest one of each tensor kind, if the selection takes
    them. Tensor kinds that the traces lack are not quantized.
    """
    known = dict(zip(found.question.labels, found.question.candidates, strict=True))
    kinds = [k for k in TENSOR_KINDS if any(c.site.tensor == k for c in found.sites)]
    usual = {kind: _commonest(found.sites, kind) for kind in kinds}
    exceptions: _Exceptions = {}
    for kind in kinds:
        for label, layers in _others(found.sites, kind, usual[kind]).items():
            exceptions.setdefault(layers, {})[kind] = known.get(label)
    everywhere = Rule(
        layers=found.comparison.selection.layers or ("*",),
        quantizers={kind: known.get(label) for kind, label in usual.items()},
    )
    rules = [
        Rule(layers=tuple(map(escaped, layers)), quantizers=quantizers)
        for layers, quantizers in exceptions.items()
    ]
    return Recipe("", (everywhere, *rules), _description(found), _source(found))


def _commonest(choices: Sequence[SiteChoice], kind: str) -> str:
    """The label that most sites of a kind have; of equally common ones the first."""
    labels = [choice.chosen.quantizer for choice in choices if choice.site.tensor == kind]
    return Counter(labels).most_common(1)[0][0]


def _others(choices: Sequence[SiteChoice], kind: str, usual: str) -> dict[str, tuple[str, ...]]:
    """Label → layers, of the sites of a kind that have another quantizer than the usual one."""
    layers: dict[str, list[str]] = {}
    for choice in choices:
        if choice.site.tensor == kind and choice.chosen.quantizer != usual:
            layers.setdefault(choice.chosen.quantizer, []).append(choice.site.layer)
    return {label: tuple(sorted(names)) for label, names in layers.items()}


def escaped(layer: str) -> str:
    """A glob that matches a layer's name and nothing else."""
    return re.sub(r"([*?[])", r"[\1]", layer)


def _description(found: Recommendation) -> str:
    return f"the cheapest with {' and '.join(c.label for c in found.question.conditions)}"


def _source(found: Recommendation) -> str:
    traces = ", ".join(facts.path for facts in found.comparison.traces)
    return f"hqtool recommend on {traces}, among {', '.join(found.question.labels)}"
