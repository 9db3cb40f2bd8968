"""`hqtool repair`: make a clean trace of a killed or damaged one."""

from __future__ import annotations

import click

from hqtool.cli.files import INPUT, REGULAR_OUTPUT, FileCommand
from hqtool.cli.output import announce, force_option, quiet_option
from hqtool.sizes import counted
from hqtool.trace.repair import Repaired, repair


@click.command("repair", cls=FileCommand)
@click.argument("trace", type=INPUT)
@click.option(
    "-o",
    "out",
    type=REGULAR_OUTPUT,
    metavar="CLEAN.h5",
    required=True,
    help="The trace to write.",
)
@force_option
@quiet_option
def command(trace: str, out: str, force: bool, quiet: bool) -> int:
    """Write a clean, closed trace of every committed record of TRACE that can still be read.

    For traces whose writer was killed, or that were cut or damaged since; TRACE itself is only
    read. Of a trace that is still being written, what was committed by now is saved. Exit status 3
    where something was lost: the clean trace is written all the same.
    """
    done = repair(trace, out, force=force)
    if done.lost:
        announce(f"hqtool: {trace}: {_loss_message(done)}", quiet=False)
    held = f"{counted(done.steps, 'step')}, {counted(done.records, 'record')}"
    announce(f"wrote {out}: {held}, {done.state}", quiet)
    return 3 if done.lost else 0


def _loss_message(done: Repaired) -> str:
    verb = "is" if done.records_lost == 1 else "are"
    lost = (
        f"{done.records_lost} of {counted(done.records + done.records_lost, 'record')} {verb} lost"
    )
    values = f"{done.values_lost} more kept their statistics but lost their values"
    extremes = f", {done.extremes_lost} lost the extremes of their channels"
    return f"{lost}, {values}{extremes if done.extremes_lost else ''}"
