"""`hqtool recommend`: the cheapest quantizer for each site that is good enough."""

from __future__ import annotations

import shlex

import click

from hqtool.cli.choice import choice_of
from hqtool.cli.files import INPUT, OUTPUT
from hqtool.cli.output import announce, deliver, file_options, result_stream
from hqtool.cli.progress import progress_of
from hqtool.cli.replay_options import executor_of, machine_options, replay_options
from hqtool.cli.sections import REPLAY_SECTIONS, SectionedCommand
from hqtool.cli.words import split_words
from hqtool.compare.comparison import Selection
from hqtool.compare.recommending.recipe import recipe_of
from hqtool.compare.recommending.recommendation import (
    DEFAULT_CANDIDATES,
    DEFAULT_SENSITIVITY,
    Question,
    Recommendation,
    candidates_of,
    recommend,
)
from hqtool.compare.recommending.targets import FIGURES, Condition, parse_target, parse_within
from hqtool.compare.settings import ReplaySettings
from hqtool.errors import UsageError
from hqtool.estimators.quantizer import parse_quantizer
from hqtool.outputs import names_stdout
from hqtool.recipes.recipe_file import dumps
from hqtool.report.recommendation_report import recommendation_report
from hqtool.spec_file import spelled_for

SECTIONS = {
    "What is asked": ("targets", "withins", "quantizers", "sensitivity", "by"),
    **REPLAY_SECTIONS,
}


@click.command("recommend", cls=SectionedCommand, sections=SECTIONS)
@click.argument("traces", type=INPUT, metavar="TRACE...", nargs=-1, required=True)
@click.option(
    "--target",
    "targets",
    metavar="METRIC>=VALUE",
    multiple=True,
    help="What is good enough, in quotes: 'cosine>=0.999', 'saturation<=0.1%'; repeat for more, "
    f"all of which must hold. Figures: {', '.join(FIGURES)}.",
)
@click.option(
    "--within",
    "withins",
    metavar="1dB",
    multiple=True,
    help="An SQNR no more than so much below that of current at the same format, or of another "
    "quantizer: '1dB of current@int8'. cosine=1e-4 for another figure.",
)
@click.option(
    "--quantizer",
    "quantizers",
    metavar="EST@FORMAT[/ROUNDING]",
    multiple=True,
    help="A candidate; repeat for more. Lists and ranges sweep: hindsight@int4..8. none leaves "
    f"tensors as they are. Default: {', '.join(DEFAULT_CANDIDATES)}.",
)
@click.option(
    "-o",
    "--output",
    "recipe_to",
    type=OUTPUT,
    metavar="RECIPE.toml|-",
    help="Write a recipe that gives each site its quantizer.",
)
@click.option(
    "--sensitivity",
    metavar="[QUANTIZER]",
    is_flag=False,
    flag_value=DEFAULT_SENSITIVITY,
    help="Rank the sites by what this quantizer costs each. Where it is the last word, without a "
    f"quantizer, {DEFAULT_SENSITIVITY} is taken.",
)
@click.option(
    "--by",
    type=choice_of(["tensor", "layer"]),
    default="tensor",
    show_default=True,
    help="layer: also show what each layer gets.",
)
@replay_options
@machine_options
@file_options
def command(
    traces: tuple[str, ...],
    targets: tuple[str, ...],
    withins: tuple[str, ...],
    quantizers: tuple[str, ...],
    recipe_to: str | None,
    sensitivity: str | None,
    by: str,
    loss_scale: str,
    reduce_ranks: bool,
    layers: tuple[str, ...],
    tensors: tuple[str, ...],
    calibrate: int,
    seed: int,
    buffer_bytes: int,
    jobs: int | None,
    scheduler: str | None,
    json_to: str | None,
    csv_to: str | None,
    force: bool,
    quiet: bool,
) -> int:
    """Recommend a quantizer for each site of TRACE: the cheapest that is good enough.

    Every candidate is replayed. At each site the one that moves the fewest bytes, looks included,
    is chosen among those whose means meet every target; of equally cheap ones that of higher SQNR.
    A site at which none is good enough stays unquantized, and the exit status is 1.
    """
    conditions: list[Condition] = [*map(parse_target, targets), *map(parse_within, withins)]
    question = Question(
        candidates=candidates_of(quantizers or DEFAULT_CANDIDATES),
        conditions=tuple(conditions),
        ranked_at=parse_quantizer(sensitivity) if sensitivity is not None else None,
    )
    if recipe_to is not None and not conditions:
        raise UsageError("-o has no choice to write", "add --target or --within")
    settings = ReplaySettings(
        quantizers=question.quantizers,
        calibrate=calibrate,
        seed=seed,
        loss_scale=loss_scale,
        buffer_bytes=buffer_bytes,
    )
    with progress_of("sites", quiet) as progress:
        found = recommend(
            traces,
            question,
            settings,
            Selection(layers, split_words("--tensors", tensors)),
            executor_of(jobs, scheduler),
            progress,
            reduce_ranks=reduce_ranks,
            on_warning=lambda line: announce(f"hqtool: {line}", quiet),
        )
    to_stdout = recipe_to is not None and names_stdout(recipe_to)
    report = recommendation_report(found, by)
    deliver(report, json_to, csv_to, quiet, force=force, table=not to_stdout)
    if recipe_to is not None and _is_to_be_written(found, recipe_to, quiet):
        _write_recipe(found, recipe_to, quiet, force)
    return 1 if found.unmet else 0


def _is_to_be_written(found: Recommendation, target: str, quiet: bool) -> bool:
    """Whether there is a choice to write: where nothing was scored, nothing was chosen."""
    chosen = any(choice.scored for choice in found.sites)
    if not chosen:
        announce(f"hqtool: {target} is not written: nothing was scored", quiet)
    return chosen


def _write_recipe(found: Recommendation, target: str, quiet: bool, force: bool) -> None:
    with result_stream(target, quiet, force=force) as (out, _):
        out.write(spelled_for(target, dumps(recipe_of(found))))
    if not names_stdout(target):
        paths = shlex.join(facts.path for facts in found.comparison.traces)
        together = " --reduce-ranks" if found.comparison.ranks is not None else ""
        announce(f"next: hqtool compare {paths}{together} --recipe {shlex.quote(target)}", quiet)
