"""Reading lists that are typed as one word: 'output,grad_input', '4,8', '2..8'."""

from __future__ import annotations

from collections.abc import Sequence

from hqtool.errors import UsageError


def split_words(option: str, texts: Sequence[str]) -> tuple[str, ...]:
    """Comma-separated words of an option given once or more, each once, in order.

    Raises:
        UsageError: the option is given, and no word.
    """
    words = (word.strip() for text in texts for word in text.split(","))
    found = tuple(dict.fromkeys(word for word in words if word))
    if texts and not found:
        raise UsageError(
            f"{option} '{texts[-1]}' names nothing", "name one or more, or leave it out"
        )
    return found


def bit_widths(texts: Sequence[str]) -> tuple[int, ...]:
    """Bit-widths such as '8', '4,8' or '2..8', each once, in order.

    Raises:
        UsageError: a part is neither a whole number nor a rising range of them, or there is none.
    """
    words = split_words("--bits", texts)
    return tuple(dict.fromkeys(bits for word in words for bits in _widths(word)))


def _widths(word: str) -> range:
    first, dots, last = word.partition("..")
    try:
        found = range(int(first), int(last if dots else first) + 1)
    except ValueError:
        found = range(0)
    if not found:
        raise UsageError(f"--bits {word} is not a bit-width", "write 8, or 4,8, or 2..8")
    return found
