"""Buffer sizes: those of a sweep, and those from which looks no longer go to memory."""

from __future__ import annotations

from collections.abc import Iterable

from hqtool.errors import UsageError
from hqtool.sizes import read_bytes
from hqtool.traffic.pricing.store import Store
from hqtool.traffic.works import Work

_HOW_TO_WRITE = "write --sweep buffer=16KiB..64MiB"


def parse_sweep(text: str) -> tuple[int, ...]:
    """Bytes of each buffer of 'buffer=FIRST..LAST': FIRST, its doubles, and LAST.

    Raises:
        UsageError: it is no such text.
    """
    name, equals, span = (part.strip() for part in text.partition("="))
    first, dots, last = span.partition("..")
    sizes = read_bytes(first), read_bytes(last)
    if name != "buffer" or not equals or not dots or not sizes[0] or sizes[1] is None:
        raise UsageError(f"'{text}' is not a sweep of buffers", _HOW_TO_WRITE)
    if sizes[1] < sizes[0]:
        raise UsageError(f"'{text}' ends before it begins", _HOW_TO_WRITE)
    doubles = [sizes[0] << i for i in range((sizes[1] // sizes[0]).bit_length())]
    return tuple(dict.fromkeys([*doubles, sizes[1]]))


def free_from_bytes(works: Iterable[Work], store: Store) -> int:
    """The smallest buffer that keeps every look of these works on the chip; 0 without looks."""
    held = [0]
    for work in works:
        looks = store.looks_at_made(work)
        held += [looks.held(work.made) * store.acc] if looks.rate else []
        held += [
            -(-looks.held(each) * sum(store.stored(each)) // each.numel)
            for each in work.reads
            if (looks := store.looks_at_read(each)).rate
        ]
    return -(-max(held) // 8)
