"""`hqtool info`: what is in a trace."""

from __future__ import annotations

import click

from hqtool.cli.output import check_targets, deliver, file_options
from hqtool.report.info import info_report
from hqtool.trace.reader import TraceReader


@click.command("info")
@click.argument("trace")
@file_options
def command(trace: str, json_to: str | None, csv_to: str | None, force: bool, quiet: bool) -> None:
    """Say what is in TRACE: how it was recorded, its sites, steps and sizes."""
    check_targets({"--json": json_to, "--csv": csv_to}, force)
    with TraceReader(trace) as reader:
        report = info_report(reader)
    deliver(report, json_to, csv_to, quiet)
