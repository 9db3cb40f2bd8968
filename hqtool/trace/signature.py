"""Recognizing an HDF5 file without loading h5py."""

from __future__ import annotations

import os

#: How an HDF5 file begins.
HDF5 = b"\x89HDF\r\n\x1a\n"


def may_be_trace(path: str) -> bool:
    """Whether an existing file is HDF5 by its first bytes, or by its name where it is broken."""
    if not os.path.isfile(path):
        return False
    if path.lower().endswith((".h5", ".hdf5")):
        return True
    try:
        with open(path, "rb") as file:
            return file.read(len(HDF5)) == HDF5
    except OSError:
        return False
