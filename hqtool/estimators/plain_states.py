"""Estimators' states as dictionaries, lists, texts and numbers, and back, with the same bits."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import numpy as np

from hqtool.errors import DataError

_PLAIN = (type(None), bool, int, float, str)


def to_plain(value: Any) -> Any:
    """A state as plain values: arrays, named tuples and data classes as dictionaries.

    Raises:
        DataError: it holds anything else.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if type(value) in _PLAIN:
        return value
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": str(value.dtype)}
    if (names := _field_names(type(value))) is not None:
        fields = {name: to_plain(getattr(value, name)) for name in names}
        return {"class": f"{type(value).__module__}:{type(value).__qualname__}", "fields": fields}
    if isinstance(value, (tuple, list)):
        return [to_plain(each) for each in value]
    cause = f"an estimator's state of the type {type(value).__name__} cannot be saved"
    raise DataError(cause, "let it be a named tuple, a data class, numbers or arrays")


def from_plain(plain: Any) -> Any:
    """The state that was made plain; lists become tuples.

    Raises:
        DataError: it names a class that is not there, or is no plain value.
    """
    if type(plain) in _PLAIN:
        return plain
    if isinstance(plain, (list, tuple)):
        return tuple(map(from_plain, plain))
    if isinstance(plain, dict) and plain.keys() == {"array", "dtype"}:
        return np.array(plain["array"], plain["dtype"])
    if isinstance(plain, dict) and plain.keys() == {"class", "fields"}:
        fields = {name: from_plain(each) for name, each in plain["fields"].items()}
        return _class_called(plain["class"])(**fields)
    raise DataError(f"no saved state: {plain!r:.60}", "save it again")


def _field_names(kind: type) -> tuple[str, ...] | None:
    """Names of the fields of a named tuple or a data class; None of anything else."""
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    found = getattr(kind, "_fields", None)
    return found if issubclass(kind, tuple) else None


def _class_called(name: str) -> type:
    """A named tuple or data class of a module that is loaded."""
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type) or _field_names(found) is None:
        raise DataError(f"a saved state is of the class {name}, which is not here", "save it again")
    return found
