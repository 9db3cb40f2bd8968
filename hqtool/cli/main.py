"""The `hqtool` command. Each subcommand's module is imported when it is run."""

from __future__ import annotations

import os
import sys
from importlib import import_module

import click

from hqtool import __version__
from hqtool.errors import HqtoolError

#: Command → what `--help` says of it; its module is hqtool.cli.NAME_command.
COMMANDS = {
    "capture": "Record the tensors of a training script as it runs.",
    "compare": "Replay a trace through range estimators and score them.",
    "traffic": "Bill the memory traffic of layers, static and dynamic.",
    "info": "Say what is in a trace.",
    "convert": "Make a trace of .npz files.",
    "repair": "Make a clean trace of a killed or damaged one.",
    "list": "List estimators, metrics and tensor kinds.",
}


class LazyGroup(click.Group):
    """Knows its commands' names and summaries without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order a user meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import the command's module."""
        if name not in COMMANDS:
            return None
        command: click.Command = import_module(f"hqtool.cli.{name}_command").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The summaries, without importing any command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hqtool")
def cli() -> None:
    """Choose a quantization range estimator.

    Record the activations and gradients of a training run (capture), replay them through every
    estimator and see what each costs in accuracy and memory traffic (compare), or bill the
    traffic of a network from its layer shapes alone (traffic).
    """


def main() -> None:
    """Run the command line; errors become one or two lines on stderr and an exit status."""
    try:
        status = cli.main(standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        status = _complain(error.format_message(), _help_hint(error), error.exit_code)
    except click.Abort:
        status = 130
    except HqtoolError as error:
        status = _complain(error.cause, error.remedy, error.exit_status)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    sys.exit(status if isinstance(status, int) else 0)


def _help_hint(error: click.ClickException) -> str | None:
    ctx = getattr(error, "ctx", None)
    return f"see: {ctx.command_path} --help" if ctx is not None else None


def _complain(cause: str, remedy: str | None, status: int) -> int:
    print(f"hqtool: {_one_line(cause)}", file=sys.stderr)
    if remedy:
        print(f"  {_one_line(remedy)}", file=sys.stderr)
    return status


def _one_line(text: str) -> str:
    return " ".join(text.split())
