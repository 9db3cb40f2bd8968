"""`hqtool info`: what is in a trace, or in several together."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click

from hqtool.cli.files import INPUT, FileCommand
from hqtool.cli.output import deliver, file_options
from hqtool.compare.comparison import Selection
from hqtool.display import harmless
from hqtool.errors import DataError, UsageError
from hqtool.report.console import Screen
from hqtool.report.follow import follow
from hqtool.report.info import info_report
from hqtool.report.info_ranks import ranks_report
from hqtool.report.model import Report
from hqtool.report.range_chart import range_chart
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
@click.option(
    "--layers",
    metavar="GLOB",
    multiple=True,
    help="Instead show each matching layer's lowest and highest values over steps as a chart.",
)
@file_options
def command(
    traces: tuple[str, ...],
    live: bool,
    interval: float,
    layers: tuple[str, ...],
    json_to: str | None,
    csv_to: str | None,
    force: bool,
    quiet: bool,
) -> None:
    """Say what is in TRACE: how it was recorded, its sites, steps and sizes.

    Of several traces, such as the ranks of one run, say what they hold together.
    With --layers, draw the range of each site over steps instead.

    With --follow, show a trace while it is being recorded: steps, their rate, and the sites
    whose range moved most in the last step.

    Exit status 3 where one is damaged.
    """
    if live:
        _require_no_files(json_to, csv_to)
        follow(_single(traces), sys.stdout, interval)
        return
    if layers:
        _require_no_files(json_to, csv_to, "--layers draws charts, it writes no files")
        _draw(traces, Selection(layers))
        return
    report = _report(traces)
    deliver(report, json_to, csv_to, quiet, force=force)
    _require_sound(report.document)


def _draw(traces: tuple[str, ...], selection: Selection) -> None:
    """A chart of each selected site of each trace."""
    width = Screen(sys.stdout).width
    for path in traces:
        with TraceReader(path) as reader:
            selection.check(reader.sites)
            for site in filter(selection.takes, reader.sites):
                chart = range_chart(site, reader.history(site), width)
                named = f"{path}: " if len(traces) > 1 else ""
                for line in (named + chart).split("\n"):
                    print(harmless(line))
                print()


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


def _require_no_files(
    json_to: str | None,
    csv_to: str | None,
    cause: str = "--follow shows a trace, it writes no files",
) -> None:
    if (json_to, csv_to) != (None, None):
        raise UsageError(cause, "drop --json and --csv")
