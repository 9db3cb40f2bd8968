"""The report of a layer spec's bill: what dynamic quantization adds to each layer's traffic."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from hqtool.report.model import Column, Report, Table, TableRow
from hqtool.sizes import binary_bytes
from hqtool.traffic.bill import Bill, Bits, as_bytes, total, works_bill
from hqtool.traffic.network import network_works
from hqtool.traffic.pricing.store import PAPER, Chip
from hqtool.traffic.spec import LayerSpec

SCHEMA = "hqtool.traffic/1"

LAYER_COLUMNS = (
    Column("name", "layer", number=False),
    Column("op", "op", number=False),
    Column("static_bytes", "static", binary_bytes),
    Column("dynamic_bytes", "dynamic", binary_bytes),
    Column("overhead", "overhead", lambda share: f"+{100 * share:.0f} %"),
)


def traffic_report(spec: LayerSpec, bits: Bits, pass_name: str, chip: Chip = PAPER) -> Report:
    """Bill every layer of a spec for one pass ('forward', 'backward' or 'both')."""
    each = zip(spec.layers, network_works(spec.layers, pass_name), strict=True)
    bills = [works_bill(works, bits, layer.repeat, chip) for layer, works in each]
    pairs = zip(spec.layers, bills, strict=True)
    rows = [{"name": layer.name, "op": layer.op, **_amounts(bill)} for layer, bill in pairs]
    sums = _amounts(total(bills))
    document = {
        "schema": SCHEMA,
        "spec": str(spec.path),
        "settings": {"pass": pass_name, "bits": asdict(bits)},
        "layers": rows,
        "total": sums,
    }
    table = Table(
        _title(spec, bits, pass_name) + _on_chip(chip),
        LAYER_COLUMNS,
        tuple(rows),
        total={"name": "total", **sums},
    )
    return Report(document, rows, [table], _closing(sums, rows), spec.notes)


def _amounts(bill: Bill) -> dict[str, Any]:
    return {
        "static_bytes": as_bytes(bill.static_bits),
        "dynamic_bytes": as_bytes(bill.dynamic_bits),
        "overhead": bill.overhead,
    }


def _title(spec: LayerSpec, bits: Bits, pass_name: str) -> str:
    widths = ", ".join(f"{key}={width}" for key, width in asdict(bits).items())
    return f"{spec.path.name}, {pass_name} pass, bits {widths}"


def _on_chip(chip: Chip) -> str:
    """What the chip keeps from memory, for a title; '' in the paper's model."""
    tiled = ", tiled" if chip.tiled else ""
    return f", buffer {binary_bytes(chip.buffer_bytes)}{tiled}" if chip != PAPER else ""


def _closing(sums: TableRow, rows: list[dict[str, Any]]) -> str:
    paying = [row for row in rows if row["overhead"] is not None]
    if not paying:
        return "Nothing moves."
    worst = max(paying, key=lambda row: row["overhead"])
    return (
        f"Dynamic quantization moves {1 + sums['overhead']:.2f} times the memory traffic of static "
        f"(in-hindsight) quantization; most in {worst['name']}, {1 + worst['overhead']:.2f} times."
    )
