"""The bill of a network over sizes of the buffer, and from which size on looks are free."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hqtool.report.model import Column, Report, Table, times
from hqtool.report.traffic_costs import Costs
from hqtool.sizes import binary_bytes
from hqtool.traffic.bill import Bill, Bits, total, works_bill
from hqtool.traffic.layers import Layer
from hqtool.traffic.pricing.store import PAPER, Store
from hqtool.traffic.pricing.sweep import free_from_bytes
from hqtool.traffic.works import Work


@dataclass(frozen=True, slots=True)
class Swept:
    """What is billed at every size.

    Args:
        label: of what quantizes the network.
        store: of each layer, how its tensors are kept.
    """

    label: str
    store: Callable[[Layer], Store]


#: What quantizes where nothing is named: any quantizer that looks at every step.
DYNAMIC = "dynamic"


def plain(bits: Bits) -> Swept:
    """Dynamic quantization at these widths (eq. 5)."""
    return Swept(DYNAMIC, lambda layer: bits)


def with_sweep(
    report: Report,
    layers: Sequence[Layer],
    works: Sequence[tuple[Work, ...]],
    swept: Sequence[Swept],
    sizes: Sequence[int],
    costs: Costs,
) -> Report:
    """The report of a bill with its sweep in place of its tables and rows.

    Args:
        works: of each layer, of one of its repeats.
    """
    named = list(zip(layers, works, strict=True))
    rows = [_row(named, each, size, costs) for size in sizes for each in swept]
    free = [_free(layer, each, swept) for layer, each in named]
    entry = {"sizes": rows, "free_from_bytes": free}
    return replace(
        report,
        document={**report.document, "sweep": entry},
        rows=rows,
        tables=[_table(report, rows, swept, costs), *_free_tables(free, swept)],
        closing=_sentence(rows, free, swept),
    )


def _row(
    named: Sequence[tuple[Layer, tuple[Work, ...]]], swept: Swept, size: int, costs: Costs
) -> dict[str, Any]:
    at = replace(costs, chip=replace(costs.chip, buffer_bytes=size))
    bill = total(_bill(layer, works, swept, at) for layer, works in named)
    return {"buffer_bytes": size, "name": swept.label, "overhead": bill.overhead} | at.amounts(bill)


def _bill(layer: Layer, works: tuple[Work, ...], swept: Swept, at: Costs) -> Bill:
    return works_bill(works, swept.store(layer), layer.repeat, at.chip)


def _free(layer: Layer, works: tuple[Work, ...], swept: Sequence[Swept]) -> dict[str, Any]:
    """From which buffer on each quantizer's looks at a layer move nothing."""
    sizes = {each.label: free_from_bytes(works, each.store(layer)) for each in swept}
    return {"name": layer.name, "op": layer.op, **sizes}


# --- tables and sentences -----------------------------------------------------------------------

_BUFFER = Column("buffer_bytes", "buffer", binary_bytes)


def _table(
    report: Report, rows: Sequence[dict[str, Any]], swept: Sequence[Swept], costs: Costs
) -> Table:
    """Of one quantizer what it moves and takes; of several what each moves."""
    if len(swept) == 1:
        static = Column("static_bytes", "static", binary_bytes)
        dynamic = Column("bytes", _header([swept[0].label]), binary_bytes)
        overhead = Column("ratio", "of static", times)
        columns = (_BUFFER, static, dynamic, overhead, *costs.columns(rows))
        shown = tuple({**row, "ratio": _ratio(row)} for row in rows)
        return Table(_title(report, swept, costs), columns, shown)
    by_size: dict[int, dict[str, Any]] = {}
    for row in rows:
        at = by_size.setdefault(row["buffer_bytes"], {"buffer_bytes": row["buffer_bytes"]})
        at[row["name"]] = row["bytes"]
    moved = [Column(each.label, _header([each.label]), binary_bytes, min) for each in swept]
    shown = tuple(by_size.values())
    return Table(_title(report, swept, costs), (_BUFFER, *moved), shown, group=("buffer_bytes",))


def _ratio(row: dict[str, Any]) -> float | None:
    """Of what moves to what would move without looks; None where nothing moves."""
    return None if row["overhead"] is None else 1 + row["overhead"]


def _title(report: Report, swept: Sequence[Swept], costs: Costs) -> str:
    """The bill's own, whose widths are those of dynamic quantization alone."""
    whole = report.tables[0].title
    what = whole if swept[0].label == DYNAMIC else whole.partition(", bits")[0]
    return ", ".join(filter(None, [what, replace(costs, chip=PAPER).text, _tiled(costs)]))


def _tiled(costs: Costs) -> str:
    return "tiled" if costs.chip.tiled else ""


def _header(labels: Sequence[str]) -> str:
    """Labels that may break over lines."""
    return ", ".join(labels).replace("@", " @")


def _free_tables(free: Sequence[dict[str, Any]], swept: Sequence[Swept]) -> list[Table]:
    """A column for each quantizer that looks; those that agree share one."""
    alike: dict[tuple[int, ...], list[str]] = {}
    for each in swept:
        alike.setdefault(tuple(row[each.label] for row in free), []).append(each.label)
    columns = [
        Column(labels[0], _header(labels), binary_bytes)
        for sizes, labels in alike.items()
        if any(sizes)
    ]
    if not columns:
        return []
    named = (Column("name", "layer", number=False), Column("op", "op", number=False))
    title = "the buffer from which on looks at a layer move nothing"
    return [Table(title, (*named, *columns), tuple(free))]


def _sentence(
    rows: Sequence[dict[str, Any]], free: Sequence[dict[str, Any]], swept: Sequence[Swept]
) -> str:
    """From which size on looks are free everywhere, and what that takes away."""
    found = []
    for each in swept:
        own = [row for row in rows if row["name"] == each.label]
        largest = max(free, key=lambda row: row[each.label])
        if not largest[each.label]:
            continue
        ends = " to ".join(f"{_ratio(row) or 1:.2f}" for row in (own[0], own[-1]))
        found.append(
            f"{each.label}: {ends} times the static traffic over these buffers; looks are free in "
            f"every layer from {binary_bytes(largest[each.label])} on ({largest['name']})."
        )
    return "\n".join(found) or "Nothing looks at what it quantizes, so no buffer saves anything."
