"""`hqtool capture`: run a training script and record it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hqtool.capture.budget import budget_of
from hqtool.capture.settings import STEP_ENDS, CaptureSettings
from hqtool.cli.choice import WholeNumber, choice_of
from hqtool.cli.defaults import config_file, config_option, defaults_used
from hqtool.cli.files import REGULAR_OUTPUT
from hqtool.cli.output import announce
from hqtool.cli.script_command import ScriptCommand
from hqtool.cli.streams import own_streams
from hqtool.cli.words import split_words
from hqtool.display import harmless
from hqtool.errors import DataError, UsageError
from hqtool.launch.process_rank import path_of_rank, rank_of_process
from hqtool.vocab import TENSOR_KINDS

if TYPE_CHECKING:
    from hqtool.trial.dry_run import Trial

DEFAULT = CaptureSettings()

#: Options that a file of defaults cannot give: they overwrite, or ask for a single trial.
ONLY_TYPED = ("force", "list-sites", "dry-run", "expect-steps", "verify")


class CaptureCommand(ScriptCommand):
    """Inputs are the script and the files among its arguments; the output has a default name."""

    def inputs(self, ctx: click.Context) -> dict[str, str]:
        """The script's, and the file of defaults."""
        return super().inputs(ctx) | config_file(ctx)

    def outputs(self, ctx: click.Context) -> dict[str, str]:
        """The trace; nothing where only a trial is run."""
        if ctx.params["list_sites"] or ctx.params["dry_run"]:
            return {}
        target, module = ctx.params["program"][0], ctx.params["module"]
        out = ctx.params["out"]
        out = _trace_of(target, module) if out is None else out
        return {"-o": path_of_rank(out, rank_of_process()) if out else out}


@click.command(
    "capture",
    cls=CaptureCommand,
    context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False},
    options_metavar="[OPTIONS] [--]",
)
@click.argument("program", metavar="SCRIPT.py|-m MODULE [ARGS]...", nargs=-1, required=True)
@config_option(ONLY_TYPED)
@click.option("-m", "module", is_flag=True, help="Run a module, as python -m does.")
@click.option(
    "-o",
    "out",
    type=REGULAR_OUTPUT,
    metavar="TRACE.h5",
    help="The trace to write; default: SCRIPT.h5.",
)
@click.option("--layers", metavar="GLOB", multiple=True, help="Only layers whose name matches.")
@click.option("--exclude", metavar="GLOB", multiple=True, help="Leave out layers that match.")
@click.option(
    "--module-types",
    metavar="TYPE,…",
    multiple=True,
    help="Record the modules of these classes, such as Conv2d,LSTM or your own, not the default.",
)
@click.option(
    "--tensors",
    metavar="KIND,…",
    multiple=True,
    default=[",".join(DEFAULT.tensors)],
    help=f"Tensor kinds, of {', '.join(TENSOR_KINDS)}; default {','.join(DEFAULT.tensors)}.",
)
@click.option(
    "--every",
    metavar="N",
    type=int,
    default=DEFAULT.every,
    show_default=True,
    help="Keep values at every N-th step; statistics are kept at every step.",
)
@click.option(
    "--burst",
    metavar="K",
    type=int,
    default=DEFAULT.burst,
    show_default=True,
    help="Keep values at the first K of every N steps, one after the other.",
)
@click.option("--steps", metavar="A:B", help="Keep values only at steps A ≤ step < B.")
@click.option(
    "--max-elements",
    metavar="N",
    type=int,
    default=DEFAULT.max_elements,
    show_default=True,
    help="Keep a sample of N values of larger tensors; statistics stay exact.",
)
@click.option(
    "--per-channel",
    is_flag=True,
    help="Record the extremes of each channel at every step, for estimators with per=channel.",
)
@click.option("--full", is_flag=True, help="Keep all values, however large the tensor.")
@click.option(
    "--budget",
    metavar="SIZE",
    default="8GiB",
    show_default=True,
    help="Largest size of the trace, or none: values are kept less and less often as it fills.",
)
@click.option(
    "--step-on",
    type=choice_of(STEP_ENDS),
    default=DEFAULT.step_on,
    show_default=True,
    help="What ends a step. optimizer: its step; forward: the next forward pass, for updates made "
    "by hand; auto: the latter where no optimizer updates the model.",
)
@click.option(
    "--eval",
    "eval_mode",
    is_flag=True,
    help="Record what only evaluates, too: passes that no backward pass reaches.",
)
@click.option("--seed", metavar="N", type=int, default=DEFAULT.seed, help="Seed of the sampling.")
@click.option(
    "--follow-fork",
    is_flag=True,
    help="Record children of multiprocessing and fork that train, too: TRACE.pid1234.h5.",
)
@click.option("--list-sites", is_flag=True, help="List what would be recorded; runs one step.")
@click.option("--dry-run", is_flag=True, help="Estimate the trace's size; runs three steps.")
@click.option(
    "--expect-steps",
    metavar="N",
    type=WholeNumber(min=1),
    default=1000,
    show_default=True,
    help="With --dry-run: how many steps the whole run will have.",
)
@click.option(
    "--verify",
    is_flag=True,
    help="Train without capture, then with it: are the parameters the same, bit for bit?",
)
@click.option("-f", "--force", is_flag=True, help="Overwrite an existing trace.")
@click.option("-q", "--quiet", is_flag=True, help="No progress or closing lines.")
def command(
    program: tuple[str, ...],
    module: bool,
    out: str | None,
    list_sites: bool,
    dry_run: bool,
    expect_steps: int,
    verify: bool,
    quiet: bool,
    **recorded: Any,
) -> int:
    """Run a training script, unmodified, and record its tensors.

    Options come before the script; all that follows it is the script's own. Training is
    bit-identical to training without capture, and the exit status is the script's.

    A file hqtool.toml in the current folder, table [capture], or else pyproject.toml there, table
    [tool.hqtool.capture], gives defaults for the options by their long names.
    """
    if list_sites + dry_run + verify > 1:
        raise UsageError("--list-sites, --dry-run and --verify exclude each other", "give one")
    if used := defaults_used():
        announce(f"hqtool: {used}", quiet)
    settings = _settings_from(**recorded)
    target, *argv = program
    how: dict[str, Any] = {"settings": settings, "module": module, "quiet": quiet}
    if list_sites:
        return _list_sites(target, argv, **how)
    if dry_run:
        return _estimate(target, argv, expect_steps, **how)
    trace = out if out is not None else _trace_of(target, module)
    if verify:
        return _verify(target, argv, out=trace, **how)
    from hqtool.capture.run import run_script

    return run_script(target, argv, out=trace, **how)


def _settings_from(
    tensors: tuple[str, ...],
    module_types: tuple[str, ...],
    steps: str | None,
    budget: str,
    eval_mode: bool,
    **others: Any,
) -> CaptureSettings:
    """The settings that options ask for."""
    return CaptureSettings(
        tensors=split_words("--tensors", tensors),
        module_types=split_words("--module-types", module_types),
        steps=_parse_steps(steps),
        budget_bytes=budget_of(budget),
        eval=eval_mode,
        **others,
    )


def _list_sites(target: str, argv: list[str], *, quiet: bool, **how: Any) -> int:
    from hqtool.trial.dry_run import LISTING_STEPS, try_script
    from hqtool.trial.trial_lines import listing

    trial = try_script(target, argv, steps=LISTING_STEPS, quiet=quiet, **how)
    if trial.interrupted:
        return trial.status
    _require_sites(trial)
    if not trial.steps:
        early = f"the script ended, with status {trial.status}, before its first step did"
        announce(f"hqtool: {early}: these ran", quiet)
    _print_lines(listing(trial))
    return 0


def _estimate(
    target: str,
    argv: list[str],
    expected: int,
    *,
    settings: CaptureSettings,
    quiet: bool,
    module: bool,
) -> int:
    from hqtool.trial.dry_run import MEASURING_STEPS, try_script
    from hqtool.trial.trial_lines import estimate

    trial = try_script(
        target, argv, settings=settings, module=module, steps=MEASURING_STEPS, quiet=quiet
    )
    if trial.interrupted:
        return trial.status
    if not trial.steps:
        raise DataError(
            f"the script ended, with status {trial.status}, before its first step did",
            "nothing can be said of its size: see hqtool capture --list-sites",
        )
    _require_sites(trial)
    _print_lines(estimate(trial, settings, expected))
    return 0


def _require_sites(trial: Trial) -> None:
    """Raise a DataError where a trial recorded nothing."""
    if not trial.sites:
        raise DataError(
            f"no backward pass reached a layer that is asked for (exit status {trial.status})",
            "does the script train? are --layers and --module-types right?",
        )


def _verify(target: str, argv: list[str], **how: Any) -> int:
    from hqtool.trial.verify import verify

    verdict = verify(target, argv, **how)
    _print_lines(verdict.lines)
    return verdict.status


def _print_lines(lines: Sequence[str]) -> None:
    with own_streams():
        print(*map(harmless, lines), sep="\n")


def _trace_of(target: str, module: bool) -> str:
    """The trace's default name: that of the script, in the current folder."""
    return f"{target.rpartition('.')[2] if module else Path(target).stem}.h5"


def _parse_steps(text: str | None) -> tuple[int | None, int | None] | None:
    if text is None:
        return None
    first, colon, end = text.partition(":")
    try:
        if not colon:
            raise ValueError
        bounds = (int(first) if first else None, int(end) if end else None)
    except ValueError:
        raise UsageError(f"--steps {text} is not A:B", "write --steps 100:200, or 100:") from None
    if bounds[1] is not None and bounds[1] <= (bounds[0] or 0):
        raise UsageError(f"--steps {text} holds no step", "write --steps A:B with A below B")
    return bounds
