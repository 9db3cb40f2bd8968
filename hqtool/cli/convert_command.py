"""`hqtool convert`: make a trace of tensors saved by other means."""

from __future__ import annotations

import click

from hqtool.cli.files import INPUT, REGULAR_OUTPUT, FileCommand
from hqtool.cli.output import announce, force_option, quiet_option
from hqtool.trace.convert import convert_npz


@click.command("convert", cls=FileCommand)
@click.argument("files", type=INPUT, metavar="FILES...", nargs=-1, required=True)
@click.option(
    "-o",
    "out",
    type=REGULAR_OUTPUT,
    metavar="TRACE.h5",
    required=True,
    help="The trace to write.",
)
@force_option
@quiet_option
def command(files: tuple[str, ...], out: str, force: bool, quiet: bool) -> None:
    """Make a trace of .npz FILES whose keys are LAYER/KIND/STEP.

    For example np.savez("run.npz", **{"conv1/output/0": y0, "conv1/output/1": y1}). KIND is
    one of the tensor kinds of hqtool list; arrays are float16, float32 or float64.
    """
    convert_npz(files, out, force=force)
    announce(f"wrote {out}; next: hqtool compare {out}", quiet)
