"""`hqtool traffic`: the bill of a layer spec."""

from __future__ import annotations

import click

from hqtool.cli.choice import choice_of
from hqtool.cli.files import INPUT, FileCommand
from hqtool.cli.output import deliver, file_options
from hqtool.errors import DataError
from hqtool.trace.signature import may_be_trace
from hqtool.traffic.bill import parse_bits
from hqtool.traffic.spec import load_spec
from hqtool.traffic.works import PASSES


@click.command("traffic", cls=FileCommand)
@click.argument("spec", type=INPUT)
@click.option(
    "--bits",
    metavar="w=8,a=8,g=8,acc=32",
    help="Bit-widths: weights, activations, gradients, accumulator (and gw: weight gradients). "
    "Widths not named stay as the spec has them.",
)
@click.option(
    "--pass",
    "pass_name",
    type=choice_of(list(PASSES)),
    default="forward",
    show_default=True,
    help="Which pass of training to bill.",
)
@file_options
def command(
    spec: str,
    bits: str | None,
    pass_name: str,
    json_to: str | None,
    csv_to: str | None,
    force: bool,
    quiet: bool,
) -> None:
    """Bill the memory traffic of the layers in SPEC (TOML or JSON).

    static: weights, input and output each move once (eq. 4). dynamic: the accumulator's output
    is also saved and loaded back, since its range is known only at the end (eq. 5).
    overhead: dynamic / static − 1. KiB are 1024 bytes.
    """
    from hqtool.report.traffic import traffic_report

    if may_be_trace(spec):
        raise _not_a_spec(spec)
    layers = load_spec(spec)
    widths = parse_bits(bits, layers.bits) if bits is not None else layers.bits
    deliver(traffic_report(layers, widths, pass_name), json_to, csv_to, quiet, force=force)


def _not_a_spec(path: str) -> DataError:
    """The error of a trace given for a layer spec.

    Raises:
        DataError: the trace cannot be read.
    """
    from hqtool.trace.reader import TraceReader

    with TraceReader(path):
        remedy = f"write its layers as TOML or JSON; hqtool info {path} shows what it holds"
        return DataError(f"{path} is a trace, not a layer spec", remedy)
