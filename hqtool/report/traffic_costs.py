"""What a bill comes to: bytes by purpose, joules, seconds; and how tables show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

from hqtool.report.model import Column, TableRow
from hqtool.sizes import binary_bytes
from hqtool.traffic.bill import AGAIN, DATA, LOOK, ON_CHIP, SCALES, Bill, as_bytes
from hqtool.traffic.pricing.energy import EnergyTable, seconds
from hqtool.traffic.pricing.store import PAPER, Chip


@dataclass(frozen=True, slots=True)
class Costs:
    """What else to tell of a bill.

    Args:
        energy: None: no joules.
        bandwidth: bytes per second; None: no time.
    """

    chip: Chip = PAPER
    energy: EnergyTable | None = None
    bandwidth: Fraction | None = None

    def columns(self, rows: Sequence[TableRow]) -> tuple[Column, ...]:
        """Those of joules and time, as far as asked, each in one unit for all rows."""
        units = {"joules": (JOULES, self.energy), "seconds": (SECONDS, self.bandwidth)}
        return tuple(
            Column(key, unit.name, unit.show)
            for key, (names, asked) in units.items()
            if asked is not None
            for unit in [unit_of([row[key] for row in rows], names)]
        )

    @property
    def text(self) -> str:
        """The chip, and where figures come from, for a title; '' of the paper's model."""
        parts = [f"buffer {binary_bytes(self.chip.buffer_bytes)}"] if self.chip != PAPER else []
        parts += ["tiled"] if self.chip.tiled else []
        parts += [f"energy {self.energy.name}"] if self.energy else []
        parts += [f"{shown_bandwidth(self.bandwidth)}"] if self.bandwidth else []
        return ", ".join(parts)

    def of(self, moved_bits: Any, on_chip_bits: Any) -> dict[str, float | None]:
        """Joules and seconds of so many bits; None where they were not asked for."""
        moved, on_chip = float(moved_bits), float(on_chip_bits)
        size, table, bandwidth = self.chip.buffer_bytes, self.energy, self.bandwidth
        return {
            "joules": table.joules(moved, on_chip, size) if table is not None else None,
            "seconds": seconds(moved, bandwidth) if bandwidth is not None else None,
        }

    def amounts(self, bill: Bill) -> dict[str, Any]:
        """A bill's bytes by purpose and in all, looks included, with joules and seconds."""
        of = {
            "payload_bytes": bill.bits_for(DATA),
            "scale_bytes": bill.bits_for(SCALES),
            "again_bytes": bill.bits_for(AGAIN),
            "look_bytes": bill.bits_for(LOOK),
            "on_chip_bytes": bill.bits_for(ON_CHIP),
            "static_bytes": bill.static_bits,
            "bytes": bill.dynamic_bits,
        }
        rounded = {name: as_bytes(bits) for name, bits in of.items()}
        return rounded | self.of(bill.dynamic_bits, bill.bits_for(ON_CHIP))


#: Units by how much they stand for, the smallest first.
BYTES = {"B": 1.0, "KiB": 1024.0, "MiB": 1024.0**2, "GiB": 1024.0**3, "TiB": 1024.0**4}
JOULES = {"nJ": 1e-9, "µJ": 1e-6, "mJ": 1e-3, "J": 1.0}
SECONDS = {"ns": 1e-9, "µs": 1e-6, "ms": 1e-3, "s": 1.0}


class Unit(NamedTuple):
    """What the figures of a column are in."""

    name: str
    size: float

    def show(self, amount: float) -> str:
        """Two decimals."""
        return f"{amount / self.size:,.2f}"


def unit_of(amounts: Sequence[float], units: Mapping[str, float]) -> Unit:
    """The largest unit of which the largest amount is at least 10, else the smallest."""
    most = max(amounts, default=0.0)
    fitting = [Unit(*each) for each in units.items() if most >= 10 * each[1]]
    return fitting[-1] if fitting else Unit(*next(iter(units.items())))


def shown_bandwidth(bytes_per_second: Fraction) -> str:
    """In decimal units, as memories are sold."""
    amount = float(bytes_per_second)
    for unit in ("B/s", "kB/s", "MB/s", "GB/s"):
        if amount < 1000:
            return f"{amount:g} {unit}"
        amount /= 1000
    return f"{amount:g} TB/s"
