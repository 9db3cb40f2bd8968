"""Writing a trace."""

from __future__ import annotations

import atexit
import contextlib
import functools
import operator
import os
import shutil
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Concatenate, NoReturn, ParamSpec

import numpy as np
from numpy.typing import NDArray

from hqtool.errors import DataError, HqtoolError, UsageError
from hqtool.file_lock import hold
from hqtool.trace import hdf5_files
from hqtool.trace.appender import Appender
from hqtool.trace.channel_extremes import extremes_bytes
from hqtool.trace.content import Content, content_of
from hqtool.trace.detach import detach, detach_in_children, detached, forget, is_behind
from hqtool.trace.journal import Journal
from hqtool.trace.keys import Key, Keys
from hqtool.trace.schema import (
    COMMIT_LAYOUT,
    CRC_BYTES,
    DATASETS,
    ELEMENT_NAMES,
    FORMAT,
    NO_STEP,
    ROW_LAYOUT,
    STATE,
    Commit,
    Row,
)
from hqtool.trace.used_range import used_bytes
from hqtool.version import __version__
from hqtool.vocab import TENSOR_KINDS, SampleLayout, Site, Stats, UsedRange

#: Free disk space, in bytes, below which recording stops: it is left to the training run.
RESERVE_BYTES = 256 << 20

#: The same where nothing is being trained: enough that no write of HDF5 fails.
MARGIN_BYTES = 8 << 20

#: Items that a dataset's buffer holds: 4 MiB of values, 600 KB of rows.
BUFFER_ITEMS = {"payload": 4 << 20, "rows": 4096, "journal": 1 << 16, "commits": 1}

_Params = ParamSpec("_Params")


class TraceFull(HqtoolError):
    """The disk is (nearly) full: recording must stop; what was committed stays readable.

    From then on the writer refuses to write, and `close` marks the trace truncated.
    """


def _exclusive(
    method: Callable[Concatenate[TraceWriter, _Params], None],
) -> Callable[Concatenate[TraceWriter, _Params], None]:
    """Let a method run in one thread at a time; in a forked child do nothing instead of it.

    Once the trace is closed or the disk full, it raises an error.
    """

    @functools.wraps(method)
    def guarded(self: TraceWriter, /, *args: _Params.args, **kwargs: _Params.kwargs) -> None:
        if self._is_own_process():
            with self._lock, self._stopping_when_full:
                self._require_usable()
                method(self, *args, **kwargs)

    return guarded


class _StoppingWhenFull:
    """Remembers that the disk is full, which a failed write is taken for.

    Attributes:
        full: the error to raise from then on.
        failed: HDF5 could not write.

    Args:
        path: the trace.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self.full: TraceFull | None = None
        self.failed = False

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, TraceFull):
            self.full = error
        elif isinstance(error, OSError | RuntimeError):
            self._write_failed(error)

    def _write_failed(self, error: Exception) -> NoReturn:
        self.failed, why = True, hdf5_files.reason(error)
        self.full = TraceFull(f"{self._path}: writing failed ({why})", "check disk and quota")
        raise self.full from error


class TraceWriter(hdf5_files.ClosedAtEnd):
    """Records a training run into one trace file, `hqtrace/1` (see `schema`).

    What is written becomes durable at `commit`: from then on it survives the death of the process
    at any instant (not a power cut: nothing is forced through the operating system's cache).
    Memory stays bounded however rarely one commits. Several threads may share a writer. In a
    forked child its methods do nothing: the trace belongs to the process that opened it. A writer
    still open when the interpreter exits is closed as truncated.

    Args:
        path: the file to create; readers may open it at once.
        force: replace an existing file, as soon as the new one is readable.
        run: provenance, a JSON-safe mapping.
        reserve_bytes: free disk space to leave untouched.
        channel_extremes: keep the extremes of each channel, where `write` is given them.
        used_ranges: keep what quantized each tensor, where `write` is given it.

    Raises:
        UsageError: the file exists (without `force`) or cannot be created, or `run` is not JSON.
        TraceFull: less than the reserve is free.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        force: bool = False,
        run: Mapping[str, Any] | None = None,
        reserve_bytes: int = RESERVE_BYTES,
        channel_extremes: bool = False,
        used_ranges: bool = False,
    ) -> None:
        self._path = os.path.realpath(path)
        self._reserve_bytes = reserve_bytes
        self._has_channel_extremes = channel_extremes
        self._has_used_ranges = used_ranges
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._stopping_when_full = _StoppingWhenFull(self._path)
        self._closed = False
        self._keys = Keys(self._past_keys)
        self._last = Commit(NO_STEP, 0, 0, 0, 0, 0)
        self._open_step = NO_STEP  # the latest step written since the last commit
        self._steps_committed = 0
        self._create(force, dict(run or {}))

    @property
    def path(self) -> str:
        """The trace's absolute path."""
        return self._path

    @property
    def steps_committed(self) -> int:
        """How many commits were made."""
        return self._steps_committed

    @property
    def bytes_written(self) -> int:
        """Size of the file so far; the last one known where nothing leads to it any more."""
        for where in (self._descriptor, self._path):
            with contextlib.suppress(OSError):
                found = os.stat(where)
                if os.path.samestat(found, self._born):
                    self._size = found.st_size
                    break
        return self._size

    @property
    def place(self) -> str | None:
        """The absolute path where the trace is now; None where it is deleted.

        A program may delete, move or replace the file while it is being written.
        """
        if not self._closed:
            self._place = hdf5_files.place_of(self._born, self._path, self._descriptor)
        return self._place

    @_exclusive
    def write(
        self,
        layer: str,
        tensor: str,
        step: int,
        values: Any,
        micro: int = 0,
        call: int = 0,
        *,
        stats: Stats | None = None,
        shape: tuple[int, ...] | None = None,
        sampled: bool = False,
        dtype: str | None = None,
        loss_scale: float = 1.0,
        flags: int = 0,
        layout: SampleLayout | None = None,
        channel_extremes: NDArray[Any] | None = None,
        used: UsedRange | None = None,
    ) -> None:
        """Record one tensor; its values are copied.

        Args:
            layer: the module's qualified name.
            tensor: one of TENSOR_KINDS.
            step, micro, call: the training step, the micro-batch in it, the layer's call in that.
            values: float16, float32, float64 or bfloat16 in any shape; None: statistics only.
            stats: of the full tensor; computed from `values` unless given.
            shape: of the full tensor; that of `values` unless given.
            sampled: `values` is a 1-D sample of the tensor; needs `stats` and `shape`.
            dtype: "bfloat16" takes a uint16 array for raw bfloat16 bits.
            loss_scale: factor that a recorded gradient still carries.
            flags: 32 bits free for the recorder.
            layout: where a sample lies in its tensor; its extremes are of the values' type.
            channel_extremes: (2, channels), the lowest and the highest finite value of each channel
                of the full tensor; NaN where it has none. float32 or float64.
            used: what quantized the tensor in training; the rest is of the tensor before.

        Raises:
            UsageError: an argument out of bounds, or stats or shape missing; or extremes of
                channels or a range used, in a trace that was not opened for them.
            DataError: values of another type or number, or a record written before.
            TraceFull: the disk is nearly full, or writing failed.
        """
        _check_site(layer, tensor)
        key = _index(step), _index(micro), _index(call)
        try:
            content = content_of(values, dtype, stats, shape, sampled, layout)
            content = content._replace(
                extremes=self._extremes(channel_extremes), used=self._used(used)
            )
            loss_scale, flags = float(loss_scale), _flags(flags)
            site = self._journal.site_number(layer, tensor)
            row = self._row(site, key, content, loss_scale, flags)
            self._take_key(site, *key)
        except (DataError, UsageError) as error:
            where = f"{self._path}: {Site(layer, tensor)} at step {step}"
            raise type(error)(f"{where}: {error.cause}", error.remedy) from None
        if content.used or content.extremes:
            self._payload.append(content.used + content.extremes)
        if content.stored.size:
            self._payload.append(content.stored.view(np.uint8).data)
        if content.layout:
            self._payload.append(content.layout)
        self._rows.append(row)
        self._open_step = max(self._open_step, key[0])

    @_exclusive
    def describe(self, layer: str, geometry: Mapping[str, Any]) -> None:
        """Record a layer's geometry, a JSON-safe mapping; a later one replaces it."""
        self._journal.enter("geometry", layer, dict(geometry))

    @_exclusive
    def name_classes(self, layer: str, names: Sequence[str]) -> None:
        """Record the names of a layer's class and of those it derives from; see `describe`."""
        self._journal.enter("classes", layer, list(names))

    @_exclusive
    def note(self, key: str, value: Any) -> None:
        """Add an entry, JSON-safe, to the run's provenance; a later one of that key replaces it."""
        self._journal.enter("note", key, value)

    @_exclusive
    def name_optimizers(self, step: int, names: Sequence[str]) -> None:
        """Record which optimizers ended a step; it holds for later steps until the next call."""
        self._journal.enter("optimizers", _index(step), list(names))

    @_exclusive
    def commit(self, step: int) -> None:
        """Make everything written so far durable.

        Raises:
            UsageError: `step` is not a non-negative integer.
            TraceFull: the disk is nearly full (nothing was written then), or writing failed.
        """
        self._commit(_index(step))

    def close(self, state: str = "complete") -> None:
        """Commit what is pending and close the file; closing again does nothing.

        Args:
            state: "complete", or "truncated" where recording was cut short.

        Raises:
            UsageError: another state.
            TraceFull: the disk is too full to commit what is pending; the trace is closed,
                truncated. Not raised where truncation was asked for.
        """
        if state not in ("complete", "truncated"):
            raise UsageError(f"unknown closing state: {state}", "complete or truncated")
        if self._is_own_process():
            with self._lock:
                self._close(state)

    def _leave(self, *, complete: bool) -> None:
        self.close("complete" if complete else "truncated")

    # Opening

    def _create(self, force: bool, run: dict[str, Any]) -> None:
        """Make the file with its provenance; only then may it replace another, by `force`."""
        hdf5_files.require_folder(self._path)
        self._require_space(0)
        replace = force and os.path.exists(self._path)
        first_path = f"{self._path}.{self._pid}.new" if replace else self._path
        self._file: Any = hdf5_files.create(first_path, replace=replace)
        self._descriptor = self._file.id.get_vfd_handle()
        self._born = os.fstat(self._descriptor)
        self._size, self._place = self._born.st_size, None
        hold(self._descriptor)
        try:
            with self._stopping_when_full:
                self._begin(run)
                hold(self._descriptor)  # again: beginning SWMR frees all locks on some systems
                if replace:
                    hdf5_files.rename(first_path, self._path)
        except BaseException:
            self._close_file()
            os.unlink(first_path)
            raise
        self._protect()

    def _begin(self, run: dict[str, Any]) -> None:
        """Lay the file out and make the provenance readable."""
        _lay_out(self._file)
        self._state_offset: int = self._file["state"].id.get_offset()
        self._payload = self._appender("payload", checksum=False)
        self._rows = self._appender("rows")
        self._lines = self._appender("journal")
        self._commits = self._appender("commits", checksum=False)
        self._journal = Journal(self._lines)
        for key, value in run.items():
            self._journal.enter("note", key, value)
        if self._has_channel_extremes:
            self._journal.enter("extremes", "channel")
        if self._has_used_ranges:
            self._journal.enter("ranges", "used")
        self._commit(NO_STEP)

    def _appender(self, name: str, *, checksum: bool = True) -> Appender:
        dataset, capacity = self._file[name], BUFFER_ITEMS[name]
        return Appender(dataset, capacity, self._require_space, checksum=checksum)

    def _protect(self) -> None:
        """See that the trace is closed at exit, and that no forked child writes to it."""
        detach_in_children(self._descriptor)
        atexit.register(self.close, "truncated")

    # Recording

    def _extremes(self, extremes: NDArray[Any] | None) -> bytes:
        """The extremes of channels as they are stored."""
        if self._has_channel_extremes:
            return extremes_bytes(extremes)
        if extremes is not None:
            cause = "this trace does not keep the extremes of channels"
            raise UsageError(cause, "open it with channel_extremes=True")
        return b""

    def _used(self, used: UsedRange | None) -> bytes:
        """What quantized the tensor, as it is stored."""
        if self._has_used_ranges:
            return used_bytes(used)
        if used is not None:
            cause = "this trace does not keep the ranges used"
            raise UsageError(cause, "open it with used_ranges=True")
        return b""

    def _row(
        self,
        site: int,
        key: tuple[int, int, int],
        content: Content,
        loss_scale: float,
        flags: int,
    ) -> bytes:
        """The row of a record, as it is stored; its content must be appended next."""
        row = Row(
            *key,
            site=site,
            shape=self._journal.shape_number(content.shape),
            flags=flags,
            sampled=content.sampled,
            element=ELEMENT_NAMES.index(content.element),
            loss_scale=loss_scale,
            offset=self._payload.end + len(content.used) + len(content.extremes),
            size=content.stored.size,
            crc=zlib.crc32(content.stored.data),
            stats=content.stats,
        )
        try:
            return ROW_LAYOUT.pack(*row[:-1], *row.stats)
        except (struct.error, TypeError) as error:
            cause = f"{row.stats} are not statistics ({error})"
            raise UsageError(cause, "give Stats of numbers, its counts as integers") from error

    def _take_key(self, site: int, step: int, micro: int, call: int) -> None:
        if not self._keys.take((site, step, micro, call)):
            raise DataError(
                f"micro-batch {micro}, call {call} was recorded before",
                "number repeated calls within a step by call=",
            )

    def _past_keys(self) -> Iterator[Key]:
        """The key of every record so far, from the file."""
        self._require_space(self._rows.pending_bytes)
        rows = self._rows.read_back()
        columns = [rows[name].tolist() for name in ("site", "step", "micro", "call")]
        return zip(*columns, strict=True)

    # Committing

    def _commit(self, step: int) -> None:
        """Write all that is buffered, and then the commit record that covers it."""
        covered = (self._payload, self._rows, self._lines)
        self._require_space(sum(appender.pending_bytes for appender in covered))
        for appender in covered:
            appender.flush()
        self._file.flush()
        commit = self._covering(step)
        self._commits.append(COMMIT_LAYOUT.pack(*commit))
        self._commits.flush()
        self._file.flush()
        self._last, self._open_step = commit, NO_STEP
        self._steps_committed += step != NO_STEP

    def _covering(self, step: int) -> Commit:
        """The commit record of everything appended so far."""
        ends = (self._rows.end, self._payload.end, self._lines.end)
        return _sealed(Commit(step, *ends, self._rows.crc, self._lines.crc))

    def _require_space(self, coming_bytes: int) -> None:
        """Stop while HDF5 can still write: a failed write may make it crash the process."""
        self._require_descriptor()
        free_bytes = shutil.disk_usage(os.path.dirname(self._path)).free
        if free_bytes < self._reserve_bytes + coming_bytes:
            raise TraceFull(
                f"{self._path}: only {free_bytes >> 20} MiB are free there "
                f"and {self._reserve_bytes >> 20} MiB stay untouched",
                "free some space, or write to another disk",
            )

    def _require_descriptor(self) -> None:
        """Stop where the program has closed the descriptor: its number may be another file's."""
        if hasattr(self, "_born") and not is_behind(self._born, self._descriptor):
            cause = f"{self._path}: the program has closed its file descriptor"
            raise TraceFull(cause, "let the program close only the files that it has opened")

    # Ending

    def _close(self, state: str) -> None:
        if self._closed:
            return
        lost = self._commit_rest()
        self._finish("truncated" if self._stopping_when_full.full else state)
        if lost and state == "complete":
            raise lost

    def _commit_rest(self) -> TraceFull | None:
        """Commit what no commit covers yet; the error if that fails."""
        pending = (self._rows.end, self._lines.end) != (self._last.rows, self._last.journal)
        if self._stopping_when_full.full or not pending:
            return None
        try:
            with self._stopping_when_full:
                self._commit(self._open_step)
        except TraceFull as error:
            return error
        return None

    def _finish(self, state: str) -> None:
        _ = self.place  # look for the last time: it is remembered
        self._closed = True
        atexit.unregister(self.close)
        forget(self._descriptor)
        self._set_state(state)
        self._close_file()

    def _set_state(self, state: str) -> None:
        """Write the state without HDF5, which crashes where the write fails."""
        if not is_behind(self._born, self._descriptor):
            return
        item = state.encode().ljust(STATE.itemsize, b"\0")
        try:
            os.pwrite(self._descriptor, item, self._state_offset)
        except OSError:
            self._stopping_when_full.failed = True

    def _close_file(self) -> None:
        """Close the file; after a failed write, leave it as a killed process would."""
        with contextlib.suppress(OSError, RuntimeError), contextlib.ExitStack() as stack:
            if not is_behind(self._born, self._descriptor):
                stack.enter_context(detached(self._descriptor))
            elif self._stopping_when_full.failed:
                detach(self._descriptor)
            self._file.close()

    # Guards

    def _is_own_process(self) -> bool:
        return os.getpid() == self._pid

    def _require_usable(self) -> None:
        if full := self._stopping_when_full.full:
            raise TraceFull(full.cause, full.remedy)
        if self._closed:
            raise UsageError(f"{self._path}: the trace is closed", "write before closing it")


def _lay_out(file: Any) -> None:
    """Create all that a trace holds, and begin SWMR.

    Without fill values the unwritten rest of a chunk is a hole that takes no disk space.
    """
    file.attrs["format"] = np.bytes_(FORMAT)
    file.attrs["hqtool"] = np.bytes_(__version__)
    file.create_dataset("state", data=np.array(["open"], STATE))
    for name, (dtype, chunk) in DATASETS.items():
        file.create_dataset(name, (0,), dtype, chunks=(chunk,), maxshape=(None,), fill_time="never")
    file.swmr_mode = True


def _sealed(commit: Commit) -> Commit:
    """The commit with its own checksum."""
    return commit._replace(crc=zlib.crc32(COMMIT_LAYOUT.pack(*commit)[:-CRC_BYTES]))


def _check_site(layer: str, tensor: str) -> None:
    if tensor not in TENSOR_KINDS:
        raise UsageError(f"no such tensor kind: {tensor}", f"one of {', '.join(TENSOR_KINDS)}")
    if not isinstance(layer, str):
        raise UsageError(f"{layer!r} is not a layer name", "give a string")


def _index(number: int) -> int:
    """A step, micro-batch or call number."""
    try:
        index = operator.index(number)
    except TypeError:
        index = -1
    if not 0 <= index < 1 << 63:
        raise UsageError(
            f"{number!r} is not a step, micro-batch or call number", "count from 0 in integers"
        )
    return index


def _flags(flags: int) -> int:
    if not 0 <= operator.index(flags) < 1 << 32:
        raise UsageError(f"flags {flags} are not 32 bits", "give a number from 0 to 2**32 - 1")
    return flags
