"""What a record keeps of a tensor: numpy values made the bits a trace stores, and back."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from hqtool.core.stats import stats_of
from hqtool.errors import DataError, UsageError
from hqtool.trace.sample_layout import layout_bytes
from hqtool.trace.schema import ELEMENTS, FIBRES, UNIFORM, WHOLE
from hqtool.vocab import SampleLayout, Stats

_T = TypeVar("_T")

#: numpy's type → the element type's name; other types go by numpy's name for them.
_NAMES = {np.dtype(name): name for name in ELEMENTS if name != "bfloat16"}

_NO_VALUES = np.empty(0, np.uint8)


class Content(NamedTuple):
    """A tensor as a trace keeps it.

    Args:
        element: an entry of schema.ELEMENT_NAMES.
        stored: the values' bits, 1-D; empty where no values are kept.
        shape: of the full tensor.
        stats: of the full tensor.
        sampled: WHOLE, UNIFORM or FIBRES, as a row has it.
        layout: the bytes stored after the values: a sample's layout.
        extremes: the bytes stored before the values: the extremes of each channel.
        used: the bytes stored before these: what quantized the tensor.
    """

    element: str
    stored: NDArray[Any]
    shape: tuple[int, ...]
    stats: Stats
    sampled: int = WHOLE
    layout: bytes = b""
    extremes: bytes = b""
    used: bytes = b""


def content_of(
    values: Any,
    dtype: str | None = None,
    stats: Stats | None = None,
    shape: Iterable[int] | None = None,
    sampled: bool = False,
    layout: SampleLayout | None = None,
) -> Content:
    """What a trace is to keep of a tensor; the arguments are those of `TraceWriter.write`.

    Raises:
        UsageError: `shape` is not a shape, or stats or shape are missing, but not all values given.
        DataError: a trace cannot hold values of this type, or they do not fill the shape.
    """
    if values is None:
        full = _shape(_given("shape", shape))
        return Content("none", _NO_VALUES, full, _given("stats", stats))
    array = _array(values)
    element = element_of(array, dtype)
    full = array.shape if shape is None and not sampled else _shape(_given("shape", shape))
    _check_size(array, full, sampled)
    stored = to_stored(array, element)
    if stats is None and not sampled:
        stats = stats_of(from_stored(stored, element))
    content = Content(element, stored, full, _given("stats", stats), UNIFORM if sampled else WHOLE)
    if not sampled or layout is None:
        return content
    return content._replace(sampled=FIBRES, layout=layout_of(layout, content, dtype))


def layout_of(layout: SampleLayout, content: Content, dtype: str | None) -> bytes:
    """A sample's layout as it is stored.

    Raises:
        DataError: it does not belong to this content.
    """
    extremes = _array(layout.extremes)
    if element_of(extremes, dtype) != content.element:
        raise DataError("a sample's extremes and values differ in type", "give one type")
    layout = replace(layout, extremes=to_stored(extremes, content.element))
    return layout_bytes(layout, content.stored.size, math.prod(content.shape))


def element_of(values: NDArray[Any], dtype: str | None = None) -> str:
    """The element type's name, a key of ELEMENTS.

    Args:
        values: an array.
        dtype: the element type asked for: its own, or "bfloat16" for raw bits in a uint16 array.

    Raises:
        DataError: a trace cannot hold values of this type.
    """
    own = _NAMES.get(values.dtype) or values.dtype.name
    name = own if dtype is None else dtype
    if name in ELEMENTS and own in (name, "uint16" if name == "bfloat16" else name):
        return name
    asked = "" if dtype is None else f", not {dtype}"
    raise DataError(f"values are {own}{asked}", f"give values of type {', '.join(ELEMENTS)}")


def to_stored(values: NDArray[Any], element: str) -> NDArray[Any]:
    """The bits of values of an element type, 1-D and contiguous (a view where possible)."""
    flat = np.ascontiguousarray(values).reshape(-1)
    bits = flat.view(np.uint16) if element == "bfloat16" else flat
    return bits.astype(ELEMENTS[element], copy=False)


def from_stored(stored: NDArray[Any], element: str) -> NDArray[Any]:
    """The values `to_stored` was given, 1-D; bfloat16 widened, exactly, to float32."""
    if element != "bfloat16":
        return stored
    return (stored.astype(np.uint32) << 16).view(np.float32)


def _given(name: str, value: _T | None) -> _T:
    if value is None:
        raise UsageError(f"{name} missing", "give stats and shape unless all values are recorded")
    return value


def _shape(sizes: Iterable[int]) -> tuple[int, ...]:
    try:
        shape = tuple(map(operator.index, sizes))
    except TypeError:
        shape = (-1,)
    if min(shape, default=0) < 0:
        raise UsageError(f"{sizes} is not a shape", "give sizes from 0 up")
    return shape


def _array(values: Any) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"not an array ({error})", "give a numpy array") from error


def _check_size(values: NDArray[Any], shape: tuple[int, ...], sampled: bool) -> None:
    full = math.prod(shape)
    if sampled and (values.ndim != 1 or values.size > full):
        raise DataError(
            f"a sample of shape {values.shape} of a tensor of shape {shape}",
            "give a 1-D sample no larger than the tensor",
        )
    if not sampled and values.size != full:
        raise DataError(
            f"{values.size} values do not fill shape {shape}", "or is it a sample (sampled=True)?"
        )
