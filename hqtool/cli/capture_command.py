"""`hqtool capture`: run a training script and record it."""

from __future__ import annotations

from pathlib import Path

import click

from hqtool.capture.budget import budget_of
from hqtool.capture.settings import STEP_ENDS, Settings
from hqtool.cli.words import split_words
from hqtool.errors import UsageError
from hqtool.vocab import TENSOR_KINDS

DEFAULT = Settings()


@click.command(
    "capture",
    context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False},
    options_metavar="[OPTIONS] [--]",
)
@click.argument("program", metavar="SCRIPT.py|-m MODULE [ARGS]...", nargs=-1, required=True)
@click.option("-m", "module", is_flag=True, help="Run a module, as python -m does.")
@click.option("-o", "out", metavar="TRACE.h5", help="The trace to write; default: SCRIPT.h5.")
@click.option("--layers", metavar="GLOB", multiple=True, help="Only layers whose name matches.")
@click.option("--exclude", metavar="GLOB", multiple=True, help="Not the layers that match.")
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
    help="Keep values at every N-th step; statistics are kept at all.",
)
@click.option("--steps", metavar="A:B", help="Keep values only at steps A ≤ step < B.")
@click.option(
    "--max-elements",
    metavar="N",
    type=int,
    default=DEFAULT.max_elements,
    show_default=True,
    help="Of larger tensors keep a random sample of N values; statistics stay exact.",
)
@click.option("--full", is_flag=True, help="Keep all values, however large the tensor.")
@click.option(
    "--budget",
    metavar="SIZE",
    default="8GiB",
    show_default=True,
    help="Largest size of the trace: values are kept ever more rarely as it fills; or none.",
)
@click.option(
    "--step-on",
    type=click.Choice(STEP_ENDS),
    default=DEFAULT.step_on,
    show_default=True,
    help="What ends a step; forward: for updates made without an optimizer.",
)
@click.option("--eval", "eval_mode", is_flag=True, help="Record modules in eval mode, too.")
@click.option("--seed", metavar="N", type=int, default=DEFAULT.seed, help="Of the sampling.")
@click.option("-f", "--force", is_flag=True, help="Overwrite an existing trace.")
@click.option("-q", "--quiet", is_flag=True, help="No progress or closing lines.")
def command(
    program: tuple[str, ...],
    module: bool,
    out: str | None,
    layers: tuple[str, ...],
    exclude: tuple[str, ...],
    tensors: tuple[str, ...],
    every: int,
    steps: str | None,
    max_elements: int,
    full: bool,
    budget: str,
    step_on: str,
    eval_mode: bool,
    seed: int,
    force: bool,
    quiet: bool,
) -> int:
    """Run a training script, unmodified, and record its tensors.

    Options come before the script; all that follows it is the script's own. Training is
    bit-identical to training without capture, and the exit status is the script's.
    """
    settings = Settings(
        layers=layers,
        exclude=exclude,
        tensors=split_words(tensors),
        every=every,
        steps=_steps(steps),
        max_elements=max_elements,
        full=full,
        budget_bytes=budget_of(budget),
        step_on=step_on,
        force=force,
        eval=eval_mode,
        seed=seed,
    )
    from hqtool.capture.run import run_script

    target, *argv = program
    trace = out if out is not None else _trace_of(target, module)
    return run_script(target, argv, out=trace, settings=settings, module=module, quiet=quiet)


def _trace_of(target: str, module: bool) -> str:
    """The trace's name where none is given: the script's, in the current folder."""
    return f"{target.rpartition('.')[2] if module else Path(target).stem}.h5"


def _steps(text: str | None) -> tuple[int | None, int | None] | None:
    if text is None:
        return None
    first, colon, end = text.partition(":")
    try:
        if not colon:
            raise ValueError
        return (int(first) if first else None, int(end) if end else None)
    except ValueError:
        raise UsageError(f"--steps {text} is no A:B", "write --steps 100:200, or 100:") from None
