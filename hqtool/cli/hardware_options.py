"""Options that describe the hardware: its buffer, its energy, its bandwidth."""

from __future__ import annotations

from typing import Any

import click

from hqtool.sizes import read_bytes


class ByteSize(click.ParamType[int]):
    """A size such as 64KiB, in bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Whole bytes."""
        found = value if isinstance(value, int) else read_bytes(str(value))
        if found is None:
            self.fail(f"'{value}' is not a size; write 64KiB, 1.5MiB or 4096", param, ctx)
        return found


buffer_option = click.option(
    "--buffer",
    "buffer_bytes",
    metavar="SIZE",
    type=ByteSize(),
    default=0,
    show_default=True,
    help="Accumulator output that the chip holds, such as 64KiB or 1MiB: a look at no more than "
    "this moves nothing. With 0 every look does.",
)
