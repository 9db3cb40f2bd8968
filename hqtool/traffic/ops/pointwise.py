"""Operations whose result is as large as each operand: add, mul, activation, norm.

A result of new values leaves an accumulator and needs a range. One whose values are some of its
input's keeps its input's levels, and nothing is looked for.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from hqtool.traffic.geometry import Geometry
from hqtool.traffic.works import LAST_AXIS, Tensors, Work, gradient, tensors_of

#: The axis of these tensors that counts channels; of softmax, what a row sums up to 1.
CHANNELS = 1


class Activation(NamedTuple):
    """What the bill must know of an activation function.

    Args:
        is_new: it makes values that its input does not have.
        derives_from: which tensor its derivative is computed from, "input", "output" or "nothing".
    """

    is_new: bool
    derives_from: str


_KEEPS, _FROM_OUTPUT, _FROM_INPUT = (
    Activation(False, "output"),
    Activation(True, "output"),
    Activation(True, "input"),
)

#: By PyTorch's names of functions. The first three clip to bounds that are known beforehand. The
#: last two: products and sums with constants, and any other function of each element.
ACTIVATIONS: dict[str, Activation] = {
    **dict.fromkeys(("relu", "relu6", "hardtanh"), _KEEPS),
    **dict.fromkeys(("leaky_relu", "elu", "sigmoid", "tanh"), _FROM_OUTPUT),
    **dict.fromkeys(("softmax", "log_softmax", "softplus"), _FROM_OUTPUT),
    **dict.fromkeys(("gelu", "silu", "mish", "selu", "celu"), _FROM_INPUT),
    **dict.fromkeys(("hardswish", "hardsigmoid", "logsigmoid", "softsign"), _FROM_INPUT),
    "scale": Activation(True, "nothing"),
    "pointwise": _FROM_INPUT,
}


class Norm(NamedTuple):
    """What the bill must know of a normalization.

    Args:
        by_row: its statistics are those of one row, which is held on chip; those of others must
            be complete before the first element can be normalized.
    """

    by_row: bool


NORMS: dict[str, Norm] = {
    "batch": Norm(by_row=False),
    "instance": Norm(by_row=False),
    "group": Norm(by_row=False),
    "layer": Norm(by_row=True),
    "rms": Norm(by_row=True),
}


def pointwise_tensors(layer: Geometry) -> Tensors:
    """X = Y = N·C·positions elements; no W.

    Raises:
        DataError: there are more or fewer channels after than before.
    """
    return _tensors(layer, weights=0)


def norm_tensors(layer: Geometry) -> Tensors:
    """As `pointwise_tensors`, with W = C elements unless `affine` is false."""
    return _tensors(layer, weights=layer.in_channels if layer.affine else 0)


def add_tensors(layer: Geometry) -> Tensors:
    """As `pointwise_tensors`; X is each operand.

    Raises:
        DataError: `from` names another number of operands.
    """
    named = len(layer.sources)
    if layer.operands and named and layer.operands != named:
        cause = f"{layer.operands}, but from names {named}"
        raise layer.wrong("operands", cause, "name every operand in from, or leave one key out")
    if named == 1:
        cause = f"{layer.sources[0]!r} is one operand, and a sum has two or more"
        raise layer.wrong("from", cause, "name every operand, in a list")
    return pointwise_tensors(layer)


def _tensors(layer: Geometry, weights: int) -> Tensors:
    if layer.out_channels != layer.in_channels:
        cause = f"{layer.op} has as many channels as it is given, {layer.in_channels}"
        raise layer.wrong("out_channels", cause, "leave out_channels out")
    shape = (layer.batch, layer.in_channels, *layer.input)
    tensors = tensors_of((weights,), shape, shape, CHANNELS)
    return replace(tensors, weight=tensors.weight._replace(channel_axis=LAST_AXIS))


def add_works(layer: Geometry, tensors: Tensors) -> tuple[Work, ...]:
    """Y from all operands. Backward nothing is made: G_Y is the gradient of each operand."""
    operands = layer.operands or max(2, len(layer.sources))
    others = (tensors.input._replace(name="other"),) * (operands - 1)
    return (Work("forward", tensors.output, (tensors.input, *others), quantizes=True),)


def mul_works(layer: Geometry, tensors: Tensors) -> tuple[Work, ...]:
    """Y from all operands, element by element; the gradient of each from G_Y and the others."""
    (forward,) = add_works(layer, tensors)
    made, arrives = gradient(tensors.input), gradient(tensors.output)
    others = ((*forward.reads[:i], *forward.reads[i + 1 :]) for i in range(len(forward.reads)))
    backward = (Work("backward", made, (arrives, *each), quantizes=True) for each in others)
    return (forward, *backward)


def activation_works(layer: Geometry, tensors: Tensors) -> tuple[Work, ...]:
    """Y from X; G_X from G_Y and what the derivative is computed from."""
    activation, x, y = ACTIVATIONS[layer.kind], tensors.input, tensors.output
    kept = {"input": (x,), "output": (y,), "nothing": ()}[activation.derives_from]
    return (
        Work("forward", y, (x,), quantizes=activation.is_new),
        Work("backward", gradient(x), (gradient(y), *kept), quantizes=activation.is_new),
    )


def norm_works(layer: Geometry, tensors: Tensors) -> tuple[Work, ...]:
    """Y from X and W; G_W from G_Y and X; G_X from G_Y, X and W.

    G_W, sums of G_Y and of its products with X, is what G_X needs first: of a row it is at hand
    when G_X is made, so that these are loaded once.
    """
    w, x, y = tensors.weight, tensors.input, tensors.output
    weights = (w,) if w.numel else ()
    once = NORMS[layer.kind].by_row and layer.grad_input
    return (
        Work("forward", y, (x, *weights), quantizes=True),
        Work("backward", gradient(w), () if once else (gradient(y), x), quantizes=False),
        Work("backward", gradient(x), (gradient(y), x, *weights), quantizes=True),
    )
