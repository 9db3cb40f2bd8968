"""The terminal that reports are printed on."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console


class Screen(Console):
    """A rich console that draws alike in every encoding; its stream replaces what one lacks."""

    def __init__(self, out: TextIO) -> None:
        super().__init__(file=out, highlight=False, emoji=False)

    @property
    def encoding(self) -> str:
        """UTF-8, which has all characters."""
        return "utf-8"

    def on_broken_pipe(self) -> None:
        """Leave it to the command, for which a closed pipe is no error."""
        raise BrokenPipeError
