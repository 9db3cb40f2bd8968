"""`hqtool compare`: replay traces through quantizers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

import click

from hqtool.cli.choice import NamedWords, WholeNumber, choice_of
from hqtool.cli.files import INPUT, OUTPUT, REGULAR_OUTPUT
from hqtool.cli.output import announce, deliver, file_options
from hqtool.cli.progress import progress_of
from hqtool.cli.quantizer_options import SCHEMES, quantizers_of
from hqtool.cli.replay_options import executor_of, machine_options, replay_options
from hqtool.cli.sections import REPLAY_SECTIONS, SectionedCommand
from hqtool.cli.step_streams import step_streams
from hqtool.cli.words import split_words
from hqtool.compare.comparison import Selection, compare
from hqtool.compare.settings import ReplaySettings
from hqtool.core.formats.named import FORMATS
from hqtool.core.metrics import METRICS
from hqtool.core.moments.dense import ROUNDINGS
from hqtool.errors import UsageError
from hqtool.estimators.presets import DEFAULTS
from hqtool.outputs import names_stdout
from hqtool.recipes.named import load_recipe
from hqtool.report.compared.front import QUALITIES, FrontSettings, with_front
from hqtool.report.compared.rows import RANKINGS
from hqtool.report.comparison_report import comparison_report
from hqtool.report.table import render
from hqtool.traffic.pricing.energy import DEFAULT_TABLE, load_energy


class ExplainedCommand(SectionedCommand):
    """A command whose help ends with what its figures mean."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Metrics from their registry, and what a look costs."""
        units = {m.name: f"{m.meaning}{f' [{m.unit}]' if m.unit else ''}" for m in METRICS.values()}
        with formatter.section("Figures"):
            formatter.write_dl([*units.items(), *COSTS.items()])


COSTS = {
    "looked": "share of the steps at which the estimator read the very tensor it quantized, "
    "which makes that step dynamic",
    "traffic": "memory traffic relative to never looking: 1.00× is static quantization",
    "KiB": "memory traffic of one record, where quantizers differ in bits",
}


SECTIONS = {
    "Quantizers": (
        "quantizers",
        "recipes",
        "estimators",
        "formats",
        "roundings",
        "bits",
        "scheme",
    ),
    "What is shown": (
        "by",
        "sort",
        "top",
        "worst",
        "best",
        "rank_by",
        "pareto",
        "energy",
        "search_gap",
    ),
    **REPLAY_SECTIONS,
}


def _shared_folder(targets: Iterable[str | None]) -> str:
    """A folder that a cluster's workers and this process share: that of the results."""
    files = [t for t in targets if t and (os.path.isfile(t) or not os.path.exists(t)) and t != "-"]
    return os.path.dirname(files[0]) or "." if files else "."


def _front_settings(
    pareto: bool, quality: str, energy: str | None, buffer_bytes: int
) -> FrontSettings | None:
    """What `--pareto` asks; None without it."""
    if not pareto:
        if energy is not None:
            raise UsageError("--energy is for --pareto", "add --pareto")
        return None
    if quality not in QUALITIES:
        remedy = f"use one of: {', '.join(QUALITIES)}"
        raise UsageError(f"--pareto cannot take {quality} for quality", remedy)
    return FrontSettings(quality, load_energy(energy or DEFAULT_TABLE), buffer_bytes)


@click.command("compare", cls=ExplainedCommand, sections=SECTIONS)
@click.argument("traces", type=INPUT, metavar="TRACE...", nargs=-1, required=True)
@click.option(
    "--quantizer",
    "quantizers",
    metavar="EST@FORMAT[/ROUNDING]",
    multiple=True,
    help="A quantizer, such as hindsight:momentum=0.9@int8/stochastic; repeat for more. Lists and "
    "ranges sweep: hindsight:momentum=0,0.5,0.9@int8 or current@int8,e4m3.",
)
@click.option(
    "--recipe",
    "recipes",
    type=INPUT,
    metavar="NAME|FILE",
    multiple=True,
    help="Score a whole recipe (see hqtool list recipes): each site with the quantizer that it "
    "gives it; repeat for more.",
)
@click.option(
    "--estimator",
    "estimators",
    metavar="SPEC",
    multiple=True,
    help="An estimator as NAME or NAME:key=value,… (see hqtool list); repeat for more. Each is run "
    "at every --format with every --rounding. Lists and ranges sweep: "
    "hindsight:momentum=0,0.5,0.9 or dsgc:interval=10..100/10. "
    f"Default: {', '.join(DEFAULTS)}.",
)
@click.option(
    "--format",
    "formats",
    type=NamedWords(lambda: [name for entry in FORMATS for name in entry.members]),
    metavar="FORMAT,…",
    multiple=True,
    help="Number formats such as int8, e4m3, mxfp8 (see hqtool list formats); default int8. Those "
    "that scale their own blocks need no estimator.",
)
@click.option(
    "--rounding",
    "roundings",
    type=NamedWords(lambda: ROUNDINGS),
    metavar="ROUNDING,…",
    multiple=True,
    help=f"{', '.join(ROUNDINGS)}; default nearest. stochastic: the exact expectation; "
    "stochastic-sampled: one draw, by --seed.",
)
@click.option(
    "--bits",
    metavar="8|4,8|2..8",
    multiple=True,
    help="Short for --format int8, int4,int8, int2,int3,… (2 to 16).",
)
@click.option(
    "--scheme",
    type=choice_of(SCHEMES),
    help="With --bits: asymmetric (the default) takes the range as it is, zero on a level; "
    "symmetric mirrors it about zero.",
)
@replay_options
@click.option(
    "--by",
    type=choice_of(["tensor", "layer"]),
    default="tensor",
    show_default=True,
    help="A row for each tensor kind, or for each layer.",
)
@click.option(
    "--best", is_flag=True, help="Show each method only with its best parameters, as papers do."
)
@click.option(
    "--rank-by",
    metavar="FIGURE",
    type=choice_of(list(RANKINGS)),
    default="cosine",
    show_default=True,
    help="The figure that --best and --pareto compare.",
)
@click.option(
    "--pareto",
    is_flag=True,
    help="Set quality against bytes and energy of a step, and say what nothing beats in all of "
    "them: in tables, CSV and JSON.",
)
@click.option(
    "--energy",
    metavar="NAME|FILE",
    type=INPUT,
    help="With --pareto: a table of pJ per bit, DRAM and SRAM; default horowitz-2014.",
)
@click.option(
    "--search-gap",
    is_flag=True,
    help="Compare every search with an exhaustive scan of clip ratios.",
)
@click.option(
    "--sort",
    metavar="FIGURE",
    type=choice_of(list(RANKINGS)),
    help="Order rows by this figure, the worst first; layers by their worst row. Figures: "
    f"{', '.join(RANKINGS)}.",
)
@click.option(
    "--top",
    metavar="N",
    type=WholeNumber(1),
    help="With --by layer: of each tensor kind only the first N layers by --sort "
    "(sqnr_db where that is not given).",
)
@click.option(
    "--worst",
    metavar="N",
    type=WholeNumber(1),
    help="Also show the N records of lowest SQNR: the range asked for, the true one, the cost.",
)
@click.option("--per-step", is_flag=True, help="Give every scored step in JSON and CSV.")
@click.option(
    "--jsonl", "jsonl_to", type=OUTPUT, metavar="FILE|-", help="Every scored step as JSON lines."
)
@click.option(
    "--parquet",
    "parquet_to",
    type=REGULAR_OUTPUT,
    metavar="FILE",
    help="Every scored step as Parquet.",
)
@machine_options
@file_options
def command(
    traces: tuple[str, ...],
    quantizers: tuple[str, ...],
    recipes: tuple[str, ...],
    estimators: tuple[str, ...],
    formats: tuple[str, ...],
    roundings: tuple[str, ...],
    bits: tuple[str, ...],
    scheme: str | None,
    loss_scale: str,
    reduce_ranks: bool,
    layers: tuple[str, ...],
    tensors: tuple[str, ...],
    calibrate: int,
    seed: int,
    buffer_bytes: int,
    by: str,
    best: bool,
    rank_by: str,
    pareto: bool,
    energy: str | None,
    search_gap: bool,
    sort: str | None,
    top: int | None,
    worst: int | None,
    per_step: bool,
    jsonl_to: str | None,
    parquet_to: str | None,
    jobs: int | None,
    scheduler: str | None,
    json_to: str | None,
    csv_to: str | None,
    force: bool,
    quiet: bool,
) -> None:
    """Replay TRACE through quantizers and say what each costs.

    Every estimator sees the recorded tensors in order, as it would in training. Metrics are
    means over a site's scored steps, then over sites; the best of each column is marked *.
    """
    targets = (json_to, csv_to, jsonl_to, parquet_to)
    if top is not None and by != "layer":
        raise UsageError("--top chooses layers", "add --by layer")
    if per_step and not any(targets):
        raise UsageError("--per-step has nowhere to go", "add --json, --csv, --jsonl or --parquet")
    front = _front_settings(pareto, rank_by, energy, buffer_bytes)
    settings = ReplaySettings(
        quantizers=quantizers_of(
            quantizers, estimators, formats, roundings, bits, scheme, by_default=not recipes
        ),
        recipes=tuple(map(load_recipe, dict.fromkeys(recipes))),
        calibrate=calibrate,
        seed=seed,
        search_gap=search_gap,
        loss_scale=loss_scale,
        worst=worst or 0,
        buffer_bytes=buffer_bytes,
    )
    selection = Selection(layers, split_words("--tensors", tensors))
    csv_steps = csv_to if per_step else None
    document = per_step and json_to is not None
    with step_streams(document, csv_steps, jsonl_to, parquet_to, quiet, force) as streams:
        with progress_of("sites", quiet) as progress:
            folder = _shared_folder(targets) if scheduler else None
            results = compare(
                traces,
                settings,
                selection,
                executor_of(jobs, scheduler),
                progress,
                streams.on_spool,
                folder,
                reduce_ranks=reduce_ranks,
                on_warning=lambda line: announce(f"hqtool: {line}", quiet),
            )
        best_by = rank_by if best else None
        report = comparison_report(results, by, best_by, streams.kept, sort=sort, top=top)
        report = report if front is None else with_front(report, results, front)
        deliver(report, json_to, None if per_step else csv_to, quiet, force=force, table=False)
    if not any(target and names_stdout(target) for target in targets):
        render(report, sys.stdout)
