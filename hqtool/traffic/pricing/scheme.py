"""What quantizes each tensor of a network: a recipe, or one quantizer for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hqtool.estimators.presets import ESTIMATORS
from hqtool.estimators.quantizer import LOCAL, Quantizer
from hqtool.recipes.layer_facts import LayerFacts, facts_of_network
from hqtool.recipes.recipe import Recipe, Rule
from hqtool.traffic.bill import Bits
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


@dataclass(frozen=True, slots=True)
class Scheme:
    """A recipe, as the tensors between a network's layers are stored under it.

    Args:
        label: how results name it.
    """

    label: str
    recipe: Recipe

    def quantizer(self, layer: LayerFacts, kind: str) -> Quantizer | None:
        """What a tensor is stored under; None where it is not quantized.

        Where a recipe names a kind nowhere, its counterpart's: what a layer puts out is stored as
        the next one reads it.
        """
        named, other = self.recipe.tensors, COUNTERPARTS.get(kind, kind)
        return self.recipe.quantizer(layer, other if kind not in named and other in named else kind)

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
    """The tensors of one layer under a scheme, as prices ask for them.

    Looks at weights cost nothing: they do not depend on the data, so that their ranges are found
    as they are updated.

    Args:
        wide_bits: of what is not quantized, but for the gradients of weights, which have their
            own width in `bits`, as accumulators have.
    """

    scheme: Scheme
    layer: LayerFacts
    bits: Bits
    wide_bits: int = WIDE_BITS

    @property
    def acc(self) -> int:
        return self.bits.acc

    def stored(self, operand: Operand) -> Stored:
        """Elements, and the scales of blocks and of ranges, each counted."""
        quantizer = self.scheme.quantizer(self.layer, operand.kind)
        if quantizer is None:
            wide = self.bits.gw if operand.kind == "grad_weight" else self.wide_bits
            return Stored(operand.numel * wide)
        return stored(quantizer, *full_shape(operand))

    def looks_at_made(self, work: Work) -> Looks:
        """Those of the result's quantizer; the gradient of a weight has one where a recipe says."""
        quantizer = self.scheme.quantizer(self.layer, work.made.kind)
        quantized = work.quantizes or work.made.kind == "grad_weight"
        return looks_of(quantizer) if quantized and quantizer is not None else NO_LOOKS

    def looks_at_read(self, operand: Operand) -> Looks:
        """Those of an input or arriving gradient that has a quantizer beside its maker's."""
        quantizer = self.scheme.quantizer(self.layer, operand.kind)
        again = self.scheme.requantizes(operand.kind)
        return looks_of(quantizer) if again and quantizer is not None else NO_LOOKS


def facts_of_layers(layers: Sequence[Layer]) -> dict[str, LayerFacts]:
    """What recipes ask of layers: of a spec the class is that which its op stands for."""
    names = [layer.name for layer in layers]
    return facts_of_network(names, {layer.name: (class_of(layer.op),) for layer in layers})


def class_of(op: str) -> str:
    """PyTorch's class of an op: 'ConvTranspose2d' of 'conv_transpose2d'."""
    return "".join(part.capitalize() for part in op.split("_"))
