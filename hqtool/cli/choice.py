"""Options that take one of several values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

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
