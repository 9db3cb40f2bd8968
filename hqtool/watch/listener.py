"""The interface between a watcher, which observes training, and those that use what it finds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import Tensor

from hqtool.vocab import Site
from hqtool.watch.position import Position


class Listener(Protocol):
    """Is called about what happens inside a training script.

    A tensor is read as soon as it is computed, for training may change it afterwards; at that time
    it is not known whether its forward pass trains. What `read` returns is passed to `record` once
    a backward pass has come, or dropped where none comes.
    """

    @property
    def active(self) -> bool:
        """Whether it wants to be called any more."""

    @property
    def kinds(self) -> Collection[str]:
        """The tensor kinds it asks for, keys of TENSOR_KINDS."""

    def guard(self, what: Site | str) -> AbstractContextManager[None, bool]:
        """A context manager that keeps failures of a block from training, one thread at a time.

        Args:
            what: what has failed if the block fails.
        """

    def asks_for(self, layer: str) -> bool:
        """Whether it asks for a layer of this name."""

    def read(
        self, tensor: Tensor, step: int, channel_axis: int = -1, entry_axis: int | None = None
    ) -> Any | None:
        """Read a tensor; None where there is nothing to read.

        A failure is returned, and noted when it is passed to `record`: only then it is known which
        layer it concerns.

        Args:
            step: the step that it will belong to, if its forward pass trains.
            channel_axis: the axis of its channels, counted from the last one, -1.
            entry_axis: of a weight or its gradient, the axis of the output channels, which may each
                have a range of their own; None: the same axis.
        """

    def record(self, site: Site, position: Position, reading: Any, loss_scale: float = 1.0) -> None:
        """Take what was read of a tensor, now that it belongs to training.

        Args:
            loss_scale: factor that a gradient carries.
        """

    def describe(
        self, layer: str, geometry: Callable[[], Mapping[str, Any]], classes: tuple[str, ...] = ()
    ) -> None:
        """Take a function that computes a layer's geometry, the keys of a layer spec.

        May be called more than once for a layer; only the first time counts.

        Args:
            classes: names of the class of the module that the layer is or is part of, and of those
                it derives from; empty where it no longer exists.
        """

    def count(self, event: str, number: int = 1) -> None:
        """Count an event."""

    def commit(self, step: int) -> None:
        """A step has ended. It may be called again for the same step, after more records."""

    def name_optimizers(self, step: int, names: tuple[str, ...]) -> None:
        """Which optimizers ended a step; it holds for later steps until the next call."""
