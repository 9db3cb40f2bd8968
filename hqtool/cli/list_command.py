"""`hqtool list`: what can be chosen, straight from the registries."""

from __future__ import annotations

import click

from hqtool.cli.files import FileCommand
from hqtool.cli.output import deliver, file_options
from hqtool.report.catalogue import catalogue_report


@click.command("list", cls=FileCommand)
@file_options
def command(json_to: str | None, csv_to: str | None, force: bool, quiet: bool) -> None:
    """List estimators, formats, metrics and tensor kinds, with their parameters."""
    deliver(catalogue_report(), json_to, csv_to, quiet, force=force)
