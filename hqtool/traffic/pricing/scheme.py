"""What quantizes each tensor of a network: a recipe, or one quantizer for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hqtool.estimators.presets import ESTIMATORS
from hqtool.estimators.quantizer import LOCAL, Quantizer
from hqtool.recipes.layer_facts import PRODUCT, LayerFacts, facts_of_network
from hqtool.recipes.recipe import Recipe, Rule
from hqtool.traffic.bill import Bits
from hqtool.traffic.fusing.graph import graph_of
from hqtool.traffic.layers import Layer
from hqtool.traffic.pricing.looks import looks_of
from hqtool.traffic.pricing.store import NO_LOOKS, Looks, Stored, full_shape
from hqtool.traffic.pricing.stored import stored
from hqtool.traffic.works import Operand, Work
from hqtool.vocab import COUNTERPARTS

#: The kinds of tensors that an operation reads and that another one has made.
ARRIVING = ("input", "grad_output")

#: What a tensor that is not quantized is stored in, unless another width is given: float32.
WIDE_BITS = 32


class Edge(NamedTuple):
    """The layers with weights between which a tensor passes, and its gradient back.

    Args:
        before, after: at whose output, and at whose input.
    """

    before: LayerFacts
    after: LayerFacts


@dataclass(frozen=True, slots=True)
class Place:
    """An operation of a network, as recipes see it.

    Args:
        own: the layer whose rules are those of its weights.
        reads, makes: where its X and G_X pass, and its Y and G_Y.
    """

    own: LayerFacts
    reads: Edge
    makes: Edge

    def layer(self, kind: str, named: str) -> LayerFacts:
        """The layer whose rule for the kind `named` is about a tensor of a kind.

        Args:
            named: the kind itself, or its counterpart.
        """
        if kind not in COUNTERPARTS:
            return self.own
        edge = self.reads if kind in ("input", "grad_input") else self.makes
        return edge.before if named in ("output", "grad_output") else edge.after


@dataclass(frozen=True, slots=True)
class Scheme:
    """A recipe, as the tensors between a network's layers are stored under it.

    Args:
        label: how results name it.
    """

    label: str
    recipe: Recipe

    def quantizer(self, place: Place, kind: str) -> Quantizer | None:
        """What a tensor is stored under; None where it is not quantized.

        Where a recipe names a kind nowhere, its counterpart's: what a layer puts out is stored as
        the next one reads it, or what it reads as the one before has made it.
        """
        found, other = self.recipe.tensors, COUNTERPARTS.get(kind)
        named = other if other in found and kind not in found else kind
        return self.recipe.quantizer(place.layer(kind, named), named)

    @property
    def quantizers(self) -> tuple[Quantizer, ...]:
        """All that it gives some tensor, each once."""
        found = [q for rule in self.recipe.rules for q in rule.quantizers.values() if q is not None]
        return tuple(dict.fromkeys(found))

    def requantizes(self, kind: str) -> bool:
        """Whether what arrives is quantized anew, though it was stored quantized.

        Args:
            kind: of the tensor that is read.
        """
        named = self.recipe.tensors
        return kind in ARRIVING and kind in named and COUNTERPARTS[kind] in named


def scheme_of(quantizer: Quantizer) -> Scheme:
    """One quantizer for all activations and their gradients, and weights in the same format.

    A weight's range is known when the weight is updated, whatever the estimator. The gradients of
    weights are not quantized.
    """
    rule = Rule(
        quantizers={
            "weight": _at_rest(quantizer),
            "output": quantizer,
            "grad_input": quantizer,
        }
    )
    return Scheme(quantizer.label, Recipe(quantizer.label, (rule,)))


def _at_rest(quantizer: Quantizer) -> Quantizer:
    """The quantizer of weights in the same format."""
    needs_range = quantizer.format.value.needs_range
    return Quantizer(ESTIMATORS.parse("current" if needs_range else LOCAL), quantizer.format)


@dataclass(frozen=True, slots=True)
class SchemeStore:
    """The tensors of one operation under a scheme, as prices ask for them.

    Looks at weights cost nothing: they do not depend on the data, so that their ranges are found
    as they are updated.

    Args:
        wide_bits: of what is not quantized, but for the gradients of weights, which have their
            own width in `bits`, as accumulators have.
    """

    scheme: Scheme
    place: Place
    bits: Bits
    wide_bits: int = WIDE_BITS

    @property
    def acc(self) -> int:
        return self.bits.acc

    def stored(self, operand: Operand) -> Stored:
        """Elements, and the scales of blocks and of ranges, each counted."""
        quantizer = self.scheme.quantizer(self.place, operand.kind)
        if quantizer is None:
            wide = self.bits.gw if operand.kind == "grad_weight" else self.wide_bits
            return Stored(operand.numel * wide)
        return stored(quantizer, *full_shape(operand))

    def looks_at_made(self, work: Work) -> Looks:
        """Those of the result's quantizer; the gradient of a weight has one where a recipe says."""
        quantizer = self.scheme.quantizer(self.place, work.made.kind)
        quantized = work.quantizes or work.made.kind == "grad_weight"
        return looks_of(quantizer) if quantized and quantizer is not None else NO_LOOKS

    def looks_at_read(self, operand: Operand) -> Looks:
        """Those of an input or arriving gradient that has a quantizer beside its maker's."""
        quantizer = self.scheme.quantizer(self.place, operand.kind)
        again = self.scheme.requantizes(operand.kind)
        return looks_of(quantizer) if again and quantizer is not None else NO_LOOKS


#: How the ops of layers with weights begin.
WEIGHTED = ("conv", "linear")


def places_of(layers: Sequence[Layer], recipe: Recipe) -> list[Place]:
    """What a recipe asks of a network's operations.

    Recipes are about layers with weights. A tensor that passes between two of them, through
    operations without rules of their own, is stored as they say: rules for `output` and
    `grad_output` are those of the layer before, rules for `input` and `grad_input` those of the
    layer after. Products of two activations have rules of their own where a rule names them.
    """
    graph, facts = graph_of(layers), _facts_of_layers(layers, recipe)
    own: list[LayerFacts] = []
    for layer, sources in zip(layers, graph.sources, strict=True):
        follows = layer.name not in facts and sources
        own.append(own[sources[0]] if follows else facts.get(layer.name) or _alone(layer))
    after = list(own)
    for number in reversed(range(len(layers))):
        if graph.readers[number]:
            first = graph.readers[number][0]
            after[number] = own[first] if layers[first].name in facts else after[first]
    before = [own[each[0]] if each else own[n] for n, each in enumerate(graph.sources)]
    reader = [own[n] if each.name in facts else after[n] for n, each in enumerate(layers)]
    return [
        Place(own[n], Edge(before[n], reader[n]), Edge(own[n], after[n]))
        for n in range(len(layers))
    ]


def _facts_of_layers(layers: Sequence[Layer], recipe: Recipe) -> dict[str, LayerFacts]:
    """Those of layers with weights, and of products that a rule names; by name."""
    types = {
        layer.name: (PRODUCT if layer.op == PRODUCT else class_of(layer.op),)
        for layer in layers
        if layer.op.startswith(WEIGHTED) or _names_product(recipe, layer)
    }
    return facts_of_network(list(types), types)


def _names_product(recipe: Recipe, layer: Layer) -> bool:
    rules = recipe.rules if layer.op == PRODUCT else ()
    return any(PRODUCT in rule.types or layer.name in rule.layers for rule in rules)


def _alone(layer: Layer) -> LayerFacts:
    """Of an operation that follows no layer with weights."""
    return LayerFacts(layer.name, (class_of(layer.op),))


def class_of(op: str) -> str:
    """PyTorch's class of an op: 'ConvTranspose2d' of 'conv_transpose2d'."""
    return "".join(part.capitalize() for part in op.split("_"))
