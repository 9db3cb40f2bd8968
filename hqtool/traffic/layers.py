"""Layers for the bill: checked tables of layer-spec keys, and what their op makes of them."""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from typing import Any

from hqtool.nearest import known_names
from hqtool.spec_table import SpecTable, short_repr
from hqtool.traffic.geometry import Counts, Geometry, layer_label
from hqtool.traffic.ops.table import OPS, Op, SameAs, Unsaid
from hqtool.traffic.works import Tensors, Work

__all__ = ["OPS", "Counts", "Layer", "layer_from_json"]


@dataclass(frozen=True, slots=True)
class Layer(Geometry):
    """One layer; `layer_from_json` makes checked ones."""

    def tensors(self) -> Tensors:
        """W, X and Y of one such layer.

        Raises:
            DataError: the geometry is impossible; names the layer and the key.
        """
        return OPS[self.op].tensors(self)

    def counts(self) -> Counts:
        """Elements of W, X and Y of one such layer; raises as `tensors` does."""
        return self.tensors().counts

    def works(self) -> tuple[Work, ...]:
        """What one such layer computes, forward and backward; raises as `tensors` does.

        A layer that reads the network's own input has no G_X: no framework computes it.
        """
        works = OPS[self.op].works(self, self.tensors())
        return tuple(w for w in works if self.grad_input or w.made.kind != "grad_input")

    def to_json(self) -> dict[str, Any]:
        """The layer-spec keys of this op plus `batch`; `layer_from_json` reads them back.

        What is not said is left out, and `grad_input` where it is true: older versions do not know
        the key.
        """
        op = OPS[self.op]
        values = {key: getattr(self, _field(op, key)) for key in op.keys}
        if self.grad_input:
            del values["grad_input"]
        said = {k: v for k, v in values.items() if not _is_empty(v) and op.keys[k] != Unsaid(v)}
        return {key: _json_value(key, value) for key, value in said.items()}


def _field(op: Op, key: str) -> str:
    return "sources" if key == "from" else op.fields.get(key, key)


def _is_empty(value: Any) -> bool:
    return isinstance(value, tuple) and not value


def _json_value(key: str, value: Any) -> Any:
    """As JSON can hold it: a size may be an integer of numpy or torch, or a tensor of one."""
    if isinstance(value, (str, bool)):
        return value
    if isinstance(value, tuple):
        values = [_json_value(key, each) for each in value]
        return values[0] if key == "m" else values
    return operator.index(value)


# --- reading ------------------------------------------------------------------------------------


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
    table.only(_WORDS)
    name = table.choice("op", OPS)
    layer = Layer(**_values(table, name, batch))
    layer.tensors()  # raises where the shape is impossible
    return layer


def _values(table: SpecTable, name: str, batch: int) -> dict[str, Any]:
    op, values = OPS[name], dict[str, Any]()
    table.only((*op.keys, *op.also), f"{name} takes no such key")
    for key, default in {**op.keys, "batch": batch}.items():
        word = _word(table, op, key)
        if word not in table and isinstance(default, SameAs):
            value = values[default.key]
        elif word not in table and isinstance(default, Unsaid):
            value = default.value
        else:
            value = _value(table, op, word, default)
        values[_field(op, key)] = value
    return values


def _word(table: SpecTable, op: Op, key: str) -> str:
    """The word that a table uses for a key."""
    used = [word for word in (key, *op.also) if word in table and op.also.get(word, key) == key]
    if len(used) > 1:
        raise table.wrong(used[1], f"{used[0]} says the same", f"leave {used[1]} out")
    return used[0] if used else key


def _value(table: SpecTable, op: Op, word: str, default: object) -> Any:
    default = None if isinstance(default, SameAs | Unsaid) else default
    if word in ("name", "op"):
        return table.text(word)
    if word == "from":
        return table.texts(word, least=1)
    if word == "kind":
        return _kind(table, op, default)
    if isinstance(default, bool):
        return table.boolean(word, default)
    if word == "padding" and isinstance(table.get(word, default), str):
        return _named_padding(table, default, _dims(table, op))
    if word in _SMALLEST_SIZE:
        return table.sizes(word, _dims(table, op), default, _SMALLEST_SIZE[word])
    return table.integer(word, default, low=_SMALLEST.get(word, 1))


def _dims(table: SpecTable, op: Op) -> int | None:
    """Spatial dimensions; where the op does not tell, but has windows, the input must."""
    if op.dims is not None or "kernel" not in op.keys:
        return op.dims
    sizes = table.get("input")
    if not isinstance(sizes, (list, tuple)):
        cause = f"{short_repr(sizes)} does not tell how many dimensions there are"
        raise table.wrong("input", cause, "write a list, such as [56, 56]")
    return len(sizes)


def _kind(table: SpecTable, op: Op, default: object) -> str:
    """One of the op's kinds, however it is written: "LeakyReLU", "leaky_relu", "BatchNorm2d"."""
    known = {_plain(kind): kind for kind in op.kinds}
    given = str(default) if "kind" not in table else table.text("kind")
    plain = _of_module(_plain(given), table.text("op"))
    if plain not in known:
        remedy = known_names(given, list(op.kinds))
        raise table.wrong("kind", f"{short_repr(given)} is unknown", remedy)
    return known[plain]


def _plain(kind: str) -> str:
    return kind.lower().replace("_", "").replace("-", "")


def _of_module(name: str, op: str) -> str:
    """The kind in PyTorch's name of a module: "max" of a pool called "adaptivemaxpool2d"."""
    found = re.fullmatch(rf"(?:adaptive)?(.+){op}(?:[123]d)?", name)
    return found[1] if found else name


def _named_padding(table: SpecTable, default: object, dims: int | None) -> tuple[int, ...] | str:
    """A padding given by name: "same" as it is, "valid" as the zeros it stands for."""
    name = table.get("padding", default)
    if name not in ("same", "valid"):
        remedy = 'write "same", "valid", a number or a list of numbers'
        raise table.wrong("padding", f"{short_repr(name)} is unknown", remedy)
    return "same" if name == "same" else (0,) * (dims or 1)


#: Every key of every operation.
_WORDS = dict.fromkeys(key for op in OPS.values() for key in (*op.keys, *op.also))

#: Keys that hold one size per dimension, with the smallest size allowed.
_SMALLEST_SIZE = {
    "input": 1,
    "m": 1,
    "kernel": 1,
    "stride": 1,
    "padding": 0,
    "dilation": 1,
    "output_padding": 0,
    "output_size": 1,
}

#: Keys that hold one number, where the smallest allowed is not 1.
_SMALLEST = {"operands": 2}
