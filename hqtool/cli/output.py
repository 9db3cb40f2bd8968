"""Where results go: tables to stdout, data to a file or, with '-', to stdout instead."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import click

from hqtool import outputs
from hqtool.cli.files import OUTPUT
from hqtool.display import harmless
from hqtool.outputs import STDOUT, names_stdout
from hqtool.report.export import render_csv, render_json
from hqtool.report.model import Report
from hqtool.report.table import render

Command = Callable[..., Any]

json_option = click.option(
    "--json",
    "json_to",
    type=OUTPUT,
    metavar="FILE|-",
    help="Write all figures as JSON; '-' is stdout.",
)
csv_option = click.option(
    "--csv", "csv_to", type=OUTPUT, metavar="FILE|-", help="Write the rows as CSV; '-' is stdout."
)
force_option = click.option("-f", "--force", is_flag=True, help="Overwrite existing files.")
quiet_option = click.option("-q", "--quiet", is_flag=True, help="No progress or messages.")


def file_options(command: Command) -> Command:
    """The options of every command that writes results to files."""
    for option in (quiet_option, force_option, csv_option, json_option):
        command = option(command)
    return command


@contextmanager
def result_stream(
    target: str, quiet: bool, lines: bool = False, force: bool = False
) -> Iterator[tuple[TextIO, str]]:
    """An output as an open stream, and its path meanwhile: stdout, or as `outputs.written`."""
    if target == STDOUT or names_stdout(target):
        with escaping(sys.stdout):
            yield sys.stdout, STDOUT
        return
    with outputs.written(target, force=force, lines=lines) as place:
        yield place
    announce(f"wrote {target}", quiet)


@contextmanager
def escaping(out: TextIO) -> Iterator[None]:
    """Within it a stream escapes the characters that its encoding lacks: for data, not people."""
    reconfigure = getattr(out, "reconfigure", None)
    if reconfigure is None:
        yield
        return
    usual = out.errors
    reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        reconfigure(errors=usual)


def deliver(
    report: Report,
    json_to: str | None,
    csv_to: str | None,
    quiet: bool,
    *,
    force: bool,
    table: bool = True,
) -> None:
    """Write a report everywhere it was asked for; the table goes to stdout unless data does.

    Args:
        table: False where other data goes to stdout.
    """
    for target, renderer in ((json_to, render_json), (csv_to, render_csv)):
        if target is not None:
            with result_stream(target, quiet, force=force) as (out, _):
                renderer(report, out)
    if table and not any(target and names_stdout(target) for target in (json_to, csv_to)):
        render(report, sys.stdout)


def announce(message: str, quiet: bool) -> None:
    """A message to stderr."""
    if not quiet and sys.stderr is not None:
        print(harmless(message), file=sys.stderr)
