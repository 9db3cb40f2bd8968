"""Products of two activations: their names, and how they are described."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Size

from hqtool.recipes.layer_facts import PRODUCT
from hqtool.watch.names import Frame
from hqtool.watch.products import Product


def next_part(frame: Frame, part: str) -> str:
    """The name of the next such product within one call of a module: matmul, matmul2 and so on."""
    number = frame.products[part] = frame.products.get(part, 0) + 1
    return part if number == 1 else f"{part}{number}"


def described(product: Product) -> Callable[[str, Size], dict[str, Any]]:
    """Layer name, shape of the first operand → layer-spec keys of a product of two activations."""
    geometry, second = product.geometry, product.right.shape
    return lambda name, first: _matmul(geometry(name, first, second))


def _matmul(layer: dict[str, Any]) -> dict[str, Any]:
    """The keys of a matrix product, from those of the linear layer that multiplies as often."""
    if layer.get("op") != "linear":
        return layer
    rows = layer["input"] if isinstance(layer["input"], int) else math.prod(layer["input"])
    sizes = {"m": rows * layer["batch"], "k": layer["in_channels"], "n": layer["out_channels"]}
    return {"name": layer["name"], "op": PRODUCT, **sizes, "repeat": layer["repeat"]}
