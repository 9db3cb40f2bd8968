"""Options that take one of several values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click
from click.shell_completion import CompletionItem

from hqtool.nearest import did_you_mean


class NamedChoice(click.Choice[str]):
    """A click.Choice that answers a mistyped value with the nearest known one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The value, if it is one of the choices."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            hint = did_you_mean(str(value), map(str, self.choices)).strip()
            self.fail(error.message + (f" ({hint})" if hint else ""), param, ctx)


def choice_of(names: Iterable[str]) -> NamedChoice:
    """The type of an option whose value is one of these names."""
    return NamedChoice(list(names))


class WholeNumber(click.IntRange):
    """A click.IntRange whose errors and help name it as people do."""

    name = "whole number"


class NamedWords(click.ParamType[str]):
    """Comma-separated words, completed with known names; what reads them says what is wrong."""

    name = "words"

    def __init__(self, known: Callable[[], Iterable[str]]) -> None:
        self._known = known

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The words so far, the last of them completed."""
        before, comma, begun = incomplete.rpartition(",")
        return [
            CompletionItem(before + comma + name)
            for name in self._known()
            if name.startswith(begun)
        ]
