"""An append-only HDF5 dataset with a buffer before it."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray


class _Extent(NamedTuple):
    """How much was appended. Replaced as a whole, so that an interrupt leaves it consistent."""

    written: int = 0  # bytes handed to HDF5; those in the buffer follow
    end: int = 0  # bytes appended
    crc: int = 0  # CRC-32 of the bytes appended


class Appender:
    """Appends items to a 1-D dataset in few, large writes.

    Args:
        dataset: an empty resizable 1-D dataset.
        capacity: how many items the buffer holds.
        before_write: called with the number of bytes about to be written when the buffer
            overflows; an exception that it raises prevents the write.
        checksum: keep `crc`, the CRC-32 of all items.
    """

    def __init__(
        self,
        dataset: Any,
        capacity: int,
        before_write: Callable[[int], object],
        *,
        checksum: bool = True,
    ) -> None:
        self._dataset = dataset
        self._dtype: np.dtype[Any] = dataset.dtype
        self._stored_type = dataset.id.get_type()  # h5py would make it again for each write
        self._buffer = memoryview(bytearray(capacity * self._dtype.itemsize))
        self._before_write = before_write
        self._checksum = checksum
        self._extent = _Extent()

    @property
    def end(self) -> int:
        """Items appended so far."""
        return self._extent.end // self._dtype.itemsize

    @property
    def crc(self) -> int:
        """CRC-32 of the items appended so far."""
        return self._extent.crc

    @property
    def pending_bytes(self) -> int:
        """Bytes in the buffer."""
        return self._extent.end - self._extent.written

    def append(self, items: bytes | memoryview) -> None:
        """Append a copy of the bytes of whole items."""
        data = memoryview(items)
        if len(data) + self.pending_bytes > len(self._buffer):
            self._before_write(self.pending_bytes + len(data))
            self.flush()
        written, end, crc = self._extent
        if len(data) > len(self._buffer):
            self._store(end, data)
            written = end + len(data)
        else:
            self._buffer[end - written : end - written + len(data)] = data
        crc = zlib.crc32(data, crc) if self._checksum else 0
        self._extent = _Extent(written, end + len(data), crc)

    def flush(self) -> None:
        """Hand the buffer to HDF5."""
        written, end, _ = self._extent
        if end > written:
            self._store(written, self._buffer[: end - written])
            self._extent = self._extent._replace(written=end)

    def read_back(self) -> NDArray[Any]:
        """All items appended so far."""
        self.flush()
        return np.asarray(self._dataset[: self.end])

    def _store(self, start: int, data: memoryview) -> None:
        """Write bytes from byte `start` on, by h5py's low-level calls, which are faster."""
        items, first = np.frombuffer(data, self._dtype), start // self._dtype.itemsize
        stop = first + items.size
        self._dataset.id.set_extent((stop,))
        memory = h5py.h5s.create_simple((items.size,))
        place = h5py.h5s.create_simple((stop,))
        place.select_hyperslab((first,), (items.size,))
        self._dataset.id.write(memory, place, items, self._stored_type)
