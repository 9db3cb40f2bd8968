"""Reading lists that are typed as one word: 'output,grad_input', '4,8', '2..8'."""

from __future__ import annotations

from collections.abc import Iterable

from hqtool.errors import UsageError


def split_words(texts: Iterable[str]) -> tuple[str, ...]:
    """Comma-separated words of an option given once or more, each once, in order."""
    words = (word.strip() for text in texts for word in text.split(","))
    return tuple(dict.fromkeys(word for word in words if word))


def bit_widths(texts: Iterable[str]) -> tuple[int, ...]:
    """Bit-widths such as '8', '4,8' or '2..8', each once, in order.

    Raises:
        UsageError: a part is neither a whole number nor a rising range of them.
    """
    return tuple(dict.fromkeys(bits for word in split_words(texts) for bits in _widths(word)))


def _widths(word: str) -> range:
    first, dots, last = word.partition("..")
    try:
        found = range(int(first), int(last if dots else first) + 1)
    except ValueError:
        found = range(0)
    if not found:
        raise UsageError(f"--bits {word} is not a bit-width", "write 8, or 4,8, or 2..8")
    return found
