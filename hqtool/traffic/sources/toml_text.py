"""Layer specs as TOML that people can edit."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from hqtool.traffic.bill import Bits
from hqtool.traffic.layers import Layer
from hqtool.traffic.ops.table import OPS, SameAs
from hqtool.traffic.spec import SCHEMA


def spec_text(layers: Sequence[Layer], bits: Bits, comments: Sequence[str] = ()) -> str:
    """A layer spec as TOML: `load_spec` reads the same layers from it.

    Keys that have their default value are left out; the commonest batch becomes the default.

    Args:
        comments: lines at the head of the file.
    """
    batch = Counter(layer.batch for layer in layers).most_common(1)[0][0]
    head = [
        *(line for comment in comments for line in _comment(comment)),
        "",
        f'schema = "{SCHEMA}"',
        "",
        "[defaults]",
        f"batch = {batch}",
        f"bits = {_inline(asdict(bits))}",
    ]
    lines = [*head, *(line for layer in layers for line in _layer_lines(layer, batch))]
    return "\n".join(lines).lstrip("\n") + "\n"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, 100, initial_indent="# ", subsequent_indent="# ")


def _layer_lines(layer: Layer, batch: int) -> Iterator[str]:
    yield ""
    yield "[[layer]]"
    defaults: dict[str, Any] = {**OPS[layer.op].keys, "batch": batch}
    values = layer.to_json()
    for key, value in values.items():
        default = defaults[key]
        usual = values.get(default.key) if isinstance(default, SameAs) else default
        if value != usual and _short(value) != usual:
            counts = key in ("input", "from") and len(value) > 1  # their number matters
            is_whole = counts or (key, layer.op) == ("input", "pool")
            yield f"{key} = {_toml(value if is_whole else _short(value))}"


def _short(value: Any) -> Any:
    """A single value for a list of equal ones."""
    return value[0] if isinstance(value, list) and len(set(value)) == 1 else value


def _toml(value: Any) -> str:
    """A TOML value: its strings, numbers and lists of numbers are written as those of JSON."""
    return json.dumps(value, ensure_ascii=False)


def _inline(table: Mapping[str, int]) -> str:
    return "{" + ", ".join(f"{key} = {value}" for key, value in table.items()) + "}"
