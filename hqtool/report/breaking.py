"""Breaking names and sentences over lines, between words and never within one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import chain

from rich.cells import cell_len

#: Where a line may end: after a space, and after the signs that join the parts of a name or a
#: spec; a number is not broken after its decimal point.
_AFTER = re.compile(r"(?<=[ :,/@])|(?<=\.)(?!(?<=\d\.)\d)")

#: Where a line may also end if a part is still too long.
_LAST_RESORT = re.compile(r"(?<=[=_×-])")


def broken(text: str, width: int) -> list[str]:
    """A text as lines of at most `width` terminal cells, except for parts that are longer."""
    parts = chain.from_iterable(_parts(part, width) for part in _split(_AFTER, text))
    return [line.rstrip() for line in _joined(parts, width)]


def longest_piece(text: str) -> int:
    """Cells of the longest part that is never broken."""
    parts = (p for part in _split(_AFTER, text) for p in _split(_LAST_RESORT, part))
    return max((cell_len(part.rstrip()) for part in parts), default=0)


def _parts(part: str, width: int) -> Iterable[str]:
    return [part] if cell_len(part.rstrip()) <= width else _split(_LAST_RESORT, part)


def _joined(parts: Iterable[str], width: int) -> list[str]:
    """Parts joined into lines, as many in each as fit."""
    lines = [""]
    for part in parts:
        if lines[-1] and cell_len((lines[-1] + part).rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return lines


def _split(place: re.Pattern[str], text: str) -> list[str]:
    return [part for part in place.split(text) if part]
