"""The bill of memory traffic: named transfers in bits, for static and dynamic quantization.

Every amount is an exact whole number of bits; `as_bytes` is the only conversion.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

from hqtool.errors import UsageError
from hqtool.nearest import known_names
from hqtool.traffic.geometry import Counts
from hqtool.traffic.works import Operand, Work, counted_tensors, product_works

#: The widest number a transfer may carry, in bits.
WIDEST_BITS = 64


@dataclass(frozen=True, slots=True)
class Bits:
    """Bit-widths b of the numbers that move.

    Args:
        w: weights.
        a: activations.
        g: gradients of activations.
        acc: the accumulator's output.
        gw: weight gradients, which stay in FP32.
    """

    w: int = 8
    a: int = 8
    g: int = 8
    acc: int = 32
    gw: int = 32


#: The bit-widths that Table 5 assumes, and FP32 weight gradients.
DEFAULT_BITS = Bits()


def parse_bits(text: str, base: Bits = DEFAULT_BITS) -> Bits:
    """Read bit-widths such as "w=8,a=8,g=8,acc=32"; what is not named stays as in `base`.

    Raises:
        UsageError: a part is malformed, unknown, given twice or not 1 to 64; names the part.
    """
    pairs = [_parse_part(part) for part in text.split(",")]
    widths = dict(pairs)
    if len(widths) < len(pairs):
        raise UsageError(f"bits {text!r}: a width is given twice", "give each width once")
    return replace(base, **widths)


def _parse_part(part: str) -> tuple[str, int]:
    key, width = (word.strip() for word in part.partition("=")[::2])
    known = asdict(DEFAULT_BITS)
    if key not in known:
        raise UsageError(f"bits part {part!r}: unknown key {key!r}", known_names(key, known))
    if width not in map(str, range(1, WIDEST_BITS + 1)):
        remedy = f"write {key}=BITS, a whole number from 1 to {WIDEST_BITS}"
        raise UsageError(f"bits part {part!r}: {width!r} is not a bit-width", remedy)
    return key, int(width)


class Transfer(NamedTuple):
    """One tensor's trip between memory and the compute unit.

    Args:
        name: what moves, and which way.
        bits: its size, in bits.
        dynamic_only: only dynamic quantization makes this trip.
    """

    name: str
    bits: int
    dynamic_only: bool = False


@dataclass(frozen=True, slots=True)
class Bill:
    """The transfers of one step: eq. 4 where static, eq. 5 where dynamic."""

    transfers: tuple[Transfer, ...]

    @property
    def static_bits(self) -> int:
        """Bits moved when the range is known beforehand (eq. 4)."""
        return sum(t.bits for t in self.transfers if not t.dynamic_only)

    @property
    def dynamic_bits(self) -> int:
        """Bits moved when the tensor must be read before it is quantized (eq. 5)."""
        return sum(t.bits for t in self.transfers)

    @property
    def overhead(self) -> float:
        """dynamic/static − 1, as a fraction: 3.66 is Table 5's +366%."""
        return (self.dynamic_bits - self.static_bits) / self.static_bits

    def times(self, repeat: int) -> Bill:
        """The bill of `repeat` such steps or layers."""
        return Bill(tuple(t._replace(bits=t.bits * repeat) for t in self.transfers))


def total(bills: Iterable[Bill]) -> Bill:
    """All transfers of several bills as one bill."""
    return Bill(tuple(transfer for bill in bills for transfer in bill.transfers))


def price(work: Work, bits: Bits) -> Bill:
    """What one work moves: each operand once, the result once (eq. 4).

    Dynamic quantization also saves the accumulator's output of a result whose range it must look
    for, and loads it back (eq. 5). The paper prints b_a there; Table 5 needs b_acc.
    """
    loads = [Transfer(f"load {each.name}", _bits_of(each, bits)) for each in work.reads]
    saves = [Transfer(f"save {work.made.name}", _bits_of(work.made, bits))] if work.saves else []
    return Bill((*loads, *saves, *(_spill(work.made, bits) if work.quantizes else ())))


def _bits_of(operand: Operand, bits: Bits) -> int:
    width: int = getattr(bits, operand.width)
    return operand.numel * width


def _spill(made: Operand, bits: Bits) -> tuple[Transfer, ...]:
    amount = made.numel * bits.acc
    return (
        Transfer("save accumulator output", amount, dynamic_only=True),
        Transfer("load accumulator output", amount, dynamic_only=True),
    )


def works_bill(works: Iterable[Work], bits: Bits, repeat: int = 1) -> Bill:
    """What all these works move, so many times over."""
    return total(price(work, bits) for work in works).times(repeat)


def site_bill(tensor: str, counts: Counts, bits: Bits, numel: int) -> Bill | None:
    """The bill of making one record of a site.

    Args:
        tensor: the site's tensor kind.
        counts: elements of the layer's tensors as its geometry was recorded.
        numel: elements of this very record; activations scale with it (a last, smaller batch).

    Returns:
        None for tensor kinds that have no bill: only `output` and `grad_input` leave an
        accumulator on their way to memory.
    """
    if tensor not in ("output", "grad_input"):
        return None
    usual = counts.output if tensor == "output" else counts.input
    now = Counts(counts.weight, counts.input * numel // usual, counts.output * numel // usual)
    made = (work for work in product_works(counted_tensors(now)) if work.made.kind == tensor)
    return price(next(made), bits)


def as_bytes(bits: float) -> int | float:
    """Bytes of so many bits: an int where whole, else the exact fraction."""
    whole, rest = divmod(bits, 8)
    return bits / 8 if rest else int(whole)
