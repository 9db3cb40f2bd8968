"""From tensors to a trace: what is recorded of each, and how failures are kept from training."""

from __future__ import annotations

import collections
import functools
import itertools
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hqtool.capture.background import Background
from hqtool.capture.budget import Budget
from hqtool.capture.channels import channel_extremes
from hqtool.capture.sampling import sample_bytes, sampled_values
from hqtool.capture.settings import CaptureSettings
from hqtool.capture.tensors import (
    KeptValues,
    all_values,
    deferred_stats,
    stats_of_tensor,
    stats_of_vector,
    widened,
)
from hqtool.launch.stderr_lines import say
from hqtool.sizes import binary_bytes
from hqtool.trace.writer import TraceFull, TraceWriter
from hqtool.vocab import Site, Stats
from hqtool.watch.position import Position
from hqtool.watch.tensor_types import dense_of

#: How much data may wait to be written; beyond it, training waits.
QUEUE_BYTES = 256 << 20

NO_VALUES = KeptValues(None, None)


class TensorReading(NamedTuple):
    """What was read of a tensor: a record without its site and position.

    Args:
        stats: of the whole tensor; on an accelerator a vector of them that has to be fetched.
        extremes: of each channel, (2, channels), where they are recorded; still on the device.
    """

    shape: tuple[int, ...]
    values: KeptValues
    stats: Stats | Tensor
    device: str
    extremes: Tensor | None = None


class _PendingRecord(NamedTuple):
    """A record that is still to be written."""

    site: Site
    position: Position
    reading: TensorReading
    loss_scale: float


class Recorder:
    """Writes tensors to a trace. Whatever fails here, training goes on.

    A tensor is read when `read` is called, and written by another thread. `commit` waits for that
    thread: once it returns, the step is safe in the trace. The data that waits to be written is
    bounded by QUEUE_BYTES; beyond it the caller waits.

    Statistics of tensors on an accelerator stay there until `commit` fetches all of a step's.

    Args:
        writer: an open trace.
        settings: what to record.
        on_commit: called after each committed step.

    Attributes:
        active: False once the trace is full or closed, or its budget is spent.
        budget: how large the trace may grow.
        sites, devices: what was recorded so far, and where its tensors were.
        failed: what could not be recorded at least once → the first reason.
        without_geometry: layers whose geometry is unknown, and why.
        steps, steps_with_values: how many steps were committed, and kept values.
        records, value_bytes: how many records were made, and the size of their values.
        extremes_bytes: the size of the extremes of their channels.
        busy_seconds: what training threads spent here, and in guarded blocks.
    """

    def __init__(
        self,
        writer: TraceWriter,
        settings: CaptureSettings,
        on_commit: Callable[[Recorder], None] = lambda recorder: None,
    ) -> None:
        self.writer = writer
        self.settings = settings
        self.active = True
        self.budget = Budget(settings.budget_bytes, settings.every)
        self.sites: set[Site] = set()
        self.devices: set[str] = set()
        self.failed: dict[str, str] = {}
        self.without_geometry: dict[str, str] = {}
        self.steps = 0
        self.steps_with_values = 0
        self.records = 0
        self.value_bytes = 0
        self.extremes_bytes = 0
        self.busy_seconds = 0.0
        self._on_commit = on_commit
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._background = Background(QUEUE_BYTES)
        self._began = time.perf_counter()
        self._deferred: list[_PendingRecord] = []  # statistics have to be fetched first
        self._full: TraceFull | None = None
        self._last_step = -1  # the last one committed
        self._latest_step = -1  # the latest one of all records
        self._read = 0  # how many tensors were read in the current step
        self._step_read = -1
        self._kept_values = False  # in the current step
        self._described: set[str] = set()
        self._counts: collections.Counter[str] = collections.Counter()
        self._asked: dict[str, bool] = {}
        self._guards = 0  # how many are entered
        self._guarded_since = 0.0

    @property
    def waited_seconds(self) -> float:
        """For how long training waited until the trace was written; part of `busy_seconds`."""
        return self._background.waited_seconds

    @property
    def waited_share(self) -> float:
        """`waited_seconds` as a share of all time so far."""
        return self.waited_seconds / (time.perf_counter() - self._began)

    @property
    def kinds(self) -> Collection[str]:
        """The tensor kinds that are recorded."""
        return self.settings.tensors

    @property
    def unfinished_step(self) -> int | None:
        """The step that has records, but did not end; None where the last one did."""
        return self._latest_step if self._latest_step > self._last_step else None

    def asks_for(self, layer: str) -> bool:
        """Whether a layer is to be recorded."""
        asked = self._asked.get(layer)
        if asked is None:
            self._asked[layer] = asked = self.settings.wants(layer)
        return asked

    def read(
        self, tensor: Tensor, step: int, channel_axis: int = -1, entry_axis: int | None = None
    ) -> TensorReading | Exception | None:
        """A tensor's statistics, and its values where they are due; see `Listener`.

        None in a forked child, and for a tensor without floating-point values.
        """
        if not self.active or os.getpid() != self._pid:
            return None
        if self._full:
            raise self._full
        try:
            return self._reading(tensor, step, channel_axis, entry_axis)
        except Exception as error:
            return error

    def _reading(
        self, tensor: Tensor, step: int, channel_axis: int, entry_axis: int | None
    ) -> TensorReading | None:
        if not (tensor.is_floating_point() and tensor.numel()):
            return None
        tensor = widened(dense_of(tensor))
        values = self._values(step, tensor, channel_axis)
        stats = stats_of_tensor(tensor) if _is_on_cpu(tensor) else deferred_stats(tensor)
        axis = channel_axis if entry_axis is None else entry_axis
        extremes = channel_extremes(tensor, axis) if self.settings.per_channel else None
        return TensorReading(tuple(tensor.shape), values, stats, tensor.device.type, extremes)

    def record(
        self,
        site: Site,
        position: Position,
        reading: TensorReading | Exception,
        loss_scale: float = 1.0,
    ) -> None:
        """Record what was read of a tensor, or that it could not be read."""
        if not self.active or os.getpid() != self._pid:
            return
        if isinstance(reading, Exception):
            self._failed(site, reading)
            return
        row = _PendingRecord(site, position, reading, loss_scale)
        if isinstance(reading.stats, Tensor):
            self._deferred.append(row)
        else:
            self._put(row, reading.stats)
        self._latest_step = max(self._latest_step, position.step)
        self._kept_values = self._kept_values or reading.values.array is not None
        self.sites.add(site)
        self.devices.add(reading.device)

    def describe(
        self, layer: str, geometry: Callable[[], Mapping[str, Any]], classes: tuple[str, ...] = ()
    ) -> None:
        """Write a layer's geometry and classes, once."""
        if layer not in self._described:
            self._described.add(layer)
            with self.guard("geometry"):
                try:
                    if classes:
                        self.writer.name_classes(layer, classes)
                    self.writer.describe(layer, geometry())
                except TraceFull:
                    raise
                except Exception as error:
                    self.without_geometry[layer] = _error_text(error)

    def note(self, notes: Mapping[str, Any]) -> None:
        """Add all notes that are not empty to the trace's provenance."""
        with self.guard("notes"):
            for key, value in notes.items():
                if value:
                    self.writer.note(key, value)

    def name_optimizers(self, step: int, names: tuple[str, ...]) -> None:
        """Record which optimizers ended a step; it holds for later steps until the next call."""
        with self.guard("optimizers"):
            self.writer.name_optimizers(step, names)

    def commit(self, step: int) -> None:
        """Make all records of a step durable; it may be committed again, with more records."""
        if not self.active or os.getpid() != self._pid:
            return
        if not self.steps:
            self.note({"torch": torch_state(self.devices)})
        with self.guard("commit"):
            self._fetch()
            self._send("commit", functools.partial(self.writer.commit, step))
            self._background.drain()
            if self._full:
                raise self._full
            self._committed(step)

    def count(self, event: str, number: int = 1) -> None:
        """Count an event; `close` notes the counts in the trace."""
        self._counts[event] += number

    def close(self, state: str) -> None:
        """Write the last notes and close the trace; it is truncated where it became full.

        Args:
            state: as `TraceWriter.close` takes it.
        """
        if os.getpid() == self._pid:
            with self.guard("close"):
                self._fetch()
                self._background.stop()
                if self._full:
                    raise self._full
            self.note(dict(sorted(self._counts.items())))
            self.note({"failed": self.failed, "without_geometry": self.without_geometry})
            with self.guard("close"):
                self.writer.close(state if self.active else "truncated")
        self.active = False

    def guard(self, what: Site | str) -> _Guard:
        """A context manager that keeps failures of a block from training, one thread at a time.

        Args:
            what: what the trace names as failed if the block fails.
        """
        return _Guard(self, what)

    # Reading

    def _values(self, step: int, tensor: Tensor, channel_axis: int) -> KeptValues:
        """All values, a sample of them, or none.

        Args:
            step: the step the tensor belongs to, if it is going to be recorded.
        """
        settings = self.settings
        whole, count = tensor.numel() * tensor.element_size(), settings.max_elements
        is_sampled = not settings.full and tensor.numel() > count
        nbytes = sample_bytes(tensor, count, channel_axis) if is_sampled else whole
        if not (self._keeps_values(step) and self.budget.admits(nbytes)):
            return NO_VALUES
        if not is_sampled:
            return all_values(tensor)
        key = self._sample_key(step)
        return sampled_values(tensor, count, settings.seed, key, channel_axis)

    def _sample_key(self, step: int) -> str:
        """A key of this tensor alone: its name is not known yet when it is read."""
        if step != self._step_read:
            self._step_read, self._read = step, 0
        self._read += 1
        return f"{step}/{self._read}"

    def _keeps_values(self, step: int) -> bool:
        settings = self.settings
        return settings.keeps_values(step) and step % self.budget.every < settings.burst

    # Writing

    def _fetch(self) -> None:
        """Fetch deferred statistics, in one transfer from each device, and write their records."""
        deferred, self._deferred = self._deferred, []
        by_device: dict[torch.device, list[tuple[_PendingRecord, Tensor]]] = {}
        for row in deferred:
            vector = row.reading.stats
            assert isinstance(vector, Tensor)
            by_device.setdefault(vector.device, []).append((row, vector))
        for waiting in by_device.values():
            fetched = torch.stack([vector for _, vector in waiting]).tolist()
            rows = _with_fetched_extremes([row for row, _ in waiting])
            for row, vector in zip(rows, fetched, strict=True):
                self._put(row, stats_of_vector(vector))

    def _put(self, row: _PendingRecord, stats: Stats) -> None:
        site, position, reading, loss_scale = row
        values, extremes = reading.values, reading.extremes
        write = functools.partial(
            self.writer.write,
            site.layer,
            site.tensor,
            position.step,
            values.array,
            position.micro,
            position.call,
            stats=stats,
            shape=reading.shape,
            sampled=values.layout is not None,
            dtype=values.dtype,
            layout=values.layout,
            loss_scale=loss_scale,
            channel_extremes=None if extremes is None else extremes.numpy(),
        )
        nbytes = values.nbytes
        self.records += 1
        self.value_bytes += nbytes
        extremes_bytes = 0 if extremes is None else extremes.nbytes
        self.extremes_bytes += extremes_bytes
        self._send(site, write, nbytes + extremes_bytes)

    def _send(self, what: Site | str, call: Callable[[], None], nbytes: int = 0) -> None:
        self._background.put(functools.partial(self._attempt, what, call), nbytes)

    def _attempt(self, what: Site | str, call: Callable[[], None]) -> None:
        """Make a call in the background thread; a failure is noted, and a full trace remembered."""
        try:
            if not self._full:
                call()
        except TraceFull as full:
            self._full = full
        except Exception as error:
            self._failed(what, error)

    def _failed(self, what: Site | str, error: Exception) -> None:
        self.failed.setdefault(str(what), _error_text(error))

    # After a step

    def _committed(self, step: int) -> None:
        if step == self._last_step:
            return
        self._last_step = step
        self.steps += 1
        self.steps_with_values += self._kept_values
        self._kept_values = False
        self._spend(step)
        self._on_commit(self)

    def _spend(self, step: int) -> None:
        """Keep values less often, and at last stop recording, as the budget requires."""
        if self.budget.committed(step, self.writer.bytes_written):
            if len(self.budget.changes) == 1:
                self._say_values_are_rarer()
            self.writer.note("budget", self.budget.to_json())
        if self.budget.is_spent():
            self.writer.note("budget", self.budget.to_json() | {"spent_after_step": step})
            self._stop("the trace's budget is spent: --budget sets another")

    def _say_values_are_rarer(self) -> None:
        size = binary_bytes(self.budget.limit_bytes or 0)
        spacing = f"values now at every {self.budget.every} steps, fewer as the trace grows"
        say(f"{spacing}, to stay within --budget {size}")

    def _stop(self, cause: str) -> None:
        if self.active:
            say(f"recording stopped, training goes on: {cause}")
        self.active = False


def _with_fetched_extremes(rows: Sequence[_PendingRecord]) -> list[_PendingRecord]:
    """The records, the extremes of their channels fetched from their device in one transfer."""
    found = [row.reading.extremes for row in rows if row.reading.extremes is not None]
    if not found:
        return list(rows)
    wide = torch.promote_types(torch.float32, max(found, key=lambda e: e.element_size()).dtype)
    ends = list(itertools.accumulate(each.numel() for each in found))
    together = torch.cat([each.reshape(-1).to(wide) for each in found]).cpu()
    fetched = iter(torch.tensor_split(together, ends[:-1]))
    return [
        row
        if row.reading.extremes is None
        else row._replace(reading=row.reading._replace(extremes=next(fetched).reshape(2, -1)))
        for row in rows
    ]


class _Guard:
    """See `Recorder.guard`; the time in the outermost guard counts as busy."""

    __slots__ = ("_recorder", "_what")

    def __init__(self, recorder: Recorder, what: Site | str) -> None:
        self._recorder = recorder
        self._what = what

    def __enter__(self) -> None:
        recorder = self._recorder
        recorder._lock.acquire()
        if not recorder._guards:
            recorder._guarded_since = time.perf_counter()
        recorder._guards += 1

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        recorder = self._recorder
        try:
            if isinstance(error, TraceFull):
                recorder._stop(error.cause)
            elif isinstance(error, Exception):
                recorder._failed(self._what, error)
            return isinstance(error, Exception)
        finally:
            recorder._guards -= 1
            if not recorder._guards:
                recorder.busy_seconds += time.perf_counter() - recorder._guarded_since
            recorder._lock.release()


def _error_text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]


def _is_on_cpu(tensor: Tensor) -> bool:
    """Whether a tensor can be read without waiting for an accelerator."""
    return tensor.device.type == "cpu"


def torch_state(devices: set[str]) -> dict[str, Any]:
    """torch's seed, threads and devices, for the provenance; draws no random number."""
    return {
        "seed": torch.initial_seed(),
        "threads": torch.get_num_threads(),
        "devices": sorted(devices),
    }
