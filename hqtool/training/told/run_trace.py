"""RUN.h5: what a quantized run records of its tensors, in a trace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from hqtool.errors import DataError
from hqtool.estimators.plain_states import to_plain
from hqtool.launch.stderr_lines import say
from hqtool.trace.history import BEGAN, Began
from hqtool.trace.writer import TraceFull, TraceWriter
from hqtool.training.sites.trained_site import Treated
from hqtool.vocab import Site, UsedRange
from hqtool.watch.position import Position

#: Records wait to be written until their step ends, or until there are so many.
MOST_WAITING = 4096


class RunTrace:
    """Writes statistics of tensors before they were quantized, and what quantized them.

    A record without statistics (nothing was finite, say) is left out. Where the disk is full,
    training goes on, and the trace ends there.

    Args:
        writer: an open trace that keeps the ranges used.

    Attributes:
        writer: the same.
        full: why the trace ends before training does; None where it does not.
    """

    def __init__(self, writer: TraceWriter) -> None:
        self.writer = writer
        self.full: str | None = None
        self._waiting: list[tuple[Site, Position, Treated, bool]] = []
        self._began: dict[str, Began] = {}
        self._has_begun = False

    def began(self, site: Site, quantizer: str, state: Any) -> None:
        """A site begins with a state that it has from elsewhere: replay begins with it, too."""
        with suppress(DataError):  # of an outside package, which cannot be written
            self._began[str(site)] = Began(quantizer, to_plain(state))
            self._has_begun = True

    def write(
        self, site: Site, position: Position, treated: Treated, *, plain: bool = False
    ) -> None:
        """Record a tensor that belongs to training.

        Args:
            plain: it is not quantized.
        """
        self._waiting.append((site, position, treated, plain))
        if len(self._waiting) >= MOST_WAITING:
            self._write_waiting()

    def _write_waiting(self) -> None:
        """Write what waits: all at once, the code stays in the processor's caches."""
        waiting, self._waiting = self._waiting, []
        with self._going_on():
            for each in waiting:
                self._write(*each)

    def _write(self, site: Site, position: Position, treated: Treated, plain: bool) -> None:
        stats = treated.stats
        if stats is None:
            return
        wanted = treated.decision.range
        used = UsedRange(
            None if wanted is None else wanted.widest,
            treated.decision.looked,
            treated.share_clipped,
            carries_scale=not treated.divided,
        )
        self.writer.write(
            *(site.layer, site.tensor, position.step, None, position.micro, position.call),
            stats=stats,
            shape=treated.shape,
            loss_scale=treated.loss_scale,
            channel_extremes=treated.channel_extremes,
            used=None if plain else used,
        )

    def describe(
        self, layer: str, geometry: Mapping[str, Any] | None, classes: tuple[str, ...]
    ) -> None:
        """Write a layer's classes, and its geometry where it is known."""
        with self._going_on():
            if classes:
                self.writer.name_classes(layer, classes)
            if geometry is not None:
                self.writer.describe(layer, geometry)

    def commit(self, step: int) -> None:
        """Make a step durable."""
        self._write_waiting()
        if self._has_begun:
            self._has_begun = False
            self.note(BEGAN, {site: each._asdict() for site, each in self._began.items()})
        with self._going_on():
            self.writer.commit(step)

    def name_optimizers(self, step: int, names: tuple[str, ...]) -> None:
        """Record which optimizers ended a step."""
        with self._going_on():
            self.writer.name_optimizers(step, names)

    def note(self, key: str, value: Any) -> None:
        """Add to the trace's provenance."""
        with self._going_on():
            self.writer.note(key, value)

    def close(self, state: str) -> None:
        """Close the trace: 'complete' or 'truncated'."""
        self._write_waiting()
        with self._going_on():
            self.writer.close("truncated" if self.full else state)

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        try:
            yield
        except TraceFull as error:
            if self.full is None:
                self.full = error.cause
                say(f"{error.cause}: training goes on, the trace ends here")
