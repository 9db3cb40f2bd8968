"""The bill of a network under each of several quantizers and recipes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hqtool.report.model import Column, Report, Table, percent, times
from hqtool.report.traffic_costs import BYTES, Costs, unit_of
from hqtool.sizes import binary_bytes
from hqtool.traffic.bill import Bill, Bits, total, works_bill
from hqtool.traffic.layers import Layer
from hqtool.traffic.pricing.looks import looks_of
from hqtool.traffic.pricing.scheme import Scheme, SchemeStore, places_of
from hqtool.traffic.pricing.store import Chip
from hqtool.traffic.works import Work

#: Amounts in bytes → their headings.
AMOUNTS = {
    "payload_bytes": "elements",
    "scale_bytes": "scales",
    "again_bytes": "again",
    "look_bytes": "looks",
    "bytes": "in all",
}


@dataclass(frozen=True, slots=True)
class Network:
    """What is billed: layers, and the works of one of each one's repeats in the passes billed."""

    layers: Sequence[Layer]
    works: Sequence[tuple[Work, ...]]

    def bills(self, scheme: Scheme, bits: Bits, wide_bits: int, chip: Chip) -> list[Bill]:
        """Of each layer, all its repeats together."""
        store = stores_of(scheme, self.layers, bits, wide_bits)
        return [
            works_bill(works, store(layer), layer.repeat, chip)
            for layer, works in zip(self.layers, self.works, strict=True)
        ]

    def leaves_some(self, scheme: Scheme) -> bool:
        """Whether a scheme leaves an activation, a gradient of one, or a weight as it is."""
        places = places_of(self.layers, scheme.recipe)
        return any(
            scheme.quantizer(place, operand.kind) is None
            for place, works in zip(places, self.works, strict=True)
            for work in works
            for operand in (work.made, *work.reads)
            if operand.kind != "grad_weight"
        )


def stores_of(
    scheme: Scheme, layers: Sequence[Layer], bits: Bits, wide_bits: int
) -> Callable[[Layer], SchemeStore]:
    """How each layer's tensors are kept under a scheme."""
    named = zip((layer.name for layer in layers), places_of(layers, scheme.recipe), strict=True)
    stores = {name: SchemeStore(scheme, place, bits, wide_bits) for name, place in named}
    return lambda layer: stores[layer.name]


def with_quantizers(
    report: Report,
    network: Network,
    schemes: Sequence[Scheme],
    bits: Bits,
    wide_bits: int,
    costs: Costs,
) -> Report:
    """The report of a bill with that of each scheme in place of the one of each layer."""
    rows = [_row(network, scheme, bits, wide_bits, costs) for scheme in schemes]
    first = rows[0]["bytes"]
    rows = [row | {"of_first": row["bytes"] / first if first else None} for row in rows]
    flat = [{key: entry for key, entry in row.items() if key != "layers"} for row in rows]
    return replace(
        report,
        document={**report.document, "quantizers": rows},
        rows=flat,
        tables=[_table(report, flat, costs)],
        closing=_sentence(flat),
        notes=[*report.notes, *_notes(network, schemes, wide_bits)],
    )


def _row(
    network: Network, scheme: Scheme, bits: Bits, wide_bits: int, costs: Costs
) -> dict[str, Any]:
    bills = network.bills(scheme, bits, wide_bits, costs.chip)
    layers = [
        {"name": layer.name, "op": layer.op, **costs.amounts(bill)}
        for layer, bill in zip(network.layers, bills, strict=True)
    ]
    return {"name": scheme.label, **costs.amounts(total(bills)), "layers": layers}


def _table(report: Report, rows: Sequence[dict[str, Any]], costs: Costs) -> Table:
    """All amounts in one unit, so that they can be compared along columns and rows."""
    unit = unit_of([row["bytes"] for row in rows], BYTES)
    shown = [key for key in AMOUNTS if key != "again_bytes" or costs.chip.tiled]
    best = {"bytes": min}
    columns = [Column(key, AMOUNTS[key], unit.show, best.get(key)) for key in shown]
    what = report.tables[0].title.partition(", bits")[0]
    title = ", ".join(filter(None, [what, f"{unit.name} a step", costs.text]))
    named, ratio = Column("name", "quantizer", number=False), Column("of_first", "of first", times)
    return Table(title, (named, *columns, ratio, *costs.columns(rows)), tuple(rows))


def _sentence(rows: Sequence[dict[str, Any]]) -> str:
    """The cheapest, the dearest, and what looks have to do with it."""
    least, most = (choose(rows, key=lambda row: row["bytes"]) for choose in (min, max))
    if least["bytes"] == most["bytes"]:
        return f"A step moves {binary_bytes(least['bytes'])}, whichever quantizes it."
    share = most["look_bytes"] / most["bytes"]
    looks = f", {percent(share)} of it for looks at what is quantized" if share else ""
    return (
        f"A step moves least under {least['name']}, {binary_bytes(least['bytes'])}, and "
        f"{most['bytes'] / least['bytes']:.2f} times that under {most['name']}{looks}."
    )


def _notes(network: Network, schemes: Sequence[Scheme], wide_bits: int) -> Iterator[str]:
    """How looks are counted, and what is left unquantized."""
    yield (
        "looks are those of a mean step after the first; a weight's range is found as it is "
        "updated, without a look"
    )
    for label, looks in _searches(schemes).items():
        yield (
            f"{label}: a search of {looks.evaluations} evaluations (of normally distributed "
            f"values) every {1 / looks.rate} steps, averaged over them"
        )
    if any(network.leaves_some(scheme) for scheme in schemes):
        yield f"what a recipe does not quantize is stored in {wide_bits} bits (--unquantized)"


def _searches(schemes: Sequence[Scheme]) -> dict[str, Any]:
    found = {q.estimator.label: looks_of(q) for s in schemes for q in s.quantizers}
    return {label: looks for label, looks in found.items() if looks.evaluations}
