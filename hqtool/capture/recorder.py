"""From tensors to a trace: what is recorded of each, and what becomes of failures."""

from __future__ import annotations

import collections
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from hqtool.capture.budget import Budget
from hqtool.capture.clock import Position
from hqtool.capture.settings import Settings
from hqtool.capture.tensors import Values, all_values, sampled_values, stats_of_tensor
from hqtool.sizes import binary_bytes
from hqtool.trace.writer import TraceFull, TraceWriter
from hqtool.vocab import Site


class Recorder:
    """Writes tensors to a trace. Whatever fails here, training goes on.

    Args:
        writer: an open trace.
        settings: what to record.
        on_commit: called after each committed step.

    Attributes:
        active: False once the trace is full, its budget spent, or closed.
        budget: how large the trace may grow.
        loss_scale: factor that gradients carry at present.
        sites, devices: what was recorded so far, and where its tensors were.
        failed: what could not be recorded, and why.
        steps, steps_with_values: how many steps were committed, and kept values.
    """

    def __init__(
        self,
        writer: TraceWriter,
        settings: Settings,
        on_commit: Callable[[Recorder], None] = lambda recorder: None,
    ) -> None:
        self.writer = writer
        self.settings = settings
        self.active = True
        self.budget = Budget(settings.budget_bytes, settings.every)
        self.loss_scale = 1.0
        self.sites: set[Site] = set()
        self.devices: set[str] = set()
        self.steps = 0
        self.steps_with_values = 0
        self._on_commit = on_commit
        self._next_step = 0
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._described: set[str] = set()
        self.failed: dict[str, str] = {}
        self._counts: collections.Counter[str] = collections.Counter()

    def wants(self, site: Site) -> bool:
        """Whether a site is to be recorded, here and now; never in a forked child."""
        chosen = site.tensor in self.settings.tensors and self.settings.wants(site.layer)
        usable = self.active and str(site) not in self.failed
        return chosen and usable and os.getpid() == self._pid

    def record(
        self, site: Site, position: Position, tensor: Tensor, loss_scale: float = 1.0
    ) -> None:
        """Write a tensor's statistics, and its values where they are due, if wanted."""
        if not self.wants(site) or not tensor.is_floating_point() or not tensor.numel():
            return
        if position.step < self._next_step:  # its step is closed
            self.count("late_tensors")
            return
        with self.guard(str(site)):
            self._write(site, position, tensor, loss_scale)

    def describe(self, layer: str, geometry: Callable[[], dict[str, Any]]) -> None:
        """Write a layer's geometry, once."""
        if layer not in self._described:
            self._described.add(layer)
            with self.guard(f"{layer}: geometry"):
                self.writer.describe(layer, geometry())

    def note(self, notes: Mapping[str, Any]) -> None:
        """Write what is not empty into the trace's provenance."""
        with self.guard("notes"):
            for key, value in notes.items():
                if value:
                    self.writer.note(key, value)

    def commit(self, step: int) -> None:
        """Close a step: its records are safe from now on, and nothing is added to it."""
        if not self.active or os.getpid() != self._pid:
            return
        self._next_step = step + 1
        self.loss_scale = 1.0
        with self.guard("commit"):
            self.writer.commit(step)
            self.steps += 1
            self.steps_with_values += self._keeps_values(step)
            self._spend(step)
            self._on_commit(self)

    def count(self, event: str) -> None:
        """Count something that a note of the trace will tell."""
        self._counts[event] += 1

    def close(self, state: str) -> None:
        """Write the last notes and close the trace; truncated where it got full.

        Args:
            state: as `TraceWriter.close` takes it.
        """
        self.note(dict(sorted(self._counts.items())) | {"failed": self.failed})
        with self.guard("close"):
            self.writer.close(state if self.active else "truncated")
        self.active = False

    @contextmanager
    def guard(self, what: str) -> Iterator[None]:
        """Keep failures away from training, and threads from each other.

        Args:
            what: what fails if the block does: the trace names it.
        """
        with self._lock:
            try:
                yield
            except TraceFull as full:
                self._stop(full.cause)
            except Exception as error:
                self.failed[what] = f"{type(error).__name__}: {error}"[:200]

    def _write(self, site: Site, position: Position, tensor: Tensor, loss_scale: float) -> None:
        stats = stats_of_tensor(tensor)
        values = self._values(site, position, tensor)
        self.writer.write(
            site.layer,
            site.tensor,
            position.step,
            values.array,
            position.micro,
            position.call,
            stats=stats,
            shape=tuple(tensor.shape),
            sampled=values.sampled,
            dtype=values.dtype,
            loss_scale=loss_scale,
        )
        self.sites.add(site)
        self.devices.add(tensor.device.type)

    def _values(self, site: Site, position: Position, tensor: Tensor) -> Values:
        """All values, a sample of them, or none."""
        settings = self.settings
        kept = min(tensor.numel(), tensor.numel() if settings.full else settings.max_elements)
        fits = self._keeps_values(position.step) and self.budget.admits(
            kept * tensor.element_size()
        )
        if not fits:
            return Values(None, None, False)
        if kept == tensor.numel():
            return all_values(tensor)
        key = "/".join(map(str, (site, *position)))
        return sampled_values(tensor, settings.max_elements, settings.seed, key)

    def _keeps_values(self, step: int) -> bool:
        return self.settings.keeps_values(step) and step % self.budget.every == 0

    def _spend(self, step: int) -> None:
        """Thin out values, and at last end recording, as the budget tells."""
        if self.budget.committed(step, self.writer.bytes_written):
            if len(self.budget.changes) == 1:
                self._say_thinned()
            self.writer.note("budget", self.budget.to_json())
        if self.budget.is_spent():
            self.writer.note("budget", self.budget.to_json() | {"spent_after_step": step})
            self._stop("the trace's budget is spent: --budget sets another")

    def _say_thinned(self) -> None:
        size = binary_bytes(self.budget.limit_bytes or 0)
        spacing = f"values now at every {self.budget.every} steps, fewer as the trace grows"
        print(f"hqtool: {spacing}, to stay within --budget {size}", file=sys.stderr)

    def _stop(self, cause: str) -> None:
        if self.active:
            print(f"hqtool: recording stopped, training goes on: {cause}", file=sys.stderr)
        self.active = False
