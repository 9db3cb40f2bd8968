"""The options of `hqtool traffic` that are about quantizers and hardware."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from hqtool.cli.choice import WholeNumber
from hqtool.cli.files import INPUT
from hqtool.cli.hardware_options import buffer_option
from hqtool.cli.output import Command
from hqtool.errors import UsageError

if TYPE_CHECKING:  # numpy, which the bill of a spec alone does not need
    from hqtool.report.traffic_costs import Costs
    from hqtool.traffic.pricing.scheme import Scheme

_DEFAULT_TABLE = "horowitz-2014"

_OPTIONS = (
    click.option(
        "--quantizer",
        "quantizers",
        metavar="EST@FORMAT[/ROUNDING]",
        multiple=True,
        help="Bill the network under this quantizer of all activations and their gradients, with "
        "weights in the same format; repeat for more. Lists sweep: current@int8,e4m3.",
    ),
    click.option(
        "--recipe",
        "recipes",
        type=INPUT,
        metavar="NAME|FILE",
        multiple=True,
        help="Bill the network under a whole recipe (see hqtool list recipes); repeat for more.",
    ),
    click.option(
        "--unquantized",
        metavar="BITS",
        type=WholeNumber(1, 64),
        default=32,
        show_default=True,
        help="What a recipe does not quantize is stored in so many bits.",
    ),
    buffer_option,
    click.option(
        "--sweep",
        metavar="buffer=16KiB..64MiB",
        help="Bill at each of these buffers, powers of two, and say from which on looks are free.",
    ),
    click.option(
        "--tiling",
        is_flag=True,
        help="Count what products load again where the buffer does not hold an operand: the best "
        "of a weight-, an output- and an input-stationary loop order.",
    ),
    click.option(
        "--energy",
        metavar="[NAME|FILE]",
        type=INPUT,
        is_flag=False,
        flag_value=_DEFAULT_TABLE,
        help="Joules, from a table of pJ per bit; where it is the last word, without a name, "
        f"{_DEFAULT_TABLE}.",
    ),
    click.option(
        "--bandwidth", metavar="25GB/s", help="How long the traffic alone takes at this bandwidth."
    ),
)


def pricing_options(command: Command) -> Command:
    """Quantizers, and the hardware that they run on."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def costs_of(
    buffer_bytes: int, tiling: bool, energy: str | None, bandwidth: str | None, sweep: str | None
) -> Costs:
    """The chip, and what else to tell of a bill.

    Raises:
        UsageError: options do not go together, or one is malformed.
        DataError: an energy table cannot be read.
    """
    from hqtool.report.traffic_costs import Costs
    from hqtool.traffic.pricing.energy import load_energy, parse_bandwidth
    from hqtool.traffic.pricing.store import Chip

    if sweep is not None and buffer_bytes:
        raise UsageError("--sweep goes through buffers", "leave --buffer out")
    if tiling and not buffer_bytes and sweep is None:
        raise UsageError("--tiling needs a buffer", "add --buffer 64KiB, or --sweep")
    return Costs(
        Chip(buffer_bytes, tiling),
        load_energy(energy) if energy is not None else None,
        parse_bandwidth(bandwidth) if bandwidth is not None else None,
    )


def schemes_of(quantizers: Sequence[str], recipes: Sequence[str]) -> list[Scheme]:
    """What to bill the network under, quantizers first; each once.

    Raises:
        UsageError: one is unknown or malformed.
        DataError: a recipe's file cannot be read.
    """
    if not (quantizers or recipes):
        return []
    from hqtool.estimators.quantizer import sweep_quantizers
    from hqtool.recipes.named import load_recipe
    from hqtool.traffic.pricing.scheme import Scheme, scheme_of

    named = [scheme_of(q) for text in quantizers for q in sweep_quantizers(text)]
    loaded = [Scheme(recipe.name, recipe) for recipe in map(load_recipe, dict.fromkeys(recipes))]
    found = list({scheme.label: scheme for scheme in named}.values()) + loaded
    if len({scheme.label for scheme in found}) < len(found):
        raise UsageError("two recipes have the same name", "give each its own name")
    return found
