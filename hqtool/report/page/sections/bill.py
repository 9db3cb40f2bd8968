"""What `hqtool traffic` bills: layer by layer, and over sizes of the buffer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hqtool.report.model import Column, Table
from hqtool.report.page.axes import (
    STROKES,
    dashes,
    hover,
    named,
    nominal,
    quantitative,
    told_apart,
    view,
)
from hqtool.report.page.markup import Content, element, folded, table
from hqtool.report.page.material import Document, Material
from hqtool.report.page.section import Chart, Columns, Control, Part, columns_of
from hqtool.report.page.stacked import AGAIN, LOOKS, SCALES, STATIC, bars, shows
from hqtool.report.traffic import LAYER_COLUMNS, pass_words
from hqtool.sizes import binary_bytes

#: Transfer → the entry of a billed layer that has its bytes.
TRANSFERS = {
    STATIC: "payload_bytes",
    SCALES: "scale_bytes",
    AGAIN: "again_bytes",
    LOOKS: "look_bytes",
}

#: What a bill without quantizers is called.
PLAIN = "static and dynamic"


def bill_parts(material: Material) -> tuple[list[Part], dict[str, Columns]]:
    """The charts and tables of the material's bill, and their data."""
    bill = material.bill
    if bill is None or not bill["layers"]:
        return [], {}
    rows = list(_rows(bill))
    parts: list[Part] = [_chart(bill, rows), _in_words(bill), _bill_table(bill)]
    data: dict[str, Columns] = {"bill": columns_of(rows, list(rows[0]))}
    if swept := bill.get("sweep", {}).get("sizes"):
        sizes = [_size(row) for row in swept]
        data["sweep"] = columns_of(sizes, list(sizes[0]))
        parts += [_sweep_chart(sizes), _sweep_table(sizes)]
    return parts, data


def _rows(bill: Document) -> Iterator[dict[str, Any]]:
    """A row for each layer and transfer; of each quantizer where there are some."""
    for billed in bill.get("quantizers") or [_plain(bill)]:
        for layer in billed["layers"]:
            for place, (what, entry) in enumerate(TRANSFERS.items()):
                if layer[entry]:
                    yield {
                        "of": billed["name"],
                        "layer": layer["name"],
                        "op": layer["op"],
                        "what": what,
                        "place": place,
                        "kib": layer[entry] / 1024,
                    }


def _plain(bill: Document) -> dict[str, Any]:
    """The bill of dynamic quantization as one of a quantizer's."""
    layers = [
        {
            "name": layer["name"],
            "op": layer["op"],
            "payload_bytes": layer["static_bytes"],
            "scale_bytes": 0,
            "again_bytes": 0,
            "look_bytes": layer["dynamic_bytes"] - layer["static_bytes"],
        }
        for layer in bill["layers"]
    ]
    return {"name": PLAIN, "layers": layers}


def _chart(bill: Document, rows: list[dict[str, Any]]) -> Chart:
    told = (("layer", "layer"), ("op", "op"), ("what", "moved"), ("kib", "KiB", ",.1f"))
    names = list(dict.fromkeys(row["of"] for row in rows))
    caption = (
        f"The bill of {bill['spec']}, {pass_words(bill['settings']['pass'])}, layer by layer: "
        "what static quantization moves, and what looks add."
    )
    controls = [Control("Quantizer", {name: shows(name) for name in names})]
    spec = bars("bill", names[0], told, "")
    return Chart("bill", caption, spec, controls=controls if len(names) > 1 else ())


def _in_words(bill: Document) -> Content:
    total = bill["total"]
    static, dynamic = (binary_bytes(total[f"{name}_bytes"]) for name in ("static", "dynamic"))
    times = "" if total["overhead"] is None else f", {1 + total['overhead']:.2f} times"
    return element("p", f"In total static quantization moves {static}, dynamic {dynamic}{times}.")


def _bill_table(bill: Document) -> Content:
    total = {"name": "total", **bill["total"]}
    found = Table("The bill", LAYER_COLUMNS, tuple(bill["layers"]), total=total)
    return folded("The bill as a table", table(found))


# --- over sizes of the buffer


def _size(row: Any) -> dict[str, Any]:
    mib = row["bytes"] / 2**20
    return {"name": row["name"], "buffer_kib": row["buffer_bytes"] / 1024, "mib": mib}


def _sweep_chart(rows: list[dict[str, Any]]) -> Chart:
    names = list(dict.fromkeys(row["name"] for row in rows))
    spec = view(
        280,
        data=named("sweep"),
        mark={"type": "line", "point": {"size": 40}},
        encoding={
            "x": quantitative("buffer_kib", "buffer (KiB, log)", scale={"type": "log", "base": 2}),
            "y": quantitative("mib", "memory traffic (MiB)"),
            "color": nominal("name", "quantization", scale=told_apart(names), legend=STROKES),
            "strokeDash": nominal("name", "quantization", scale=dashes(names), legend=STROKES),
            "tooltip": hover(
                ("name", "quantization"), ("buffer_kib", "KiB of buffer", ",.4~g"),
                ("mib", "MiB", ",.2f"),
            ),
        },
    )  # fmt: skip
    return Chart("sweep", "The bill over sizes of the buffer for accumulator output.", spec)


def _sweep_table(rows: list[dict[str, Any]]) -> Content:
    columns = (
        Column("name", "quantization", number=False),
        Column("buffer_kib", "buffer", lambda kib: binary_bytes(1024 * kib)),
        Column("mib", "moved", lambda mib: binary_bytes(2**20 * mib)),
    )
    return folded("The sweep as a table", table(Table("Over buffers", columns, tuple(rows))))
