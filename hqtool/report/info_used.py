"""What quantized the tensors of a run, as `hqtool info` tells it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hqtool.report.model import Column, percent
from hqtool.sizes import counted
from hqtool.vocab import Record


def three_digits(value: float) -> str:
    """An end of a range."""
    return f"{value:.3g}"


#: Beside layer, records and shape, in place of what tells of values: a quantized run keeps none.
USED_COLUMNS = (
    Column("looks", "looks"),
    Column("clipped", "clipped", percent),
    Column("last_lo", "last lo", three_digits),
    Column("last_hi", "last hi", three_digits),
)


def used_entries(records: Iterable[Record]) -> dict[str, Any]:
    """The entries of a site's row that tell what quantized its tensors; None is missing.

    Args:
        records: of the site; their values are not needed.

    Returns:
        `looks`: how many tensors were read first; `clipped`: the mean share of their values that
        were clipped; `last_lo`, `last_hi`: the range that was used last.
    """
    used = [each.used for each in records if each.used is not None]
    if not used:
        return dict.fromkeys(("looks", "clipped", "last_lo", "last_hi"))
    lo, hi = used[-1].range or (None, None)
    return {
        "looks": sum(each.looked for each in used),
        "clipped": sum(each.clipped for each in used) / len(used),
        "last_lo": lo,
        "last_hi": hi,
    }


def training_fact(noted: Mapping[str, Any]) -> str:
    """What a run noted of its training when it ended, as one line."""
    share = noted["coverage"]["share"]
    covered = "no layer multiplied" if share is None else f"{percent(share)} of all multiplications"
    looks, records = noted["looks"], counted(noted["records"], "tensor")
    return f"{covered} quantized, {counted(looks, 'look')} at {records}"
