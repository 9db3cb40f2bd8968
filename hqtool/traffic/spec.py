"""Layer specs: TOML or JSON files that list a network's layers (schema "hqtool.layers/1")."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from hqtool.errors import DataError
from hqtool.inputs import bytes_of
from hqtool.traffic.bill import DEFAULT_BITS, WIDEST_BITS, Bits
from hqtool.traffic.layers import Layer, layer_from_json
from hqtool.traffic.spec_table import SpecTable

SCHEMA = "hqtool.layers/1"


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """What a layer spec says.

    Args:
        path: the file it was read from.
        bits: the file's bit-widths, with hqtool's where it names none.
        layers: in the file's order, each name once.
    """

    path: Path
    bits: Bits
    layers: tuple[Layer, ...]


def load_spec(path: str | Path) -> LayerSpec:
    """Read a layer spec: TOML or JSON by its suffix, or by its content where the suffix is another.

    Raises:
        DataError: the file is missing or unreadable, or anything in it is not as the schema
            wants it; names the file, the layer and the key.
    """
    path = Path(path)
    try:
        parsed = _parse(_read_text(path), path.suffix.lower())
        return _layer_spec(path, SpecTable(parsed, "the file"))
    except DataError as error:
        raise DataError(f"{path}: {error.cause}", error.remedy) from error


def _layer_spec(path: Path, top: SpecTable) -> LayerSpec:
    _check_schema(top)
    top.only(("schema", "defaults", "layer"))
    defaults = SpecTable(top.get("defaults", {}), "[defaults]")
    defaults.only(("batch", "bits"))
    layers = _layers(top, defaults.integer("batch", default=1))
    return LayerSpec(path, _bits(defaults), layers)


def _check_schema(top: SpecTable) -> None:
    schema = top.text("schema")
    if schema == SCHEMA:
        return
    family, _, version = schema.partition("/")
    if family == "hqtool.layers" and version.isdecimal() and version > "1":
        raise top.wrong("schema", f"{schema!r} is newer than this hqtool reads", "upgrade hqtool")
    raise top.wrong("schema", f"{schema!r} is not a layer spec", f'write schema = "{SCHEMA}"')


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
        layers[layer.name] = layer
    return tuple(layers.values())


# --- from file to table -------------------------------------------------------------------------


def _read_text(path: Path) -> str:
    try:
        return bytes_of(path).decode("utf-8-sig")
    except OSError as error:
        remedy = "check the path, and that the file may be read"
        raise DataError(error.strerror or str(error), remedy) from error
    except UnicodeDecodeError as error:
        cause = f"is not UTF-8 at byte {error.start}"
        raise DataError(cause, "save the file as UTF-8") from error


def _loads_json(text: str) -> object:
    return json.loads(text, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object as a dict; a key given twice, of which `dict` would keep one, is refused."""
    twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"key {twice[0]!r} is given twice")
    return dict(pairs)


_PARSERS: dict[str, Callable[[str], object]] = {".toml": tomllib.loads, ".json": _loads_json}


def _parse(text: str, suffix: str) -> object:
    suffixes = [suffix] if suffix in _PARSERS else list(_PARSERS)
    complaints = []
    for format_suffix in suffixes:
        try:
            return _PARSERS[format_suffix](text)
        except (ValueError, RecursionError) as error:
            complaints.append(f"not {format_suffix[1:].upper()}: {error}")
    raise DataError("; ".join(complaints), "correct the syntax, or name the file .toml or .json")
