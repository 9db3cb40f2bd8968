"""What a watcher tells of training, and whom."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import Tensor

from hqtool.vocab import Site
from hqtool.watch.position import Position


class Listener(Protocol):
    """Is told what happens inside a training script; knows nothing of how that is found out.

    A tensor is read when it passes by, for training may change it afterwards; at that time it is
    not yet known whether its forward pass trains. What `read` returns is handed back with
    `record` once a backward pass has come, or forgotten where none does.
    """

    @property
    def active(self) -> bool:
        """Whether it wants to be told anything more."""

    @property
    def kinds(self) -> Collection[str]:
        """The tensor kinds it asks for, keys of TENSOR_KINDS."""

    def guard(self, what: Site | str) -> AbstractContextManager[None, bool]:
        """Keep failures of a block away from training, and threads from each other.

        Args:
            what: what fails if the block does.
        """

    def asks_for(self, layer: str) -> bool:
        """Whether it asks for a layer of this name."""

    def read(self, tensor: Tensor, step: int, channel_axis: int = -1) -> Any | None:
        """Read a tensor that passes by; None where nothing is to be had of it.

        A failure is part of what is returned, and told when it is recorded: only then is it
        known what failed.

        Args:
            step: the step that it will belong to, if its forward pass trains.
            channel_axis: the axis of its channels, counted from the last one, -1.
        """

    def record(self, site: Site, position: Position, reading: Any, loss_scale: float = 1.0) -> None:
        """Take what was read of a tensor, now that it belongs to training.

        Args:
            loss_scale: factor that a gradient carries.
        """

    def describe(self, layer: str, geometry: Callable[[], Mapping[str, Any]]) -> None:
        """Take a layer's geometry, the keys of a layer spec; called again, it is not asked for."""

    def count(self, event: str, number: int = 1) -> None:
        """Count something that is worth a note."""

    def commit(self, step: int) -> None:
        """A step has ended; it may end again, with more of it."""

    def name_optimizers(self, step: int, names: tuple[str, ...]) -> None:
        """Which optimizers ended a step, and those after it until told otherwise."""
