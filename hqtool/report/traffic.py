"""The report of a layer spec's bill: what dynamic quantization adds to each layer's traffic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hqtool.report.model import Column, Report, Table, TableRow, percent
from hqtool.sizes import binary_bytes, counted
from hqtool.traffic.bill import Bill, Bits, ExactBits, as_bytes, total, works_bill
from hqtool.traffic.fusing.choice import DEFAULT_FUSE, FUSABLE
from hqtool.traffic.layers import Layer
from hqtool.traffic.network import network_works
from hqtool.traffic.pricing.store import PAPER, Chip
from hqtool.traffic.spec import LayerSpec
from hqtool.traffic.works import Work

SCHEMA = "hqtool.traffic/1"

_AMOUNTS = (
    Column("static_bytes", "static", binary_bytes),
    Column("dynamic_bytes", "dynamic", binary_bytes),
    Column("overhead", "overhead", lambda share: f"+{100 * share:.0f} %"),
    Column("dynamic_share", "share", percent),
)
LAYER_COLUMNS = (
    Column("name", "layer", number=False),
    Column("op", "op", number=False),
    *_AMOUNTS,
)
OPERATION_COLUMNS = (
    Column("op", "operation", number=False),
    Column("layers", "layers"),
    *_AMOUNTS,
)

#: What layers can be sorted by → the key of a row, and whether the largest comes first.
SORTS = {
    "name": ("name", False),
    "op": ("op", False),
    "static": ("static_bytes", True),
    "dynamic": ("dynamic_bytes", True),
    "overhead": ("overhead", True),
}

#: As the layer spec has them.
LISTED = "listed"


@dataclass(frozen=True, slots=True)
class Billing:
    """What of a network is billed, and how its layers are shown.

    Args:
        pass_name: 'forward', 'backward' or 'both'.
        fuse: operations that are joined to the one before where they can be.
        sort: a key of `SORTS`, or `LISTED`.
        top: how many layers the table shows; None: all.
    """

    pass_name: str = "forward"
    fuse: frozenset[str] = DEFAULT_FUSE
    sort: str = LISTED
    top: int | None = None

    def works(self, layers: Sequence[Layer]) -> list[tuple[Work, ...]]:
        """Those of one repeat of each layer."""
        return network_works(layers, self.pass_name, self.fuse)

    def sorted(self, rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Rows of layers in the order asked for; what is missing comes last."""
        rows = list(rows)
        if self.sort == LISTED:
            return rows
        key, largest_first = SORTS[self.sort]
        known = [row for row in rows if row[key] is not None]
        missing = [row for row in rows if row[key] is None]
        return sorted(known, key=lambda row: row[key], reverse=largest_first) + missing


def traffic_report(spec: LayerSpec, bits: Bits, billing: Billing, chip: Chip = PAPER) -> Report:
    """Bill every layer of a spec."""
    each = zip(spec.layers, billing.works(spec.layers), strict=True)
    bills = [works_bill(works, bits, layer.repeat, chip) for layer, works in each]
    bill = total(bills)
    whole = _Whole(bill, bill.static_bits, bill.dynamic_bits)
    pairs = list(zip(spec.layers, bills, strict=True))
    rows = billing.sorted(
        {"name": layer.name, "op": layer.op, **whole.amounts(bill)} for layer, bill in pairs
    )
    by_op = _by_operation(pairs, whole)
    sums = whole.amounts(whole.bill)
    document = {
        "schema": SCHEMA,
        "spec": str(spec.path),
        "settings": {
            "pass": billing.pass_name,
            "bits": asdict(bits),
            "fuse": [op for op in FUSABLE if op in billing.fuse],
        },
        "layers": rows,
        "operations": by_op,
        "total": sums,
    }
    table = Table(
        _title(spec, bits, billing.pass_name) + _on_chip(chip),
        LAYER_COLUMNS,
        _shown(pairs, rows, billing.top, whole),
        total={"name": "total", **sums},
    )
    operations = Table("by operation", OPERATION_COLUMNS, tuple(by_op))
    tables = [table, operations] if len(by_op) > 1 else [table]
    notes = (*spec.notes, *_notes(spec, billing))
    return Report(document, rows, tables, _closing(sums, rows), notes)


def _shown(
    pairs: list[tuple[Layer, Bill]], rows: list[dict[str, Any]], top: int | None, whole: _Whole
) -> tuple[TableRow, ...]:
    """The first rows, and what the others come to."""
    if top is None or top >= len(rows):
        return tuple(rows)
    shown = {row["name"] for row in rows[:top]}
    rest = total(bill for layer, bill in pairs if layer.name not in shown)
    others = counted(len(rows) - top, "other layer")
    return (*rows[:top], {"name": others, **whole.amounts(rest)})


def _by_operation(pairs: list[tuple[Layer, Bill]], whole: _Whole) -> list[dict[str, Any]]:
    """What all layers of one operation come to, the one that moves most first."""
    bills: dict[str, list[Bill]] = {}
    for layer, bill in pairs:
        bills.setdefault(layer.op, []).append(bill)
    rows = [
        {"op": op, "layers": len(each), **whole.amounts(total(each))} for op, each in bills.items()
    ]
    return sorted(rows, key=lambda row: row["dynamic_bytes"], reverse=True)


@dataclass(frozen=True, slots=True)
class _Whole:
    """What a network moves: that of which layers move a share."""

    bill: Bill
    static_bits: ExactBits
    dynamic_bits: ExactBits

    def amounts(self, bill: Bill) -> dict[str, Any]:
        """Of one layer, or of several."""
        static, dynamic = bill.static_bits, bill.dynamic_bits
        return {
            "static_bytes": as_bytes(static),
            "dynamic_bytes": as_bytes(dynamic),
            "overhead": bill.overhead,
            "static_share": _share(static, self.static_bits),
            "dynamic_share": _share(dynamic, self.dynamic_bits),
        }


def _share(part: ExactBits, whole: ExactBits) -> float | None:
    return float(part / whole) if whole else None


def _notes(spec: LayerSpec, billing: Billing) -> Iterator[str]:
    """What of the network was joined, where something may be."""
    may_join = {layer.op for layer in spec.layers} & set(FUSABLE)
    if not may_join:
        return
    joined = [op for op in FUSABLE if op in billing.fuse & may_join]
    if joined:
        yield (
            f"{', '.join(joined)}: fused into the operation before where they can be, and moving "
            "only what else they read (--fuse none bills each on its own)"
        )
    if billing.pass_name == "forward" and any(_is_batch_norm(layer) for layer in spec.layers):
        yield (
            "the forward pass is that of inference, in which batch norms are constants; "
            "--pass both bills a step of training"
        )


def _is_batch_norm(layer: Layer) -> bool:
    return layer.op == "norm" and layer.kind == "batch"


def _title(spec: LayerSpec, bits: Bits, pass_name: str) -> str:
    widths = ", ".join(f"{key}={width}" for key, width in asdict(bits).items())
    return f"{spec.path.name}, {pass_words(pass_name)}, bits {widths}"


def pass_words(pass_name: str) -> str:
    """Which passes are billed, in words."""
    return "both passes" if pass_name == "both" else f"{pass_name} pass"


def _on_chip(chip: Chip) -> str:
    """What the chip keeps from memory, for a title; '' in the paper's model."""
    tiled = ", tiled" if chip.tiled else ""
    return f", buffer {binary_bytes(chip.buffer_bytes)}{tiled}" if chip != PAPER else ""


def _closing(sums: TableRow, rows: list[dict[str, Any]]) -> str:
    paying = [row for row in rows if row["overhead"] is not None]
    if not paying:
        return "Nothing moves."
    if not sums["overhead"]:
        return "Looks move nothing: dynamic quantization costs no more traffic than static."
    worst = max(paying, key=lambda row: row["overhead"])
    return (
        f"Dynamic quantization moves {1 + sums['overhead']:.2f} times the memory traffic of static "
        f"(in-hindsight) quantization; most in {worst['name']}, {1 + worst['overhead']:.2f} times."
    )
