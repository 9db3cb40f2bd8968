"""The file format `hqtrace/1`: what lies in a trace and why.

A trace is one HDF5 file, written in SWMR mode (single writer, many readers), with five 1-D
datasets. All exist before SWMR starts; all but `/state` only ever grow.

| dataset    | item     | holds                                                                 |
|------------|----------|-----------------------------------------------------------------------|
| `/commits` | `COMMIT` | how much of the other datasets each commit covers; written last       |
| `/rows`    | `ROW`    | one row a record: its key, its statistics, where its values lie       |
| `/payload` | byte     | the values, one record's after the other's, little-endian             |
| `/journal` | byte     | JSON lines: names of sites, shapes, geometry of layers, provenance    |
| `/state`   | `STATE`  | one item: open (also when the writer was killed), complete, truncated |

Samples. A sample's values are whole fibres (see `hqtool.vocab.SampleLayout`), each as likely as any
other, so by themselves they are a uniform sample of the tensor. Where a row has `sampled` = FIBRES,
the values are followed by: `LAYOUT_HEAD`; the tensor's extremes, of the values' type; their places;
and the numbers of the fibres. Places and numbers are of type `place_type`. Readers that are older
than this layout treat such a row like `sampled` = UNIFORM, and read its values correctly. Newer
readers refuse a row whose `sampled` they do not know.

Extremes of channels. Where the journal has the line `["extremes", "channel"]`, as one of its first,
each record's values (or, of statistics alone, the place where they would be) come directly after
the extremes of each channel of the tensor: the lowest ones, the highest ones, and `CHANNELS_TAIL`.
Readers that are older than this read such a trace without them.

Ranges used. Where the journal has the line `["ranges", "used"]`, as one of its first, the trace is
that of a run that was quantized: before each record's extremes of channels (before its values,
where there are none) stands `USED`: what quantized the tensor, whose statistics are those before.
Readers that are older than this read such a trace without them.

A journal line is one of `["site", number, layer, tensor]`, `["shape", number, [size, …]]`,
`["geometry", layer, {…}]`, `["classes", layer, [name, …]]`: the module's class and those it derives
from, `["note", key, value]`, `["extremes", "channel"]`, `["ranges", "used"]`, and
`["optimizers", step, [name, …]]`: whose updates ended that step, and those after it until another
such line. Rows refer to sites and shapes by number, given in order of appearance; of several lines
about one thing the last one counts. Lines of another kind are passed over: newer writers may add
some.

Trust. A reader trusts what the last intact commit covers, and nothing beyond. A commit carries
running checksums of all rows and journal bytes it covers, a row the checksum of its values, and
HDF5 checks its own metadata: a byte lost or flipped anywhere is found.

No filters. Shuffle+Zstd saves 8 to 16 % of Gaussian float32 values (23 to 32 % of bfloat16's, 43 %
after a ReLU) and makes writing four to six and reading six to twelve times slower. Without a filter
a record is read on its own, whatever chunk it lies in, and a chunk that the next step continues is
extended in place, never moved, so steps need no padding.

The root attributes `format` and `hqtool` (the version that wrote the file) have fixed length:
variable-length strings live in a heap that HDF5 does not check.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np

from hqtool.vocab import Stats

FORMAT = "hqtrace/1"

#: Every HDF5 since 1.10 reads it, and it allows SWMR.
LIBVER = ("v110", "v110")

STATES = ("open", "complete", "truncated")
STATE = np.dtype("S16")

#: How the bits of each element type are stored; bfloat16, which numpy lacks, as raw bits.
ELEMENTS: dict[str, np.dtype[Any]] = {
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),
    "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"),
}
#: A row's `element` indexes this.
ELEMENT_NAMES = ("none", *ELEMENTS)

#: What a row's `sampled` says of the values kept: all of them; single ones, drawn at random, of
#: unknown places; fibres, drawn at random, and the extremes.
WHOLE, UNIFORM, FIBRES = 0, 1, 2

#: CRC-32 of what follows it in the layout, number of extremes, `length` and `stride` of a fibre.
LAYOUT_HEAD = struct.Struct("<I I Q Q")

#: Number of channels (0: not known), bytes of a number, CRC-32 of the extremes and of these two.
CHANNELS_TAIL = struct.Struct("<I I I")

#: The range that quantized a tensor (lo, hi), the share of values clipped, `USED_…` bits, CRC-32.
USED = struct.Struct("<d d d I I")

#: There was a range; the tensor was read first; the range carries the record's loss scale; the rest
#: is known at all.
USED_RANGE, USED_LOOKED, USED_SCALED, USED_KNOWN = 1, 2, 4, 8

#: The step of a commit that closes no step: the first one, and one that adds only notes.
NO_STEP = -1


class Commit(NamedTuple):
    """How much a commit covers, from the beginning of each dataset.

    Args:
        step: the step it closes, or NO_STEP.
        rows: items of `/rows`.
        payload, journal: bytes of `/payload` and `/journal`.
        rows_crc, journal_crc: CRC-32 of the rows and of the journal bytes covered.
        crc: CRC-32 of the fields before it.
    """

    step: int
    rows: int
    payload: int
    journal: int
    rows_crc: int
    journal_crc: int
    crc: int = 0


class Row(NamedTuple):
    """One record without its values.

    Args:
        site, shape: their numbers in the journal; the shape is the full tensor's.
        flags: 32 bits free for the recorder.
        sampled: WHOLE, UNIFORM or FIBRES.
        element: index into ELEMENT_NAMES.
        offset: of the values in `/payload`, in bytes.
        size: number of values kept.
        crc: CRC-32 of the values' bytes.
    """

    step: int
    micro: int
    call: int
    site: int
    shape: int
    flags: int
    sampled: int
    element: int
    loss_scale: float
    offset: int
    size: int
    crc: int
    stats: Stats


def place_type(numel: int) -> np.dtype[Any]:
    """How a place in a tensor of so many elements is stored."""
    return np.dtype("<u4" if numel <= 1 << 32 else "<u8")


def _packed(fields: tuple[str, ...], formats: list[Any]) -> np.dtype[Any]:
    return np.dtype(list(zip(fields, formats, strict=True)))


COMMIT = _packed(Commit._fields, ["<i8"] * 4 + ["<u4"] * 3)
STATS = _packed(Stats._fields, ["<f8"] * 6 + ["<i8"] * 3 + ["<f8"])
ROW = _packed(
    Row._fields,
    ["<i8"] * 3 + ["<i4"] * 2 + ["<u4", "u1", "u1", "<f8"] + ["<i8"] * 2 + ["<u4", STATS],
)

#: The same items for `struct`, which packs a single one much faster; a row's statistics come last.
COMMIT_LAYOUT = struct.Struct("<4q 3I")
ROW_LAYOUT = struct.Struct("<3q 2i I 2B d 2q I 6d 3q d")

#: A commit's own checksum comes last.
CRC_BYTES = 4

#: Each growing dataset's item, and items per chunk: few index entries, little slack at the end.
DATASETS: dict[str, tuple[np.dtype[Any], int]] = {
    "commits": (COMMIT, 256),
    "rows": (ROW, 256),
    "payload": (np.dtype("u1"), 1 << 18),
    "journal": (np.dtype("u1"), 1 << 14),
}
