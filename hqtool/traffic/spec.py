"""Layer specs: TOML or JSON files that list a network's layers (schema "hqtool.layers/1")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from hqtool.nearest import did_you_mean
from hqtool.spec_file import check_schema, load_spec_file
from hqtool.spec_table import SpecTable, short_repr
from hqtool.traffic.bill import DEFAULT_BITS, WIDEST_BITS, Bits
from hqtool.traffic.layers import Layer, layer_from_json

SCHEMA = "hqtool.layers/1"


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """What a layer spec says.

    Args:
        path: the file it was read from.
        bits: the file's bit-widths, with hqtool's where it names none.
        layers: in the file's order, each name once.
        notes: sentences on what it leaves out.
    """

    path: Path
    bits: Bits
    layers: tuple[Layer, ...]
    notes: tuple[str, ...] = ()


def load_spec(path: str | Path) -> LayerSpec:
    """Read a layer spec: TOML or JSON by its suffix, or by its content where the suffix is another.

    Raises:
        DataError: the file is missing or unreadable, or anything in it is not as the schema
            wants it; names the file, the layer and the key.
    """
    return load_spec_file(path, lambda top: _layer_spec(Path(path), top))


def _layer_spec(path: Path, top: SpecTable) -> LayerSpec:
    check_schema(top, SCHEMA, "a layer spec")
    top.only(("schema", "defaults", "layer"))
    defaults = SpecTable(top.get("defaults", {}), "[defaults]")
    defaults.only(("batch", "bits"))
    layers = _layers(top, defaults.integer("batch", default=1))
    return LayerSpec(path, _bits(defaults), layers)


def _bits(defaults: SpecTable) -> Bits:
    known = asdict(DEFAULT_BITS)
    table = SpecTable(defaults.get("bits", {}), "[defaults] bits")
    table.only(known)
    return Bits(
        **{key: table.integer(key, width, high=WIDEST_BITS) for key, width in known.items()}
    )


def _layers(top: SpecTable, batch: int) -> tuple[Layer, ...]:
    tables = top.get("layer")
    if not isinstance(tables, list) or not tables:
        raise top.wrong(
            "layer", "is not a list of at least one layer", "head each layer with [[layer]]"
        )
    layers: dict[str, Layer] = {}
    for number, table in enumerate(tables, start=1):
        layer = layer_from_json(table, batch, unnamed=f"layer number {number}")
        if layer.name in layers:
            raise layer.wrong("name", f"layer number {number} has it too", "name each layer once")
        _check_sources(layer, layers)
        layers[layer.name] = layer
    return tuple(layers.values())


def _check_sources(layer: Layer, earlier: Mapping[str, Layer]) -> None:
    for name in layer.sources:
        if name not in earlier:
            cause = f"{short_repr(name)} is no earlier layer"
            remedy = did_you_mean(name, earlier).strip() or "list each layer after those it reads"
            raise layer.wrong("from", cause, remedy)
