"""`hqtool list`: what can be chosen, straight from the registries."""

from __future__ import annotations

import json

import click

from hqtool.cli.choice import choice_of
from hqtool.cli.files import FileCommand
from hqtool.cli.output import deliver, file_options, result_stream
from hqtool.errors import UsageError
from hqtool.outputs import names_stdout
from hqtool.recipes.named import load_recipe, recipe_text
from hqtool.recipes.recipe_file import to_json
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

    Sections: estimators, formats, recipes, metrics, tensors. `hqtool list recipes NAME` prints that
    recipe's file; with --json the same as JSON, which is a recipe, too.
    """
    if section == "recipes" and name is not None:
        _deliver_recipe(name, json_to, csv_to, quiet, force)
    else:
        deliver(catalogue_report(section, name), json_to, csv_to, quiet, force=force)


def _deliver_recipe(
    name: str, json_to: str | None, csv_to: str | None, quiet: bool, force: bool
) -> None:
    """Print a recipe as its file has it, or write it as JSON."""
    if csv_to is not None:
        raise UsageError("a recipe has no rows for --csv", "leave it out, or take --json")
    text = recipe_text(name)
    if json_to is not None:
        with result_stream(json_to, quiet, force=force) as (out, _):
            out.write(json.dumps(to_json(load_recipe(name)), indent=2, ensure_ascii=False) + "\n")
    if json_to is None or not names_stdout(json_to):
        with result_stream("-", quiet) as (out, _):
            out.write(text)
