"""The works of an operation: what each pass computes, from what, and how much memory that moves.

Prices are put on works without knowing the operation. Figure 1 of the paper is `product_works`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from hqtool.traffic.geometry import Counts

#: Along which axis block formats cut: of a convolution's tensors axis 1, of others the last.
LAST_AXIS = -1


#: What can be billed, and the passes of a step that it is made of.
PASSES: dict[str, tuple[str, ...]] = {
    "forward": ("forward",),
    "backward": ("backward",),
    "both": ("forward", "backward"),
}


class Operand(NamedTuple):
    """A tensor that a work loads or makes.

    Args:
        name: what transfers call it, such as "weight" or "grad_input".
        kind: its tensor kind.
        width: which of `Bits` it has: w, a, g or gw.
        numel: its elements.
        shape: None where only the number of elements is known.
        channel_axis: which axis of the shape counts channels.
    """

    name: str
    kind: str
    width: str
    numel: int
    shape: tuple[int, ...] | None = None
    channel_axis: int = LAST_AXIS


class Work(NamedTuple):
    """One tensor made from others, in one go of an accelerator.

    Args:
        pass_name: "forward" or "backward".
        made: the result.
        reads: what is loaded for it.
        quantizes: the result leaves a wide accumulator and is quantized on its way to memory, in
            a range that dynamic quantization must look for.
        saves: the result goes to memory.
        sums: it is a product: the operands share an index that is summed over, so that elements
            are used many times, and loaded again where the chip cannot hold them (`rereads`).
    """

    pass_name: str
    made: Operand
    reads: tuple[Operand, ...]
    quantizes: bool
    saves: bool = True
    sums: bool = False


@dataclass(frozen=True, slots=True)
class Tensors:
    """What an operation reads and makes in the forward pass: W, X and Y."""

    weight: Operand
    input: Operand
    output: Operand

    @property
    def counts(self) -> Counts:
        """Their elements."""
        return Counts(self.weight.numel, self.input.numel, self.output.numel)


def tensors_of(
    weight: tuple[int, ...],
    input_shape: tuple[int, ...],
    output: tuple[int, ...],
    channel_axis: int = LAST_AXIS,
) -> Tensors:
    """W, X and Y of these shapes."""
    return Tensors(
        Operand("weight", "weight", "w", math.prod(weight), weight, channel_axis),
        Operand("input", "input", "a", math.prod(input_shape), input_shape, channel_axis),
        Operand("output", "output", "a", math.prod(output), output, channel_axis),
    )


def counted_tensors(counts: Counts) -> Tensors:
    """W, X and Y of which only the elements are known."""
    return Tensors(
        Operand("weight", "weight", "w", counts.weight),
        Operand("input", "input", "a", counts.input),
        Operand("output", "output", "a", counts.output),
    )


def gradient(of: Operand) -> Operand:
    """The gradient of a tensor; that of a weight stays in FP32."""
    width = "gw" if of.kind == "weight" else "g"
    return of._replace(name=f"grad_{of.name}", kind=f"grad_{of.kind}", width=width)


def product_works(tensors: Tensors) -> tuple[Work, ...]:
    """Y from W and X; G_X from G_Y and W; G_W from X and G_Y (figure 1).

    G_W is not quantized, but where W is an activation, too.
    """
    w, x, y = tensors.weight, tensors.input, tensors.output
    return (
        Work("forward", y, (w, x), quantizes=True, sums=True),
        Work("backward", gradient(x), (gradient(y), w), quantizes=True, sums=True),
        Work("backward", gradient(w), (x, gradient(y)), w.kind != "weight", sums=True),
    )
