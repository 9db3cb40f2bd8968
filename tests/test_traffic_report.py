"""The report of a bill: order, shares, sums by operation, what a table leaves out."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from hqtool.report.export import render_csv, render_json
from hqtool.report.model import Report
from hqtool.report.traffic import LISTED, SORTS, Billing, traffic_report
from hqtool.traffic.bill import Bits
from hqtool.traffic.fusing.choice import FUSABLE
from hqtool.traffic.layers import layer_from_json
from hqtool.traffic.pricing.store import Chip
from hqtool.traffic.spec import LayerSpec

ROWS: dict[str, Any] = {"in_channels": 4, "input": 6}
TABLES: list[dict[str, Any]] = [
    {"name": "wide", "op": "linear", "in_channels": 4, "out_channels": 40, "input": 6},
    {"name": "heavy", "op": "linear", "in_channels": 100, "out_channels": 4, "input": 6},
    {"name": "act", "op": "activation", "kind": "gelu"} | ROWS,
    {"name": "b", "op": "add"} | ROWS,
    {"name": "a", "op": "pool", "kernel": 6, "in_channels": 4, "input": [6]},
]
SPEC = LayerSpec(Path("net.toml"), Bits(), tuple(map(layer_from_json, TABLES)))


def report(**how: Any) -> Report:
    return traffic_report(SPEC, Bits(), Billing(**how))


def names(how: Report) -> list[str]:
    return [row["name"] for row in how.tables[0].rows]


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("listed", "wide heavy act b a"),
        ("name", "a act b heavy wide"),
        ("op", "act b wide heavy a"),
        ("static", "heavy wide a b act"),
        ("dynamic", "wide heavy a b act"),
        ("overhead", "wide heavy b a act"),  # nothing moves in act
    ],
)
def test_layers_are_sorted(sort: str, order: str) -> None:
    found = report(sort=sort)
    assert names(found) == order.split()
    assert [row["name"] for row in found.document["layers"]] == order.split()
    assert sort in (LISTED, *SORTS)


def test_the_top_and_what_the_others_come_to() -> None:
    whole, found = report(sort="dynamic"), report(sort="dynamic", top=2)
    assert names(found) == ["wide", "heavy", "3 other layers"]
    rest = found.tables[0].rows[-1]
    for key in ("static_bytes", "dynamic_bytes", "dynamic_share"):
        others = [row[key] for row in whole.document["layers"][2:]]
        assert rest[key] == pytest.approx(sum(others))
    assert names(report(top=4))[-1] == "1 other layer"
    assert names(report(top=5)) == names(report()) == names(report(top=9))
    assert found.document == whole.document
    assert found.rows == whole.rows


def test_shares_and_sums_by_operation() -> None:
    document = report().document
    assert {"static_bytes", "dynamic_bytes", "overhead"} <= document["total"].keys()
    assert [(row["op"], row["layers"]) for row in document["operations"]] == [
        ("linear", 2), ("pool", 1), ("add", 1), ("activation", 1),
    ]  # fmt: skip
    for rows in (document["layers"], document["operations"]):
        for kind in ("static", "dynamic"):
            assert sum(row[f"{kind}_share"] for row in rows) == pytest.approx(1)
            total = document["total"][f"{kind}_bytes"]
            assert sum(row[f"{kind}_bytes"] for row in rows) == total
    assert document["total"]["dynamic_share"] == 1


def test_one_operation_is_not_summed_up_twice() -> None:
    only = LayerSpec(Path("net.toml"), Bits(), SPEC.layers[:2])
    found = traffic_report(only, Bits(), Billing())
    assert len(found.tables) == 1
    assert not found.notes
    assert found.document["settings"]["fuse"] == list(FUSABLE)


def test_what_is_fused_is_told() -> None:
    (note,) = report().notes
    assert note.startswith("activation, add: fused into the operation before")
    assert not report(fuse=frozenset()).notes
    assert report(fuse=frozenset({"norm"})).document["settings"]["fuse"] == ["norm"]
    norms = LayerSpec(
        Path("net.toml"), Bits(), (layer_from_json({"name": "n", "op": "norm"} | ROWS),)
    )
    assert "inference" in traffic_report(norms, Bits(), Billing("forward")).notes[-1]
    assert len(traffic_report(norms, Bits(), Billing("both")).notes) == 1
    rows = layer_from_json({"name": "n", "op": "norm", "kind": "layer"} | ROWS)
    by_row = LayerSpec(Path("net.toml"), Bits(), (rows,))
    assert len(traffic_report(by_row, Bits(), Billing("forward")).notes) == 1


def test_json_and_csv_say_the_same_and_nothing_is_null_but_what_is_missing() -> None:
    found = report()
    written = io.StringIO()
    render_json(found, written)
    layers = json.loads(written.getvalue())["layers"]
    written = io.StringIO()
    render_csv(found, written)
    rows = list(csv.DictReader(io.StringIO(written.getvalue())))
    assert [row["name"] for row in rows] == [layer["name"] for layer in layers]
    for row, layer in zip(rows, layers, strict=True):
        assert row.keys() == layer.keys()
        assert {key for key in row if row[key] == ""} == {
            key for key in layer if layer[key] is None
        }
    assert layers[2]["overhead"] is None
    assert layers[2]["static_bytes"] == 0


def test_where_looks_move_nothing() -> None:
    found = traffic_report(SPEC, Bits(), Billing(), Chip(buffer_bytes=2**20))
    assert found.document["total"]["overhead"] == 0
    assert found.closing.startswith("Looks move nothing")
    assert "1.00" not in found.closing


def test_where_nothing_moves() -> None:
    alone = LayerSpec(
        Path("net.toml"), Bits(), (layer_from_json({"name": "n", "op": "add"} | ROWS),)
    )
    found = traffic_report(alone, Bits(), Billing("backward"))
    assert found.closing == "Nothing moves."
    total = found.document["total"]
    assert (total["static_bytes"], total["overhead"], total["static_share"]) == (0, None, None)
