"""Reading a study's metric from what a run printed."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hqtool.errors import UsageError

#: What frameworks print for a number that is none.
_NON_FINITE = r"([-+]?(?:nan|inf(?:inity)?)\b)"

_REMEDY = "put the number in one group: 'accuracy: ([0-9.]+)'; further ones as (?:…)"


@dataclass(frozen=True, slots=True)
class Metric:
    """A pattern whose only group is a number; the last match on stdout counts.

    Args:
        pattern: a regular expression; ^ and $ match at the ends of each line.

    Raises:
        UsageError: it is no regular expression, or has no group, or several.
    """

    pattern: str

    def __post_init__(self) -> None:
        try:
            groups = re.compile(self.pattern, re.MULTILINE).groups
        except re.error as error:
            cause = f"'{self.pattern}' is not a regular expression: {error}"
            raise UsageError(cause, _REMEDY) from error
        if groups != 1:
            raise UsageError(f"'{self.pattern}' has {groups} groups, not one", _REMEDY)

    @property
    def name(self) -> str:
        """What tables call it: the words before the number, else 'metric'."""
        words = re.match(r"[\w ./-]+", self._before.replace(r"\s+", " ").replace(r"\s*", " "))
        return words[0].strip(" .") or "metric" if words else "metric"

    def read(self, text: str) -> float | None:
        """The last number printed; NaN or infinite where that was printed after it.

        None where nothing matches, or where what matches is no number.
        """
        last = _last(self.pattern, text)
        worse = _last(self._before + _NON_FINITE, text, re.IGNORECASE) if self._before else None
        if worse is not None and (last is None or worse.start(1) > last.start(1)):
            return float(worse[1])
        return None if last is None else _number(last[1])

    @property
    def _before(self) -> str:
        """The pattern up to its group; empty where it is not plain to see."""
        before = re.match(r"(?:[^\\(\[|]|\\.)*(?=\((?!\?))", self.pattern)
        return before[0] if before else ""


def _last(pattern: str, text: str, flags: int = 0) -> re.Match[str] | None:
    last = None
    for last in re.finditer(pattern, text, re.MULTILINE | flags):  # noqa: B007
        pass
    return last


def _number(text: str | None) -> float | None:
    """A number, also at the end of a sentence; None where it is none."""
    try:
        return float((text or "").strip().rstrip("."))
    except ValueError:
        return None
