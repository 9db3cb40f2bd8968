"""`hqtool report`: one HTML page of traces, comparisons, bills and studies."""

from __future__ import annotations

import shlex
import sys
import webbrowser
from pathlib import Path

import click

from hqtool.cli.files import INPUT, OUTPUT
from hqtool.cli.output import announce, force_option, quiet_option, result_stream
from hqtool.cli.progress import progress_of
from hqtool.cli.quantizer_options import quantizers_of
from hqtool.cli.replay_options import executor_of, machine_options, replay_options
from hqtool.cli.sections import REPLAY_SECTIONS, SectionedCommand
from hqtool.cli.words import split_words
from hqtool.compare.comparison import Selection
from hqtool.compare.recommending.targets import parse_target
from hqtool.compare.settings import ReplaySettings
from hqtool.errors import UsageError
from hqtool.outputs import names_stdout
from hqtool.recipes.named import load_recipe
from hqtool.report.page.document import page_of
from hqtool.report.page.gathering import DEFAULT_QUANTIZERS, Request, gather
from hqtool.report.page.inputs import inputs_of

#: What is good enough where nothing is said.
DEFAULT_TARGET = "cosine>=0.99"

SECTIONS = {
    "What is shown": ("page_to", "opened", "targets", "quantizers", "recipes"),
    **REPLAY_SECTIONS,
}


@click.command("report", cls=SectionedCommand, sections=SECTIONS)
@click.argument(
    "paths", type=INPUT, metavar="TRACE|COMPARE.json|TRAFFIC.json|STUDY...", nargs=-1, required=True
)
@click.option(
    "-o",
    "--output",
    "page_to",
    type=OUTPUT,
    metavar="REPORT.html|-",
    default="report.html",
    show_default=True,
    help="The page; '-' is stdout.",
)
@click.option("--open", "opened", is_flag=True, help="Open the page in a browser.")
@click.option(
    "--target",
    "targets",
    metavar="METRIC>=VALUE",
    multiple=True,
    default=[DEFAULT_TARGET],
    show_default=True,
    help="What is good enough, as for recommend; repeat for more.",
)
@click.option(
    "--quantizer",
    "quantizers",
    metavar="EST@FORMAT[/ROUNDING]",
    multiple=True,
    help="A quantizer to replay; repeat for more. The errors of the first six are drawn over "
    f"steps. Default: {', '.join(DEFAULT_QUANTIZERS)}.",
)
@click.option(
    "--recipe",
    "recipes",
    type=INPUT,
    metavar="NAME|FILE",
    multiple=True,
    help="Score a whole recipe, too; repeat for more.",
)
@replay_options
@machine_options
@force_option
@quiet_option
def command(
    paths: tuple[str, ...],
    page_to: str,
    opened: bool,
    targets: tuple[str, ...],
    quantizers: tuple[str, ...],
    recipes: tuple[str, ...],
    loss_scale: str,
    buffer_bytes: int,
    reduce_ranks: bool,
    layers: tuple[str, ...],
    tensors: tuple[str, ...],
    calibrate: int,
    seed: int,
    jobs: int | None,
    scheduler: str | None,
    force: bool,
    quiet: bool,
) -> None:
    """Write one HTML page that shows it all, offline and in a single file.

    Give any mix of traces, files of compare --json and traffic --json, and folders (or --json
    files) of studies. Traces are replayed through the quantizers as far as no comparison is given.
    Of two traces the same sites stand side by side.
    """
    if opened and names_stdout(page_to):
        raise UsageError("--open needs a file", "drop -o -")
    named = quantizers or DEFAULT_QUANTIZERS
    request = Request(
        command=shlex.join(["hqtool", *sys.argv[1:]]),
        settings=ReplaySettings(
            quantizers=quantizers_of(named, (), (), (), (), None),
            recipes=tuple(map(load_recipe, dict.fromkeys(recipes))),
            calibrate=calibrate,
            seed=seed,
            loss_scale=loss_scale,
            buffer_bytes=buffer_bytes,
        ),
        selection=Selection(layers, split_words("--tensors", tensors)),
        conditions=tuple(map(parse_target, targets)),
        reduce_ranks=reduce_ranks,
        chosen_here=not quantizers,
    )
    with progress_of("sites", quiet) as progress:
        material = gather(
            inputs_of(paths),
            request,
            executor_of(jobs, scheduler),
            progress,
            lambda line: announce(f"hqtool: {line}", quiet),
        )
    with result_stream(page_to, quiet, force=force) as (out, _):
        out.write(page_of(material))
    if opened:
        webbrowser.open(Path(page_to).absolute().as_uri())
