"""The options of every command that replays traces."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click

from hqtool.cli.choice import WholeNumber, choice_of
from hqtool.cli.hardware_options import buffer_option
from hqtool.cli.output import Command
from hqtool.compare.execute import Executor, cluster, default_jobs, processes
from hqtool.compare.settings import LOSS_SCALES
from hqtool.vocab import TENSOR_KINDS

_WHAT = (
    click.option(
        "--loss-scale",
        type=choice_of(list(LOSS_SCALES)),
        default="divided",
        show_default=True,
        help="Divide the loss scale out of gradients recorded under AMP, or keep it, as hardware "
        "does.",
    ),
    click.option(
        "--reduce-ranks",
        is_flag=True,
        help="The TRACEs are ranks of one run: join each record over them, so that its range is "
        "that of all ranks, as an all-reduce of min and max makes it. Traffic stays that of one "
        "rank.",
    ),
    click.option("--layers", metavar="GLOB", multiple=True, help="Only layers whose name matches."),
    click.option(
        "--tensors",
        metavar="KIND,…",
        multiple=True,
        help=f"Only these kinds: {', '.join(TENSOR_KINDS)}.",
    ),
    click.option(
        "--calibrate",
        metavar="N",
        type=int,
        default=0,
        help="Use the first N steps of each site to initialize ranges; they are not scored.",
    ),
    click.option("--seed", metavar="N", type=int, default=0, help="Seed of stochastic-sampled."),
    buffer_option,
)

_WHERE = (
    click.option(
        "--jobs", metavar="N", type=WholeNumber(1), help="Processes to use; default: all cores."
    ),
    click.option(
        "--scheduler",
        metavar="ADDRESS|local",
        help="Replay on a Dask cluster, such as tcp://HOST:8786; local starts one here.",
    ),
)


def replay_options(command: Command) -> Command:
    """What of the traces to replay, and how."""
    return _with(_WHAT, command)


def machine_options(command: Command) -> Command:
    """On what machines to replay."""
    return _with(_WHERE, command)


def _with(options: Sequence[Callable[[Command], Command]], command: Command) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def executor_of(jobs: int | None, scheduler: str | None) -> Executor:
    """How to run the replay of each site, as `--jobs` and `--scheduler` say."""
    workers = jobs or default_jobs()
    return cluster(scheduler, workers) if scheduler else processes(workers)
