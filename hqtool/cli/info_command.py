"""`hqtool info`: what is in a trace."""

from __future__ import annotations

import sys

import click

from hqtool.cli.output import check_targets, deliver, file_options
from hqtool.errors import UsageError
from hqtool.report.follow import follow
from hqtool.report.info import info_report
from hqtool.trace.reader import TraceReader


@click.command("info")
@click.argument("trace")
@click.option("--follow", "live", is_flag=True, help="Show it as it grows, until it is closed.")
@click.option(
    "--interval",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=2.0,
    show_default=True,
    help="Between two looks of --follow.",
)
@file_options
def command(
    trace: str,
    live: bool,
    interval: float,
    json_to: str | None,
    csv_to: str | None,
    force: bool,
    quiet: bool,
) -> None:
    """Say what is in TRACE: how it was recorded, its sites, steps and sizes.

    With --follow, while it is being recorded: steps, their rate, and the sites whose range
    moved most in the last step.
    """
    if live:
        _require_no_files(json_to, csv_to)
        follow(trace, sys.stdout, interval)
        return
    check_targets({"--json": json_to, "--csv": csv_to}, force)
    with TraceReader(trace) as reader:
        report = info_report(reader)
    deliver(report, json_to, csv_to, quiet)


def _require_no_files(*targets: str | None) -> None:
    if targets != (None, None):
        raise UsageError("--follow shows a trace, it writes no files", "drop --json and --csv")
