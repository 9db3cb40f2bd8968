"""Parsed tables (TOML, JSON) read key by key, with errors that say where."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

from hqtool.errors import DataError
from hqtool.nearest import did_you_mean

#: The largest whole number a table may hold: every JSON reader keeps it exactly.
LARGEST = 2**53


class SpecTable:
    """A parsed table, read key by key: whatever is wrong is a DataError that says where.

    Args:
        value: what a parser found where a table belongs.
        where: what errors call this table.

    Raises:
        DataError: `value` is not a table.
    """

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, Mapping):
            cause = f"{where}: {short_repr(value)} is not a table"
            raise DataError(cause, "write a table of keys and values")
        self._where = where
        self._values = value

    def __contains__(self, key: str) -> bool:
        """Whether the table has a key."""
        return key in self._values

    def only(self, known: Iterable[str], cause: str = "unknown key") -> None:
        """Raise DataError at the first key that is not one of `known`."""
        names = list(dict.fromkeys(known))
        for key in self._values:
            if key not in names:
                raise self.wrong(key, cause, _hint(key, names))

    def get(self, key: str, default: object = None) -> object:
        """The raw value; DataError where it is missing and has no default."""
        if key not in self._values and default is None:
            raise self.wrong(key, "missing", f"add the key {key}")
        return self._values.get(key, default)

    def text(self, key: str) -> str:
        """A non-empty string, or DataError."""
        value = self.get(key)
        if not isinstance(value, str) or not value:
            raise self.wrong(key, f"{short_repr(value)} is not a text", "write a quoted text")
        return value

    def texts(self, key: str, default: tuple[str, ...] = (), least: int = 0) -> tuple[str, ...]:
        """A list of at least so many non-empty strings; a single string stands for a list of it.

        Raises:
            DataError: anything else; or it has too few, or is missing and has no default.
        """
        value: Any = self._values.get(key, default) if default or not least else self.get(key)
        values = [value] if isinstance(value, str) else value
        sound = isinstance(values, (list, tuple)) and all(isinstance(v, str) and v for v in values)
        if not sound or len(values) < least:
            wanted = f"a list of {least} or more texts" if least else "a list of texts"
            cause = f"{short_repr(value)} is not {wanted}"
            raise self.wrong(key, cause, 'write a list of quoted texts, such as ["a", "b"]')
        return tuple(values)

    def choice(self, key: str, known: Iterable[str]) -> str:
        """A string that is one of `known`, or DataError."""
        value, names = self.text(key), list(known)
        if value not in names:
            raise self.wrong(key, f"{short_repr(value)} is unknown", _hint(value, names))
        return value

    def integer(self, key: str, default: object = None, low: int = 1, high: int = LARGEST) -> int:
        """A whole number from `low` to `high`, or DataError; True, 3.0 and NaN are none."""
        return self._whole(key, self.get(key, default), low, high)

    def number(self, key: str, low: float = 0.0, high: float = math.inf) -> float:
        """A finite number from `low` to `high`, or DataError; True and NaN are none."""
        value = self.get(key)
        sound = type(value) is int or (isinstance(value, float) and math.isfinite(value))
        if sound and low <= value <= high:  # type: ignore[operator]
            return float(value)  # type: ignore[arg-type]
        span = f"of {low:g} or more" if high == math.inf else f"from {low:g} to {high:g}"
        cause = f"{short_repr(value)} is not a number {span}"
        raise self.wrong(key, cause, f"write a number {span}, without quotes")

    def boolean(self, key: str, default: object = None) -> bool:
        """True or False, or DataError."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, f"{short_repr(value)} is neither", "write true or false")
        return value

    def sizes(
        self, key: str, dims: int | None, default: object = None, low: int = 1
    ) -> tuple[int, ...]:
        """Whole numbers, one per dimension; a single one serves all `dims` (None: any number).

        Raises:
            DataError: missing, not whole numbers, below `low`, or a list of the wrong length.
        """
        value = self.get(key, default)
        values = value if isinstance(value, (list, tuple)) else [value] * (dims or 1)
        if len(values) != (dims or len(values)) or not values:
            cause = f"{len(values)} numbers, not {dims or '1 or more'}"
            raise self.wrong(key, cause, "write one number, or a list with one per dimension")
        return tuple(self._whole(key, size, low) for size in values)

    def wrong(self, key: str, cause: str, remedy: str) -> DataError:
        """The error that says what is wrong with one key of this table."""
        return wrong_key(self._where, key, cause, remedy)

    def _whole(self, key: str, value: object, low: int, high: int = LARGEST) -> int:
        if type(value) is int and low <= value <= high:
            return value
        span = f"from {low} to {'2^53' if high == LARGEST else high}"
        cause = f"{short_repr(value)} is not a whole number {span}"
        raise self.wrong(key, cause, f"write a whole number {span}, without quotes or point")


def wrong_key(where: str, key: str, cause: str, remedy: str) -> DataError:
    """The error that says what is wrong with one key, and where."""
    return DataError(f"{where}, key {key!r}: {cause}", remedy)


def short_repr(value: object) -> str:
    """A value in one short line, also where Python refuses to print it: too many digits."""
    try:
        return reprlib.repr(value)
    except ValueError:
        return "a number of thousands of digits"


def _hint(word: str, known: list[str]) -> str:
    return did_you_mean(word, known).strip() or f"use one of: {', '.join(known)}"
