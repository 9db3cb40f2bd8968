"""Making text safe to show: nothing in it controls the terminal, and any encoding can hold it."""

from __future__ import annotations

import codecs
import unicodedata
from typing import TextIO

#: The encoding error handler that writes ASCII marks for what an encoding lacks.
ASCII_MARKS = "hqtool.ascii-marks"

#: The characters that hqtool prints, in ASCII. All others lose their accents, or are escaped.
_MARKS = {
    "×": "x", "–": "-", "—": "-", "−": "-", "─": "-", "·": "*", "…": "...", "→": "->", "←": "<-",
    "↔": "<->", "≤": "<=", "≥": ">=", "≠": "!=", "±": "+/-", "∞": "inf", "‖": "||", "√": "sqrt",
    "█": "#", "▀": "'", "▄": ".", "┤": "|", "└": "+",
    "Δ": "Delta", "Σ": "Sum", "η": "eta", "∈": "in", "“": '"', "”": '"', "„": '"', "’": "'",
}  # fmt: skip

#: Unicode categories of characters that control a terminal, or cannot be written: controls,
#: invisible format characters (among them those that reverse the direction of writing), lone
#: surrogates, line breaks.
_UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def harmless(text: str) -> str:
    """The text with every character escaped that controls a terminal, such as ESC as \\x1b.

    To be called where a name, path or message from outside is shown, and nowhere else.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(c) if unicodedata.category(c) in _UNSAFE else c for c in text)


def encodable(text: str) -> str:
    """The text with lone surrogates escaped, which no UTF-8 can hold."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def encodable_in(text: str, out: TextIO) -> str:
    """The text with ASCII in place of the characters that a stream's encoding lacks."""
    encoding = getattr(out, "encoding", None) or "utf-8"
    return text.encode(encoding, ASCII_MARKS).decode(encoding)


def _escaped(text: str) -> str:
    return text.encode("unicode_escape").decode("ascii")


def _ascii_marks(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_mark, error.object[error.start : error.end])), error.end


def _mark(character: str) -> str:
    if character in _MARKS:
        return _MARKS[character]
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode("ascii")
    return plain or _escaped(character)


codecs.register_error(ASCII_MARKS, _ascii_marks)
