"""The interface between a watcher and those that act on the operands of layers as they run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from hqtool.watch.checkpoints import Segment
from hqtool.watch.layer_call import LayerCall


class CallPlace(NamedTuple):
    """Where a call of a layer belongs; it may be kept as long as the call's graph.

    Args:
        name: the layer's name.
        call: what is known of the call where its pass may train; None of one that only evaluates,
            or computes activations again that were read the first time.
        step: the step that the call belongs to, if it trains.
        recomputes: it computes activations again, within a backward pass.
        segment: the checkpointed part of the model that it runs in.
    """

    name: str
    call: LayerCall | None
    step: int
    recomputes: bool
    segment: Segment | None


class RunningLayer(NamedTuple):
    """A call of a layer whose operands may be replaced; not to be kept, for it holds modules.

    Args:
        place: where the call belongs.
        module: the layer, or the module that holds it or its weight.
        channel_axis: of the layer's tensors, counted from the last axis, -1.
        output_axis: of the weight, the axis of the output channels; None: it is no weight, but the
            second operand of a product of two activations.
        root: gives the outermost module of the model that runs.
        kinds: the tensor kinds that it has.
    """

    place: CallPlace
    module: nn.Module
    channel_axis: int
    output_axis: int | None
    root: Callable[[], nn.Module]
    kinds: Collection[str]

    @property
    def is_product(self) -> bool:
        """Whether it multiplies two activations."""
        return self.output_axis is None


class CallOperands(Protocol):
    """Acts on the operands and on the result of one call of a layer."""

    @property
    def acts(self) -> bool:
        """Whether it changes anything."""

    def left(self, x: Tensor) -> Tensor:
        """What is multiplied in place of the layer's input."""

    def right(self, weight: Tensor) -> Tensor:
        """What is multiplied in place of the layer's weight."""

    def result(self, y: Tensor, *, is_product: bool = False) -> Tensor:
        """What the layer returns in place of its result.

        Args:
            is_product: a single product has just made it: nobody else needs it, and it may be
                overwritten.
        """

    def ran(
        self, multiplications: int, *, weighted: bool = True, weight_alone: bool = False
    ) -> None:
        """The layer has multiplied so often.

        Args:
            weighted: its weight could be reached.
            weight_alone: only that could be.
        """


class Operands(Protocol):
    """Is asked for each call of a layer."""

    def begin(self, layer: RunningLayer) -> CallOperands:
        """A layer begins to run."""

    def takes(self, product: str) -> bool:
        """Whether it acts on a product of two activations, by the product's name."""

    def left_alone(self, multiplications: int) -> None:
        """A product of two activations ran that it does not take."""

    def out_of_reach(self, reason: str, multiplications: int) -> None:
        """A product ran whose operands cannot be replaced."""


def with_operands(
    args: Sequence[Any], kwargs: dict[str, Any], replaced: Sequence[tuple[Tensor, Tensor]]
) -> tuple[list[Any], dict[str, Any]]:
    """A function's arguments with tensors replaced, wherever they stand.

    Args:
        replaced: pairs of a tensor and what stands in its place; of several of one tensor each
            stands in one of its places, in order.
    """

    waiting = list(replaced)

    def new(each: Any) -> Any:
        if isinstance(each, (list, tuple)) and any(isinstance(part, Tensor) for part in each):
            return [new(part) for part in each]
        found = [pair for pair in waiting if pair[0] is each]
        if len(found) > 1:
            waiting.remove(found[0])
        return found[0][1] if found else each

    return [new(each) for each in args], {name: new(each) for name, each in kwargs.items()}


def multiplied(
    run: Callable[..., Any],
    args: Sequence[Any],
    kwargs: dict[str, Any],
    operands: CallOperands,
    x: Tensor,
    weight: Tensor,
) -> Any:
    """The result of a function that multiplies, with the operands replaced."""
    pairs = [(x, operands.left(x)), (weight, operands.right(weight))]
    args, kwargs = with_operands(args, kwargs, pairs)
    return operands.result(run(*args, **kwargs), is_product=True)
