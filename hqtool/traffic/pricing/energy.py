"""What moving bits takes: joules, from a table of pJ per bit, and seconds, at a bandwidth."""

from __future__ import annotations

import os
from dataclasses import dataclass
from fractions import Fraction
from importlib.resources import files

from hqtool.errors import UsageError
from hqtool.nearest import known_names
from hqtool.sizes import BINARY_UNITS, DECIMAL_UNITS, read_amount, read_bytes
from hqtool.spec_file import check_schema, load_spec_file, parse_spec
from hqtool.spec_table import SpecTable

SCHEMA = "hqtool.energy/1"

#: The table where none is named.
DEFAULT_TABLE = "horowitz-2014"

_PICO = 1e-12


@dataclass(frozen=True, slots=True)
class EnergyTable:
    """Energy of moving a bit, in pJ.

    Args:
        name: as results call it.
        source: where its numbers come from.
        dram: between chip and memory.
        sram: (bytes, pJ per bit) of buffers up to so many bytes, the smallest first.
    """

    name: str
    source: str
    dram: float
    sram: tuple[tuple[int, float], ...]

    def of_buffer(self, buffer_bytes: int) -> float:
        """pJ per bit of a buffer: of the smallest one listed that is no smaller, or the largest."""
        large_enough = [pj for size, pj in self.sram if size >= buffer_bytes]
        return large_enough[0] if large_enough else self.sram[-1][1]

    def joules(self, moved: float, on_chip: float, buffer_bytes: int) -> float:
        """Of bits that move between chip and memory, and of those that looks move in the buffer.

        Arithmetic, registers and the way from the buffer to the multipliers are left out: they do
        not depend on how ranges are found.
        """
        return (self.dram * moved + self.of_buffer(buffer_bytes) * on_chip) * _PICO


def load_energy(text: str) -> EnergyTable:
    """The named table, else the one in this file.

    Raises:
        UsageError: there is neither.
        DataError: the file is no such table; names it and the key.
    """
    names = energy_tables()
    if text in names:
        place = files("hqtool.traffic.pricing").joinpath("data", f"{text}.toml")
        return _table(SpecTable(parse_spec(place.read_text(encoding="utf-8")), text), text)
    if not os.path.exists(text) and os.path.basename(text) == text and "." not in text:
        remedy = f"{known_names(text, names)}; or give a file"
        raise UsageError(f"unknown energy table '{text}'", remedy)
    return load_spec_file(text, lambda top: _table(top, text))


def energy_tables() -> list[str]:
    """The names of the tables that hqtool has."""
    places = files("hqtool.traffic.pricing").joinpath("data").iterdir()
    return sorted(p.name.removesuffix(".toml") for p in places if p.name.endswith(".toml"))


def _table(top: SpecTable, name: str) -> EnergyTable:
    check_schema(top, SCHEMA, "an energy table")
    top.only(("schema", "description", "source", "dram", "sram"))
    source = top.text("source").strip() if "source" in top else ""
    return EnergyTable(name, source, top.number("dram"), _sram(top))


def _sram(top: SpecTable) -> tuple[tuple[int, float], ...]:
    rows = top.get("sram")
    if not isinstance(rows, list) or not rows:
        remedy = 'write sram = [{size = "1MiB", pj_per_bit = 1.5}]'
        raise top.wrong("sram", "is not a list of buffers", remedy)
    return tuple(sorted(_buffer(SpecTable(row, "sram")) for row in rows))


def _buffer(row: SpecTable) -> tuple[int, float]:
    row.only(("size", "pj_per_bit"))
    size = read_bytes(row.text("size"))
    if not size:
        raise row.wrong("size", f"'{row.text('size')}' is not a size", 'write "64KiB" or "1MiB"')
    return size, row.number("pj_per_bit")


def parse_bandwidth(text: str) -> Fraction:
    """Bytes per second of a text such as '25GB/s' or '1.2TiB/s'.

    Raises:
        UsageError: it is no such text, or 0.
    """
    amount, slash, second = text.strip().rpartition("/")
    found = read_amount(amount, BINARY_UNITS | DECIMAL_UNITS) if slash and second == "s" else None
    if not found or not amount.strip()[-1:].isalpha():
        raise UsageError(f"'{text}' is not a bandwidth", "write --bandwidth 25GB/s")
    return found


def seconds(moved: float, bytes_per_second: Fraction) -> float:
    """How long it takes to move so many bits, and nothing else."""
    return moved / 8 / float(bytes_per_second)
