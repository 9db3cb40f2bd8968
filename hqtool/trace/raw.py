"""A trace's datasets as the file holds them; whether they can be trusted is decided elsewhere."""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hqtool.errors import DataError, HqtoolError, UsageError
from hqtool.trace.channel_extremes import extremes_before
from hqtool.trace.hdf5_files import ClosedAtEnd, open_to_read, reason
from hqtool.trace.sample_layout import bytes_after_head, layout_from
from hqtool.trace.schema import (
    COMMIT,
    CRC_BYTES,
    DATASETS,
    ELEMENT_NAMES,
    ELEMENTS,
    FIBRES,
    FORMAT,
    LAYOUT_HEAD,
    STATES,
    UNIFORM,
    WHOLE,
    Row,
)
from hqtool.trace.used_range import used_before
from hqtool.vocab import SampleLayout, UsedRange

#: Rows read at a time, about 10 MB.
BLOCK_ROWS = 1 << 16

#: A payload of no more bytes is held in memory: that of small tensors, where each read counts.
SHORT_PAYLOAD = 1 << 23


class RawTrace(ClosedAtEnd):
    """One trace, open for reading: also while it is written, or after its writer was killed.

    A context manager. On a damaged file its methods raise whatever HDF5 raises, or a ValueError:
    `damage_as_data_error` turns that into a DataError.

    Args:
        path: the trace.

    Raises:
        DataError: there is no such file, or HDF5 cannot open it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._file = open_to_read(self.path)
        self._datasets: dict[str, Any] = {}
        self._short_payload: NDArray[Any] | None = None

    def close(self) -> None:
        """Close the file; nothing can be read any more."""
        self._file.close()

    def cut_short(self) -> bool:
        """Whether the file is shorter than HDF5 recorded in it."""
        size: int = self._file.id.get_filesize()
        return size > os.path.getsize(self.path)

    def require_open(self) -> None:
        """Raise a UsageError once the trace is closed."""
        if not self._file:
            raise UsageError(f"{self.path} is closed", "read it before closing it")

    def format(self) -> str:
        """The trace's format.

        Raises:
            DataError: it is not a trace, or of another format than this hqtool reads.
        """
        attribute = self._file.attrs.get("format")
        name = attribute.decode("ascii", "replace") if isinstance(attribute, bytes) else ""
        if not name.startswith("hqtrace/"):
            raise DataError(
                f"{self.path}: an HDF5 file, but not a trace", "record one with hqtool capture"
            )
        if name != FORMAT:
            raise DataError(
                f"{self.path}: format {name}, this hqtool reads {FORMAT}", "use a newer hqtool"
            )
        return name

    def state(self) -> str:
        """One of STATES."""
        state: str = self._file["state"][0].decode("ascii", "replace")
        if state not in STATES:
            raise ValueError(f"its state is {state!r}")
        return state

    def commits(self, state: str) -> NDArray[Any]:
        """The commit records, without a last one that its writer did not finish.

        Args:
            state: the trace's, read before: a live writer may close it in between.

        Raises:
            DataError: there is no finished commit.
        """
        commits = self.items("commits", 0, self.length("commits"))
        if state == "open" and not commits["crc"][-1:].all():
            commits = commits[:-1]
        if not commits.size:
            raise DataError(f"{self.path}: recording was cut before it began", "record it again")
        return commits

    def length(self, name: str) -> int:
        """How many items a dataset has, those that no commit covers included."""
        length: int = self._dataset(name).shape[0]
        return length

    def items(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Items start:stop of a dataset, by h5py's low-level calls, which are faster."""
        dataset = self._dataset(name)
        items = np.empty(stop - start, DATASETS[name][0])
        if items.size:
            memory = h5py.h5s.create_simple(items.shape)
            place = dataset.id.get_space()
            place.select_hyperslab((start,), items.shape)
            dataset.id.read(memory, place, items)
        return items

    def blocks(self, name: str, start: int, stop: int) -> Iterator[NDArray[Any]]:
        """Items start:stop of a dataset, at most BLOCK_ROWS at a time."""
        for first in range(start, stop, BLOCK_ROWS):
            yield self.items(name, first, min(stop, first + BLOCK_ROWS))

    def bits(self, row: Row, payload: int) -> NDArray[Any]:
        """The values of a row that keeps some, as stored: 1-D, checked against their checksum.

        Args:
            payload: bytes of the payload that are committed.
        """
        dtype = ELEMENTS[ELEMENT_NAMES[row.element]]
        stop = row.offset + row.size * dtype.itemsize
        if not 0 <= row.offset <= stop <= payload:
            raise ValueError("values outside the payload")
        stored = self._payload(row.offset, stop, payload)
        require_crc("values", zlib.crc32(stored.data), row.crc)
        return stored.view(dtype)

    def layout(self, row: Row, numel: int, payload: int) -> SampleLayout | None:
        """How a row's sample lies in its tensor, its extremes as stored; its checksum is checked.

        Args:
            numel: elements of the full tensor.
            payload: bytes of the payload that are committed.

        Returns:
            None where the row keeps no layout.

        Raises:
            DataError: the layout is of a kind that this hqtool does not know.
        """
        if row.sampled in (WHOLE, UNIFORM):
            return None
        if row.sampled != FIBRES:
            cause = f"{self.path}: values are laid out in a way (number {row.sampled}) unknown here"
            raise DataError(cause, "use a newer hqtool")
        dtype = ELEMENTS[ELEMENT_NAMES[row.element]]
        start = row.offset + row.size * dtype.itemsize
        head = self._payload_bytes(start, LAYOUT_HEAD.size, payload)
        rest = self._payload_bytes(
            start + LAYOUT_HEAD.size, bytes_after_head(head, dtype, row.size, numel), payload
        )
        return layout_from(head, rest, dtype, row.size, numel)

    def channel_extremes(self, row: Row, payload: int) -> NDArray[np.float64] | None:
        """The extremes of each channel, (2, channels); their checksum is checked.

        Args:
            row: of a trace that stores them.
            payload: bytes of the payload that are committed.

        Returns:
            None where they are not known.
        """

        def read(start: int, end: int) -> bytes:
            return self._payload_bytes(start, end - start, payload)

        return extremes_before(row.offset, read)

    def used_range(self, row: Row, payload: int, *, extremes: bool) -> UsedRange | None:
        """What quantized a record's tensor; its checksum is checked.

        Args:
            row: of a trace that stores it.
            payload: bytes of the payload that are committed.
            extremes: the trace stores the extremes of channels, too.

        Returns:
            None where it was not quantized.
        """

        def read(start: int, end: int) -> bytes:
            return self._payload_bytes(start, end - start, payload)

        return used_before(row.offset, read, extremes=extremes)

    def _payload_bytes(self, start: int, size: int, payload: int) -> bytes:
        if not 0 <= start <= start + size <= payload:
            raise ValueError("a layout or extremes outside the payload")
        return self._payload(start, start + size, payload).tobytes()

    def _payload(self, start: int, stop: int, payload: int) -> NDArray[Any]:
        """Bytes of the payload, the caller's own; a short payload is read whole, once."""
        if payload > SHORT_PAYLOAD:
            return self.items("payload", start, stop)
        if self._short_payload is None or self._short_payload.size != payload:
            try:
                self._short_payload = self.items("payload", 0, payload)
            except OSError:  # damaged somewhere: not necessarily there
                return self.items("payload", start, stop)
        return self._short_payload[start:stop].copy()

    def _dataset(self, name: str) -> Any:
        if name not in self._datasets:
            dataset = self._file[name]
            if dataset.dtype != DATASETS[name][0]:
                raise ValueError(f"/{name} has items of another type")
            self._datasets[name] = dataset
        return self._datasets[name]


def intact(commits: NDArray[Any]) -> bool:
    """Whether every commit record matches its checksum."""
    data, size = commits.tobytes(), COMMIT.itemsize
    heads = (data[start : start + size - CRC_BYTES] for start in range(0, len(data), size))
    return bool(np.array_equal(commits["crc"], [zlib.crc32(head) for head in heads]))


def require_crc(what: str, found: int, recorded: int) -> None:
    """Raise a ValueError unless two checksums are the same."""
    if found != recorded:
        raise ValueError(f"{what} do not match their checksum")


@contextlib.contextmanager
def damage_as_data_error(path: str, remedy: Callable[[], str]) -> Iterator[None]:
    """Turn any failure to read a trace into a DataError with this remedy: the file is damaged."""
    try:
        yield
    except HqtoolError:
        raise
    except Exception as error:
        raise DataError(f"{path}: the trace is damaged ({reason(error)})", remedy()) from error
