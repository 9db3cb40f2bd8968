"""Where results go: tables to stdout, data to a file or, with '-', to stdout instead."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TextIO

import click

from hqtool.errors import DataError, UsageError
from hqtool.report.export import render_csv, render_json
from hqtool.report.model import Report
from hqtool.report.table import render

Command = Callable[..., Any]

json_option = click.option(
    "--json", "json_to", metavar="FILE|-", help="Write all figures as JSON; '-' is stdout."
)
csv_option = click.option(
    "--csv", "csv_to", metavar="FILE|-", help="Write the rows as CSV; '-' is stdout."
)
force_option = click.option("-f", "--force", is_flag=True, help="Overwrite existing files.")
quiet_option = click.option("-q", "--quiet", is_flag=True, help="No progress or messages.")


def file_options(command: Command) -> Command:
    """The options of every command that writes results to files."""
    for option in (quiet_option, force_option, csv_option, json_option):
        command = option(command)
    return command


def check_targets(targets: Mapping[str, str | None], force: bool) -> None:
    """Before any work: refuse what could not be written at its end.

    Args:
        targets: option → the file it names, '-' or None.

    Raises:
        UsageError: two name the same, or a file exists and `force` is not given.
    """
    named = {option: target for option, target in targets.items() if target is not None}
    first_of: dict[str, str] = {}
    for option, target in named.items():
        if target in first_of:
            where = "stdout" if target == "-" else target
            raise UsageError(f"{first_of[target]} and {option} both want {where}", "name two files")
        first_of[target] = option
        if target != "-" and os.path.exists(target) and not force:
            raise UsageError(f"{target} exists", "choose another name, or overwrite with -f")


@contextmanager
def written(target: str, quiet: bool, lines: bool = False) -> Iterator[tuple[TextIO, str]]:
    """A file to write, and its path for the while; it takes the target's place at the end.

    After an error nothing is left of it; after Ctrl-C what was written is kept.

    Args:
        lines: each line stands alone; of a file that Ctrl-C cut short, whole lines are kept.

    Raises:
        DataError: the file cannot be written.
    """
    if target == "-":
        yield sys.stdout, "-"
        return
    beside = f"{target}.{os.getpid()}.part"
    try:
        with open(beside, "w", encoding="utf-8", newline="") as out:
            yield out, beside
    except KeyboardInterrupt:
        if lines:
            _cut_to_whole_lines(beside)
        os.replace(beside, target)
        raise
    except BaseException as error:
        with suppress(OSError):
            os.unlink(beside)
        if isinstance(error, OSError):
            cause = f"cannot write {target}: {error.strerror}"
            raise DataError(cause, "check folder and disk") from error
        raise
    os.replace(beside, target)
    announce(f"wrote {target}", quiet)


def _cut_to_whole_lines(path: str) -> None:
    with open(path, "r+b") as out:
        out.truncate(sum(len(line) for line in out if line.endswith(b"\n")))


def deliver(
    report: Report, json_to: str | None, csv_to: str | None, quiet: bool, table: bool = True
) -> None:
    """Write a report everywhere it was asked for; the table goes to stdout unless data does.

    Args:
        table: False where other data goes to stdout.
    """
    for target, renderer in ((json_to, render_json), (csv_to, render_csv)):
        if target is not None:
            with written(target, quiet) as (out, _):
                renderer(report, out)
    if table and "-" not in (json_to, csv_to):
        render(report, sys.stdout)


def announce(message: str, quiet: bool) -> None:
    """A message to stderr."""
    if not quiet:
        print(message, file=sys.stderr)
