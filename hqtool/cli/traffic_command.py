"""`hqtool traffic`: the bill of a network's layers."""

from __future__ import annotations

import click

from hqtool.cli.choice import NamedWords, WholeNumber, choice_of
from hqtool.cli.files import INPUT, FileCommand
from hqtool.cli.layer_sources import dim_option, layer_spec_of
from hqtool.cli.output import deliver, file_options
from hqtool.cli.traffic_options import costs_of, pricing_options, schemes_of
from hqtool.errors import UsageError
from hqtool.report.traffic import LISTED, SORTS, Billing
from hqtool.traffic.batch import with_batch
from hqtool.traffic.bill import parse_bits
from hqtool.traffic.fusing.choice import FUSABLE, NOTHING, parse_fuse
from hqtool.traffic.pricing.sweep import parse_sweep
from hqtool.traffic.works import PASSES


@click.command("traffic", cls=FileCommand)
@click.argument(
    "spec", type=INPUT, metavar="SPEC.toml|TRACE.h5...|MODEL.onnx", nargs=-1, required=True
)
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
@click.option(
    "--batch",
    metavar="N",
    type=WholeNumber(min=1),
    help="Samples in a batch, in place of those of the spec's first layer; all layers alike.",
)
@click.option(
    "--fuse",
    type=NamedWords(lambda: (*FUSABLE, NOTHING)),
    metavar="OP,...",
    default=",".join(FUSABLE),
    show_default=True,
    help="Operations that the hardware works out on a result before it goes to memory, or none.",
)
@click.option(
    "--sort",
    type=choice_of([LISTED, *SORTS]),
    default=LISTED,
    show_default=True,
    help="Order of the layers: as the spec lists them, by name or op, or the largest first.",
)
@click.option(
    "--top",
    metavar="N",
    type=WholeNumber(min=1),
    help="Show only the first N layers, and what the others come to.",
)
@dim_option
@pricing_options
@file_options
def command(
    spec: tuple[str, ...],
    bits: str | None,
    pass_name: str,
    batch: int | None,
    fuse: str,
    sort: str,
    top: int | None,
    dims: tuple[str, ...],
    quantizers: tuple[str, ...],
    recipes: tuple[str, ...],
    unquantized: int,
    buffer_bytes: int,
    sweep: str | None,
    tiling: bool,
    energy: str | None,
    bandwidth: str | None,
    json_to: str | None,
    csv_to: str | None,
    force: bool,
    quiet: bool,
) -> None:
    """Bill the memory traffic of a network: a layer spec (TOML or JSON), a trace, an ONNX model.

    A trace is billed as it was run, one step with all its calls; traces of several ranks together.
    Of a model in Python hqtool spec writes the layer spec.

    static: weights, input and output each move once (eq. 4). dynamic: the accumulator's output
    is also saved and loaded back, since its range is known only at the end (eq. 5).
    overhead: dynamic / static − 1. share: of all dynamic traffic. KiB are 1024 bytes.

    With --quantizer or --recipe the network is billed under each of them instead: elements, scales
    of blocks, and looks of a mean step after the first.
    """
    from hqtool.report.traffic_priced import Asked, priced_report

    billing = Billing(pass_name, parse_fuse(fuse), sort, top)
    asked = Asked(
        costs=costs_of(buffer_bytes, tiling, energy, bandwidth, sweep),
        schemes=schemes_of(quantizers, recipes),
        wide_bits=unquantized,
        buffers=parse_sweep(sweep) if sweep is not None else (),
    )
    if (asked.schemes or asked.buffers) and (sort != LISTED or top is not None):
        cause = "--sort and --top are about layers, which --quantizer, --recipe and --sweep sum up"
        raise UsageError(cause, "leave them out, or read the layers from --json")
    layers = layer_spec_of(spec, dims)
    layers = layers if batch is None else with_batch(layers, batch)
    widths = parse_bits(bits, layers.bits) if bits is not None else layers.bits
    deliver(priced_report(layers, widths, billing, asked), json_to, csv_to, quiet, force=force)
