"""Defaults for a command's options from a TOML file in the current folder."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Collection
from typing import Any

import click

from hqtool.cli.output import Command
from hqtool.errors import UsageError
from hqtool.nearest import did_you_mean, known_names

#: File → the nested tables that hold a command's options. Only the first file found is read.
CONFIG_TABLES = {"hqtool.toml": ("{}",), "pyproject.toml": ("tool", "hqtool", "{}")}

#: The tables there may be: commands that take defaults.
COMMANDS_WITH_DEFAULTS = ("capture", "train")

#: An option's type → what errors say of a value of another type, and an example of a right one.
_TYPES = {
    bool: ("neither true nor false", "true"),
    int: ("not a whole number", "100"),
    float: ("not a number", "0.5"),
    list: ("not a list of texts", '["…"]'),
    str: ("not a text", '"…"'),
}

_FILE_KEY = "hqtool.defaults"


def config_option(only_typed: Collection[str]) -> Callable[[Command], Command]:
    """The option that turns the file of defaults off; it must be applied before all others.

    Args:
        only_typed: long names of options that a file cannot give.
    """

    def take(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
        if wanted:
            _take_defaults(ctx, {"config", "help", *only_typed})

    return click.option(
        "--config/--no-config",
        default=True,
        is_eager=True,
        expose_value=False,
        callback=take,
        help="Take defaults from the current folder's hqtool.toml or pyproject.toml.",
    )


def defaults_used() -> str | None:
    """A sentence that names the defaults this command took from a file; None without any."""
    ctx = click.get_current_context()
    source = click.core.ParameterSource.DEFAULT_MAP
    used = [
        name
        for name, option in _options(ctx.command).items()
        if ctx.get_parameter_source(str(option.name)) is source
    ]
    return f"defaults from {ctx.meta[_FILE_KEY]}: {', '.join(used)}" if used else None


def config_file(ctx: click.Context) -> dict[str, str]:
    """The file that defaults came from, if any → what errors call it."""
    return {ctx.meta[_FILE_KEY]: "the file of defaults"} if _FILE_KEY in ctx.meta else {}


def _take_defaults(ctx: click.Context, only_typed: Collection[str]) -> None:
    """Give the file's options to click, for which the command line takes precedence."""
    file = next(filter(os.path.isfile, CONFIG_TABLES), None)
    if file is None:
        return
    known = {n: option for n, option in _options(ctx.command).items() if n not in only_typed}
    found = _command_table(file, [name.format(ctx.command.name) for name in CONFIG_TABLES[file]])
    for name in found:
        if name not in known:
            raise UsageError(
                f"{file}: no such option: {name}",
                f"{did_you_mean(name, known)}use: {', '.join(known)}",
            )
    ctx.meta[_FILE_KEY] = file
    ctx.default_map = {
        str(known[name].name): _require_type(file, name, known[name], value)
        for name, value in found.items()
    }


def _options(command: click.Command) -> dict[str, click.Option]:
    """A command's options by their long names without the dashes."""
    return {
        text.removeprefix("--"): option
        for option in command.params
        if isinstance(option, click.Option)
        for text in option.opts
        if text.startswith("--")
    }


def _command_table(file: str, tables: list[str]) -> dict[str, Any]:
    """The innermost of these tables. The table around it is hqtool's and may hold only tables."""
    table = _parse(file)
    for name in tables[:-1]:
        table = _inner(file, table, name)
    for name, value in table.items():
        if isinstance(value, dict) and name not in COMMANDS_WITH_DEFAULTS:
            whole = ".".join([*tables[:-1], name])
            remedy = known_names(name, COMMANDS_WITH_DEFAULTS)
            raise UsageError(f"{file}: no such table: [{whole}]", remedy)
        if not isinstance(value, dict):
            cause = f"{file}: {name} is outside the tables of the commands"
            raise UsageError(cause, f"put it under [{'.'.join(tables)}]")
    return _inner(file, table, tables[-1])


def _inner(file: str, table: dict[str, Any], name: str) -> dict[str, Any]:
    inner = table.get(name, {})
    if not isinstance(inner, dict):
        raise UsageError(f"{file}: {name} is not a table", f"begin it with a line [{name}]")
    return inner


def _parse(file: str) -> dict[str, Any]:
    try:
        with open(file, "rb") as source:
            return tomllib.load(source)
    except ValueError as error:  # not TOML, or not UTF-8
        raise UsageError(
            f"{file} is not TOML: {error}", "correct it, or give --no-config"
        ) from None
    except OSError as error:
        cause = f"{file} cannot be read: {error.strerror}"
        raise UsageError(cause, "correct it, or give --no-config") from None


def _require_type(file: str, name: str, option: click.Option, value: Any) -> Any:
    """A value, if it is of the option's type: TOML distinguishes numbers from texts."""
    kind, given = _type_of(option), f"{file}: {name} = {value!r}"
    if kind is list and isinstance(value, str):
        value = [value]
    if kind is float and type(value) is int:
        value = float(value)
    texts = value if kind is list and isinstance(value, list) else []
    if type(value) is not kind or not all(isinstance(each, str) for each in texts):
        fault, example = _TYPES[kind]
        raise UsageError(f"{given} is {fault}", f"write it like {name} = {example}")
    if isinstance(option.type, click.Choice) and value not in option.type.choices:
        names = option.type.choices
        raise UsageError(given, f"{did_you_mean(str(value), names)}one of {', '.join(names)}")
    return value


def _type_of(option: click.Option) -> type:
    if option.is_flag:
        return bool
    if option.multiple:
        return list
    if isinstance(option.type, click.types.IntParamType):
        return int
    return float if isinstance(option.type, click.types.FloatParamType) else str
