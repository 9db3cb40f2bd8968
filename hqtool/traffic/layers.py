"""Layers for the bill: checked tables of layer-spec keys, and what their op makes of them."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

from hqtool.spec_table import SpecTable, short_repr
from hqtool.traffic.geometry import Counts, Geometry, layer_label
from hqtool.traffic.ops import OPS
from hqtool.traffic.works import Work

__all__ = ["OPS", "Counts", "Layer", "layer_from_json"]


@dataclass(frozen=True, slots=True)
class Layer(Geometry):
    """One layer; `layer_from_json` makes checked ones."""

    def counts(self) -> Counts:
        """Elements of W, X and Y of one such layer.

        Raises:
            DataError: the geometry is impossible; names the layer and the key.
        """
        return OPS[self.op].tensors(self).counts

    def works(self) -> tuple[Work, ...]:
        """What one such layer computes, forward and backward.

        A layer that reads the network's own input has no G_X: no framework computes it.

        Raises:
            DataError: the geometry is impossible; names the layer and the key.
        """
        op = OPS[self.op]
        works = op.works(self, op.tensors(self))
        return tuple(w for w in works if self.grad_input or w.made.kind != "grad_input")

    def to_json(self) -> dict[str, Any]:
        """The layer-spec keys of this op plus `batch`; `layer_from_json` reads them back.

        `grad_input` is left out where it is true: older versions do not know the key.
        """
        keys = [key for key in OPS[self.op].keys if key != "grad_input"]
        sizes = {key: _json_sizes(getattr(self, key)) for key in keys}
        return sizes if self.grad_input else sizes | {"grad_input": False}


def _json_sizes(value: Any) -> Any:
    """A size as JSON can hold it: it may be an integer of numpy or torch, or a tensor of one."""
    if isinstance(value, str):
        return value
    return list(map(operator.index, value)) if isinstance(value, tuple) else operator.index(value)


def layer_from_json(mapping: object, batch: int = 1, unnamed: str = "layer") -> Layer:
    """Check one table of layer-spec keys and make the layer of it.

    Args:
        mapping: a parsed table; sizes are whole numbers or lists of them.
        batch: N where the table has no `batch` of its own.
        unnamed: what errors call a layer that has no name.

    Raises:
        DataError: a key is unknown, missing or of the wrong type, or the shape is impossible;
            names the layer and the key.
    """
    table = SpecTable(mapping, layer_label(SpecTable(mapping, unnamed).text("name")))
    table.only(key for op in OPS.values() for key in op.keys)
    op_name = table.choice("op", OPS)
    op = OPS[op_name]
    table.only(op.keys, f"{op_name} takes no such key")
    defaults = {**op.keys, "batch": batch}
    layer = Layer(**{key: _value(table, key, defaults[key], op.dims) for key in defaults})
    layer.counts()  # raises where the shape is impossible
    return layer


def _value(table: SpecTable, key: str, default: object, dims: int | None) -> Any:
    if key in ("name", "op"):
        return table.text(key)
    if key == "grad_input":
        return table.boolean(key, default)
    if key == "padding" and isinstance(table.get(key, default), str):
        return _named_padding(table, default, dims)
    if key in _SMALLEST_SIZE:
        return table.sizes(key, dims, default, _SMALLEST_SIZE[key])
    return table.integer(key, default)


def _named_padding(table: SpecTable, default: object, dims: int | None) -> tuple[int, ...] | str:
    """A padding given by name: "same" as it is, "valid" as the zeros it stands for."""
    name = table.get("padding", default)
    if name not in ("same", "valid"):
        remedy = 'write "same", "valid", a number or a list of numbers'
        raise table.wrong("padding", f"{short_repr(name)} is unknown", remedy)
    return "same" if name == "same" else (0,) * (dims or 1)


#: Keys that hold one size per dimension, with the smallest size allowed.
_SMALLEST_SIZE = {
    "input": 1,
    "kernel": 1,
    "stride": 1,
    "padding": 0,
    "dilation": 1,
    "output_padding": 0,
}
