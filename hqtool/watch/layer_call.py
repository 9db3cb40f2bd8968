"""Forward passes, and the calls of layers in them."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from hqtool.watch.names import Surroundings
from hqtool.watch.position import Position


@dataclass(slots=True, eq=False, weakref_slot=True)
class ForwardPass:
    """A forward pass of an outermost module.

    It is part of training if a backward pass reaches it. Until then the calls of its layers wait to
    be reported. If no backward pass comes, they are freed together with the pass's graph, which
    holds the only reference to this object.

    Args:
        number: counts all forward passes.
        step: the step it belongs to, if it trains.
        recomputed_in: the backward pass within which it runs, to compute activations again.

    Attributes:
        trains: a backward pass has reached it.
        updated: an optimizer updates a model that ran in it.
        waiting: the calls of its layers that wait to be reported.
        backward: the number of the backward pass that reached it last.
    """

    number: int
    step: int
    recomputed_in: int | None = None
    trains: bool = False
    updated: bool = False
    waiting: list[LayerCall] = field(default_factory=list)
    backward: int | None = None


@dataclass(slots=True, eq=False)
class LayerCall:
    """One call of one layer: what was read of it, and where it belongs.

    Args:
        forward: the pass that it is part of.
        module: the layer, the attention that it is within, or the module whose parameter it
            multiplies with.
        part: what the layer is called within the module; empty: it is the module itself.
        around: the calls that ran around it; None where its name is known.
        name: the layer's name; None: not known before the pass is known to train.
        label: its name in messages until it has a name.
        geometry: layer name → layer-spec keys; None where it was described before.
        weight: the parameter that the layer multiplies with.
        channel_axis: of the layer's tensors, counted from the last axis, -1.
        is_product: it multiplies two activations.

    Attributes:
        has_computed_weight: its weight is no parameter, but computed from others.
        unreadable: why its output cannot be read; None where it can.
        readings: what was read of its tensors, by tensor kind.
        position: where in training it belongs; None before it was reported.
        places: number of a backward pass → the position of the gradients it brought.
    """

    forward: ForwardPass
    module: weakref.ref[nn.Module]
    part: str
    around: Surroundings | None
    name: str | None
    label: str
    geometry: Callable[[str], dict[str, Any]] | None = None
    weight: weakref.ref[Tensor] | None = None
    channel_axis: int = -1
    is_product: bool = False
    has_computed_weight: bool = False
    unreadable: str | None = None
    readings: list[tuple[str, Any]] = field(default_factory=list)
    position: Position | None = None
    places: dict[int, Position] = field(default_factory=dict)
