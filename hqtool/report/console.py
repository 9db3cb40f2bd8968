"""The terminal that reports are drawn on."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console


class Screen(Console):
    """A rich console that draws the same in every encoding: its stream knows the marks for that."""

    def __init__(self, out: TextIO) -> None:
        super().__init__(file=out, highlight=False)

    @property
    def encoding(self) -> str:
        """What can be drawn: everything."""
        return "utf-8"

    def on_broken_pipe(self) -> None:
        """Leave it to the command, which knows that a reader who has enough is no error."""
        raise BrokenPipeError
