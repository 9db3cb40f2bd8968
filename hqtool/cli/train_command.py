"""`hqtool train`: run a training script, quantized as a recipe says."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import click

from hqtool.capture.settings import STEP_ENDS
from hqtool.cli.choice import WholeNumber, choice_of
from hqtool.cli.defaults import config_file, config_option, defaults_used
from hqtool.cli.files import INPUT, REGULAR_OUTPUT, terminable
from hqtool.cli.output import announce
from hqtool.cli.script_command import ScriptCommand
from hqtool.cli.streams import own_streams
from hqtool.display import harmless
from hqtool.errors import UsageError
from hqtool.launch.process_rank import path_of_rank, rank_of_process
from hqtool.recipes.named import load_recipe
from hqtool.recipes.trainable import require_trainable
from hqtool.sizes import counted
from hqtool.training.settings import LOSS_SCALES, ON_NONFINITE, TrainSettings

DEFAULT = TrainSettings()

#: Options that a file of defaults cannot give: they overwrite, or ask for a trial.
ONLY_TYPED = ("force", "list-sites", "verify")


class TrainCommand(ScriptCommand):
    """Inputs are the script, the recipe, the file of defaults, and files among the arguments."""

    def inputs(self, ctx: click.Context) -> dict[str, str]:
        """The script's, the recipe's file and the file of defaults."""
        recipe = ctx.params["recipe"]
        files = {recipe: "the recipe"} if os.path.isfile(recipe) else {}
        return super().inputs(ctx) | files | config_file(ctx)

    def outputs(self, ctx: click.Context) -> dict[str, str]:
        """RUN.h5, where it is asked for."""
        out = None if ctx.params["list_sites"] else ctx.params["out"]
        return {} if out is None else {"-o": path_of_rank(out, rank_of_process())}


@click.command(
    "train",
    cls=TrainCommand,
    context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False},
    options_metavar="[OPTIONS] [--]",
)
@click.argument("program", metavar="SCRIPT.py|-m MODULE [ARGS]...", nargs=-1, required=True)
@config_option(ONLY_TYPED)
@click.option("-m", "module", is_flag=True, help="Run a module, as python -m does.")
@click.option(
    "--recipe",
    type=INPUT,
    metavar="NAME|FILE",
    required=True,
    help="Which quantizer each tensor gets; see hqtool list recipes. none: training as it is.",
)
@click.option(
    "-o",
    "out",
    type=REGULAR_OUTPUT,
    metavar="RUN.h5",
    help="Record statistics of what is quantized, and the ranges used, in a trace.",
)
@click.option(
    "--seed",
    metavar="N",
    type=int,
    default=DEFAULT.seed,
    show_default=True,
    help="Seed of stochastic rounding; the script's own random numbers are left alone.",
)
@click.option(
    "--loss-scale",
    type=choice_of(LOSS_SCALES),
    default=DEFAULT.loss_scale,
    show_default=True,
    help="Ranges of gradients without the factor of loss scaling, or with it.",
)
@click.option(
    "--on-nonfinite",
    type=choice_of(ON_NONFINITE),
    default=DEFAULT.on_nonfinite,
    show_default=True,
    help="NaN and infinities stay and are told at the end, or training stops.",
)
@click.option(
    "--min-coverage",
    metavar="X",
    type=float,
    default=DEFAULT.min_coverage,
    help="Exit with 1 where a smaller share of all multiplications was quantized.",
)
@click.option(
    "--step-on",
    type=choice_of(STEP_ENDS),
    default=DEFAULT.step_on,
    show_default=True,
    help="What ends a step; see hqtool capture --help.",
)
@click.option(
    "--follow-fork",
    is_flag=True,
    help="Quantize children of multiprocessing and fork that train, too: RUN.pid1234.h5.",
)
@click.option(
    "--calibrate",
    metavar="N",
    type=WholeNumber(min=1),
    help="First run N steps aside, in a child process, to set ranges up; then train anew.",
)
@click.option(
    "--list-sites",
    is_flag=True,
    help="List what each site gets; runs one step aside.",
)
@click.option(
    "--verify",
    is_flag=True,
    help="Train plainly and by recipe none: are the parameters the same, bit for bit? Then twice "
    "by the recipe: are they the same again?",
)
@click.option(
    "--rank-timeout",
    "rank_timeout_seconds",
    metavar="SECONDS",
    type=float,
    default=DEFAULT.rank_timeout_seconds,
    show_default=True,
    help="Where several ranks train, how long to wait for one before ranges go on without it; "
    "0: ranges are not joined over ranks.",
)
@click.option("-f", "--force", is_flag=True, help="Overwrite an existing RUN.h5.")
@click.option("-q", "--quiet", is_flag=True, help="No closing lines.")
def command(
    program: tuple[str, ...],
    module: bool,
    recipe: str,
    out: str | None,
    quiet: bool,
    calibrate: int | None,
    list_sites: bool,
    verify: bool,
    **given: Any,
) -> int:
    """Run a training script, unmodified, with its layers quantized as a recipe says.

    Options come before the script; all that follows it is the script's own. Models, parameters and
    optimizers stay the script's own: quantizers act on operands while a layer runs. The exit status
    is the script's.

    A file hqtool.toml in the current folder, table [train], or else pyproject.toml there, table
    [tool.hqtool.train], gives defaults for the options by their long names.
    """
    if list_sites and verify:
        raise UsageError("--list-sites and --verify exclude each other", "give one")
    if used := defaults_used():
        announce(f"hqtool: {used}", quiet)
    settings = TrainSettings(**given)
    found = load_recipe(recipe)
    require_trainable(found)
    target, *argv = program
    how: dict[str, Any] = {"recipe": found, "settings": settings, "module": module}
    if list_sites:
        from hqtool.training.aside import aside

        with terminable():
            listed = aside(target, argv, steps=1, **how)
        _print_lines(listed.listing())
        for line in listed.unmet:
            announce(f"hqtool: {line}", quiet)
        return 0
    if verify:
        from hqtool.trial.verify import verify_training

        verdict = verify_training(target, argv, out=out, calibrate=calibrate, quiet=quiet, **how)
        _print_lines(verdict.lines)
        return verdict.status
    states = None
    if calibrate is not None:
        from hqtool.training.aside import aside

        with terminable():
            first = aside(target, argv, steps=calibrate, **how)
        states = first.states
        announce(f"hqtool: ranges calibrated on {counted(first.steps, 'step')}", quiet)
    from hqtool.training.run import train_script

    return train_script(target, argv, out=out, quiet=quiet, states=states, **how)


def _print_lines(lines: Sequence[str]) -> None:
    with own_streams():
        print(*map(harmless, lines), sep="\n")
