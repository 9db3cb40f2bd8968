"""Arithmetic on ranges that holds for the one of a tensor as for those of its entries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqtool.vocab import AnyRange, EntryRanges, Range


def resized(ranges: AnyRange, per: str, entries: int) -> EntryRanges:
    """Ranges for a tensor of so many entries.

    Entries of another number (a smaller last batch), of another granularity, or the one range of a
    tensor cannot be told apart in this one: each of its entries takes their widest ends.
    """
    if isinstance(ranges, EntryRanges) and (ranges.per, len(ranges)) == (per, entries):
        return ranges
    lo, hi = ranges.widest or (np.nan, np.nan)
    return EntryRanges(per, np.full(entries, lo), np.full(entries, hi))


def filled(ranges: EntryRanges, entries: int) -> EntryRanges:
    """The ranges that quantize a tensor of so many entries.

    An entry of which nothing is known takes the widest ends of the others, or (0, 0) where nothing
    is known of any.
    """
    fitted = resized(ranges, ranges.per, entries)
    known, (lo, hi) = _known(fitted), fitted.widest or Range(0.0, 0.0)
    if known.all():
        return fitted
    return EntryRanges(fitted.per, np.where(known, fitted.lo, lo), np.where(known, fitted.hi, hi))


def known_or(new: AnyRange, old: AnyRange | None) -> AnyRange:
    """The new ranges; of entries of which they say nothing, the old ones."""
    return new if old is None else each_end(lambda _, fresh: fresh, old, new)


def each_end(combine: Callable[[Any, Any], Any], old: AnyRange, new: AnyRange) -> AnyRange:
    """Both ends combined, `combine(old, new)`; an entry that only one knows is taken from it."""
    if isinstance(old, Range) and isinstance(new, Range):
        return Range(combine(old.lo, new.lo), combine(old.hi, new.hi))
    old, new = _alike(old, new)
    ends = ((old.lo, new.lo), (old.hi, new.hi))
    lo, hi = (_where_known(a, b, combine(a, b)) for a, b in ends)
    return EntryRanges(new.per, lo, hi)


def joined_ranges(ranges: Sequence[AnyRange]) -> AnyRange:
    """The widest ends of at least one reading, entry by entry, as one batch would have them.

    Where the readings differ in their number of entries, those of most entries are kept apart, and
    the widest ends of the others join each of them.
    """
    by_entry = [each for each in ranges if isinstance(each, EntryRanges)]
    if not by_entry:
        whole = [each for each in ranges if isinstance(each, Range)]
        return Range(min(each.lo for each in whole), max(each.hi for each in whole))
    most = max(by_entry, key=len)
    apart = [resized(each, most.per, len(most)) for each in ranges]
    lo = np.fmin.reduce([each.lo for each in apart])
    return EntryRanges(most.per, lo, np.fmax.reduce([each.hi for each in apart]))


def _alike(old: AnyRange, new: AnyRange) -> tuple[EntryRanges, EntryRanges]:
    """Both with as many entries as the new ones have, or as the old ones if these have entries."""
    model = new if isinstance(new, EntryRanges) else old
    assert isinstance(model, EntryRanges)
    return resized(old, model.per, len(model)), resized(new, model.per, len(model))


def _where_known(old: NDArray[Any], new: NDArray[Any], both: NDArray[Any]) -> NDArray[Any]:
    return np.where(np.isnan(old), new, np.where(np.isnan(new), old, both))


def _known(ranges: EntryRanges) -> NDArray[np.bool_]:
    return ~(np.isnan(ranges.lo) | np.isnan(ranges.hi))
