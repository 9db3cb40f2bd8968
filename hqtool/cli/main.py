"""The `hqtool` command. Each subcommand's module is imported when it is run."""

from __future__ import annotations

import signal
import sys
from importlib import import_module

import click
from click.shell_completion import CompletionItem

from hqtool.cli.files import Terminated, die_of_sigterm
from hqtool.cli.streams import own_streams
from hqtool.display import harmless
from hqtool.errors import HqtoolError, UsageError
from hqtool.nearest import known_names
from hqtool.outputs import ReaderGone
from hqtool.version import __version__

#: Command → what `--help` says of it; its module is hqtool.cli.NAME_command.
COMMANDS = {
    "capture": "Record the tensors of a training script as it runs.",
    "compare": "Replay a trace through quantizers and score them.",
    "recommend": "Choose the cheapest quantizer that is good enough, site by site.",
    "train": "Run a training script, quantized as a recipe says.",
    "study": "Train with recipes and seeds side by side: one table.",
    "traffic": "Bill the memory traffic of layers, static and dynamic.",
    "spec": "Write the layer spec of a model, a trace or an ONNX file.",
    "report": "Show it all on one HTML page, offline.",
    "info": "Say what is in a trace.",
    "convert": "Make a trace of .npz files.",
    "repair": "Make a clean trace of a killed or damaged one.",
    "list": "List estimators, metrics and tensor kinds.",
}


#: The status of a command that SIGTERM ended.
_TERMINATED = 128 + signal.SIGTERM


class BareCommand(click.UsageError):
    """`hqtool` was called without arguments."""


class LazyGroup(click.Group):
    """Knows its commands' names and summaries without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which a user needs them."""
        return list(COMMANDS)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Without arguments show the help on stderr, as click does."""
        if not args and not ctx.resilient_parsing:
            raise BareCommand(ctx.get_help(), ctx)
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command of the first word; an unknown one is answered with the nearest."""
        if args[0] not in COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise UsageError(f"no such command: {args[0]}", known_names(args[0], COMMANDS))
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names of commands without importing them."""
        names = [CompletionItem(n, help=h) for n, h in COMMANDS.items() if n.startswith(incomplete)]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

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
@click.version_option(__version__, "-V", "--version", prog_name="hqtool")
def cli() -> None:
    """Choose a quantizer: a range estimator and a number format.

    Record the activations and gradients of a training run (capture), replay them through every
    quantizer and see what each costs in accuracy and memory traffic (compare), choose the cheapest
    that is good enough for each layer (recommend), or bill the traffic of a network from its layer
    shapes alone (traffic).
    """


def main() -> None:
    """Run the command line; errors become one or two lines on stderr and an exit status."""
    try:
        with own_streams():
            status = _status()
    except (HqtoolError, OSError) as error:  # from output that was still buffered
        status = _report_error(error)
    except ReaderGone:
        status = 0
    if status == _TERMINATED:
        die_of_sigterm()
    sys.exit(status)


def _status() -> int:
    try:
        found = cli.main(prog_name="hqtool", standalone_mode=False)
        return found if isinstance(found, int) else 0
    except BareCommand as error:
        print(error.message, file=sys.stderr)
        return error.exit_code
    except Terminated:
        return _TERMINATED
    except click.Abort:
        return 130
    except (click.ClickException, HqtoolError, OSError) as error:
        return _report_error(error)


def _report_error(error: Exception) -> int:
    """Print an error; returns its exit status."""
    if isinstance(error, HqtoolError):
        return _complain(error.cause, error.remedy, error.exit_status)
    if isinstance(error, click.ClickException):
        return _complain(error.format_message(), _help_hint(error), error.exit_code)
    return _complain(str(error), None, 3)


def _help_hint(error: click.ClickException) -> str | None:
    ctx = getattr(error, "ctx", None)
    return f"see: {ctx.command_path} --help" if ctx is not None else None


def _complain(cause: str, remedy: str | None, status: int) -> int:
    if sys.stderr is not None:
        print(f"hqtool: {_one_line(cause)}", file=sys.stderr)
        if remedy:
            print(f"  {_one_line(remedy)}", file=sys.stderr)
    return status


def _one_line(text: str) -> str:
    return harmless(" ".join(text.split()))
