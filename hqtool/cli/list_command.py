"""`hqtool list`: what can be chosen, straight from the registries."""

from __future__ import annotations

import click

from hqtool.cli.choice import choice_of
from hqtool.cli.files import FileCommand
from hqtool.cli.output import deliver, file_options
from hqtool.report.catalogue import SECTIONS, catalogue_report


@click.command("list", cls=FileCommand)
@click.argument("section", type=choice_of(SECTIONS), required=False)
@click.argument("name", required=False)
@file_options
def command(
    section: str | None,
    name: str | None,
    json_to: str | None,
    csv_to: str | None,
    force: bool,
    quiet: bool,
) -> None:
    """List what can be chosen, with parameters: all of it, a SECTION, or what has one NAME in it.

    Sections: estimators, formats, metrics, tensors.
    """
    deliver(catalogue_report(section, name), json_to, csv_to, quiet, force=force)
