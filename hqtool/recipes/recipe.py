"""A recipe: rules that give each site its quantizer. A value, however it was written."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

from hqtool.estimators.entry_statistics import reads_channel_extremes
from hqtool.estimators.quantizer import Quantizer
from hqtool.recipes.layer_facts import LayerFacts
from hqtool.vocab import TENSOR_KINDS

#: How gradients pass through a quantizer: not where x was saturated, or everywhere.
StraightThrough = Literal["clipped", "full"]
STRAIGHT_THROUGH: dict[str, StraightThrough] = {"clipped": "clipped", "full": "full"}


@dataclass(frozen=True, slots=True)
class Rule:
    """Quantizers for the layers that it applies to.

    Args:
        layers, exclude: globs on a layer's name: any of the former must match, none of the latter.
        types: names of module classes, one of which the layer's class is or derives from, or
            "matmul": the products of two activations; empty: of any class.
        first, last: apply to the network's first layer alone, to its last one; with both to either.
        quantizers: by tensor kind, which is not quantized where None; kinds that are not named
            stay as earlier rules have them.
        ste: how gradients pass; None: as earlier rules have it.
    """

    layers: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    first: bool = False
    last: bool = False
    quantizers: Mapping[str, Quantizer | None] = field(default_factory=dict)
    ste: StraightThrough | None = None

    def applies_to(self, layer: LayerFacts) -> bool:
        """Whether its quantizers are the layer's; not where it asks for classes, none known.

        A product of two activations is left alone by rules that do not name it: by its type, or by
        its own name, without wildcards.
        """
        if not self._takes_all_but_type(layer):
            return False
        named = bool(set(self.types) & set(layer.types or ()))
        return named or (not self.types and (not layer.is_product or layer.name in self.layers))

    def unmet(self, layers: Collection[LayerFacts]) -> list[str]:
        """Names and classes in it that none of the layers has; classes only if all are known."""
        globs = (*self.layers, *self.exclude)
        missing = [each for each in globs if not any(_any((each,), one.name) for one in layers)]
        if all(one.types is not None for one in layers):
            known = {name for one in layers for name in one.types or ()}
            missing += [each for each in self.types if each not in known]
        return list(dict.fromkeys(missing))

    def cannot_judge(self, layer: LayerFacts) -> bool:
        """Whether it would take the layer's class to say if it applies, which is not known."""
        return bool(self.types) and layer.types is None and self._takes_all_but_type(layer)

    def _takes_all_but_type(self, layer: LayerFacts) -> bool:
        by_place = not (self.first or self.last)
        by_place |= (self.first and layer.first) or (self.last and layer.last)
        return by_place and _any(self.layers, layer.name) and not _any(self.exclude, layer.name)


def _any(globs: Iterable[str], name: str) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Which quantizer each site gets, and how gradients pass through it.

    Args:
        name: what results call it.
        rules: in order; a later one overrides the earlier ones, kind by kind.
        description: one line.
        source: where its numbers come from, and what it leaves out.
        ste: how gradients pass where no rule says it.
    """

    name: str
    rules: tuple[Rule, ...]
    description: str = ""
    source: str = ""
    ste: StraightThrough = "clipped"

    def quantizer(self, layer: LayerFacts, tensor: str) -> Quantizer | None:
        """A site's quantizer; None where it stays as it is.

        Args:
            tensor: a tensor kind.
        """
        found = None
        for rule in self.rules:
            if tensor in rule.quantizers and rule.applies_to(layer):
                found = rule.quantizers[tensor]
        return found

    def straight_through(self, layer: LayerFacts) -> StraightThrough:
        """How gradients pass through a layer's quantizers."""
        found = self.ste
        for rule in self.rules:
            if rule.ste is not None and rule.applies_to(layer):
                found = rule.ste
        return found

    @property
    def tensors(self) -> tuple[str, ...]:
        """The tensor kinds that it quantizes somewhere, in the usual order."""
        named = {k for rule in self.rules for k, q in rule.quantizers.items() if q is not None}
        return tuple(kind for kind in TENSOR_KINDS if kind in named)

    @property
    def reads_channel_extremes(self) -> bool:
        """Whether the extremes of channels are what some site's estimator learns from."""
        quantizers = (q for rule in self.rules for q in rule.quantizers.values() if q is not None)
        return any(reads_channel_extremes(each.estimator.value) for each in quantizers)

    def unmet(self, layers: Collection[LayerFacts]) -> list[tuple[int, list[str]]]:
        """Of rules that name what none of the layers is: their number, from 1, and these names."""
        found = [(number, rule.unmet(layers)) for number, rule in enumerate(self.rules, start=1)]
        return [each for each in found if each[1]] if layers else []

    def unjudged(self, layers: Iterable[LayerFacts]) -> list[str]:
        """Names of layers whose class a rule asks for, and which is not known."""
        return [each.name for each in layers if any(r.cannot_judge(each) for r in self.rules)]
