"""`hqtool info`: what is in a trace, or in several together."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click

from hqtool.cli.files import INPUT, FileCommand
from hqtool.cli.output import deliver, file_options
from hqtool.errors import DataError, UsageError
from hqtool.report.follow import follow
from hqtool.report.info import info_report
from hqtool.report.info_ranks import ranks_report
from hqtool.report.model import Report
from hqtool.sizes import counted
from hqtool.trace.ranks import RanksReader
from hqtool.trace.reader import TraceReader
from hqtool.trace.trusted import remedy_of


@click.command("info", cls=FileCommand)
@click.argument("traces", type=INPUT, metavar="TRACE...", nargs=-1, required=True)
@click.option(
    "--follow", "live", is_flag=True, help="Show a single trace as it grows, until it is closed."
)
@click.option(
    "--interval",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=2.0,
    show_default=True,
    help="Time between two updates of --follow.",
)
@file_options
def command(
    traces: tuple[str, ...],
    live: bool,
    interval: float,
    json_to: str | None,
    csv_to: str | None,
    force: bool,
    quiet: bool,
) -> None:
    """Say what is in TRACE: how it was recorded, its sites, steps and sizes.

    Of several traces, such as the ranks of one run, say what they hold together.

    With --follow, show a trace while it is being recorded: steps, their rate, and the sites
    whose range moved most in the last step.

    Exit status 3 where one is damaged.
    """
    if live:
        _require_no_files(json_to, csv_to)
        follow(_single(traces), sys.stdout, interval)
        return
    report = _report(traces)
    deliver(report, json_to, csv_to, quiet, force=force)
    _require_sound(report.document)


def _report(traces: tuple[str, ...]) -> Report:
    if len(traces) == 1:
        with TraceReader(traces[0]) as reader:
            return info_report(reader)
    with RanksReader(traces) as together:
        return ranks_report(together)


def _require_sound(document: Mapping[str, Any]) -> None:
    """Raise a DataError where a trace of the report is damaged."""
    for trace in document.get("traces", [document]):
        if trace["state"] == "damaged":
            cut = ["the file is cut short"] if trace["cut_short"] else []
            damaged = trace["damaged_values"]
            values = [f"the values of {counted(damaged, 'record')} are damaged"] if damaged else []
            cause = f"{trace['path']}: {' and '.join(cut + values)}"
            raise DataError(cause, remedy_of(trace["path"]))


def _single(traces: tuple[str, ...]) -> str:
    if len(traces) > 1:
        cause = f"--follow shows one trace, not {len(traces)}"
        raise UsageError(cause, "give the one to watch")
    return traces[0]


def _require_no_files(*targets: str | None) -> None:
    if targets != (None, None):
        raise UsageError("--follow shows a trace, it writes no files", "drop --json and --csv")
