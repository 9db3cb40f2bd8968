"""A network's inputs as a command line gives them: 1x3x224x224, 1x128:int64, NAME=1x128:int64."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from hqtool.errors import UsageError
from hqtool.nearest import known_names

#: The element types that a network may read.
INPUT_DTYPES = (
    *("float32", "float16", "bfloat16", "float64"),
    *("int64", "int32", "int16", "int8", "uint8", "bool"),
)

_INPUT = re.compile(r"((?P<name>\w+)=)?(?P<shape>[0-9]+([x×][0-9]+)*)(:(?P<dtype>\w+))?")
_REMEDY = "write sizes such as 1x3x224x224, of tokens 1x128:int64, or NAME=1x128:int64"


@dataclass(frozen=True, slots=True)
class InputShape:
    """One input of a network.

    Args:
        shape: its sizes, batch included.
        dtype: one of `INPUT_DTYPES`.
        name: the forward method's argument; None: it is passed by its position.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    name: str | None = None


def parse_input(text: str) -> InputShape:
    """Read one input.

    Raises:
        UsageError: it is malformed, a size is 0, or its type is unknown.
    """
    found = _INPUT.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"--input {text!r} is not a shape", _REMEDY)
    shape = tuple(int(size) for size in re.split("[x×]", found["shape"]))
    if 0 in shape:
        raise UsageError(f"--input {text!r} has no elements", "make every size 1 or more")
    dtype = found["dtype"] or "float32"
    if dtype not in INPUT_DTYPES:
        raise UsageError(
            f"--input {text!r}: unknown type {dtype!r}", known_names(dtype, INPUT_DTYPES)
        )
    return InputShape(shape, dtype, found["name"])


def parse_dims(texts: Sequence[str]) -> dict[str, int]:
    """Read sizes of dynamic dimensions, such as "batch=1".

    Raises:
        UsageError: one is malformed or given twice.
    """
    sizes: dict[str, int] = {}
    for text in texts:
        name, _, size = (word.strip() for word in text.partition("="))
        if not name or not re.fullmatch("0*[1-9][0-9]*", size):
            raise UsageError(
                f"--dim {text!r} is not NAME=SIZE", "write a size such as --dim batch=1"
            )
        if name in sizes:
            raise UsageError(f"--dim {name} is given twice", "give each dimension once")
        sizes[name] = int(size)
    return sizes
