"""What is taught as plain tuples, which pickle takes far less time for than for named ones."""

from __future__ import annotations

from typing import Any

from hqtool.estimators.protocol import Reading
from hqtool.training.sites.trained_site import Taught
from hqtool.vocab import AnyRange, EntryRanges, Range, Site


def packed(taught: Taught) -> tuple[Any, ...]:
    """Plain tuples of numbers, texts and arrays; `unpacked` gives an equal value back."""
    site, readings = taught.site, [_packed_reading(each) for each in taught.readings]
    return site.layer, site.tensor, taught.step, readings, _packed_range(taught.used)


def unpacked(plain: tuple[Any, ...]) -> Taught:
    """What `packed` was given."""
    layer, tensor, step, readings, used = plain
    found = tuple(_unpacked_reading(*each) for each in readings)
    return Taught(Site(layer, tensor), step, found, _unpacked_range(used))


def _packed_reading(reading: Reading) -> tuple[Any, ...]:
    return _packed_range(reading.range), reading.evaluations, reading.figures, reading.weight


def _unpacked_reading(ends: Any, *rest: Any) -> Reading:
    return Reading(_unpacked_range(ends), *rest)


def _packed_range(ends: AnyRange | None) -> tuple[Any, ...] | None:
    if ends is None:
        return None
    return (ends.per, ends.lo, ends.hi) if isinstance(ends, EntryRanges) else tuple(ends)


def _unpacked_range(plain: tuple[Any, ...] | None) -> AnyRange | None:
    if plain is None:
        return None
    return EntryRanges(*plain) if len(plain) == 3 else Range(*plain)
