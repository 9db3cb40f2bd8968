"""The bill of memory traffic: named transfers in bits, for static and dynamic quantization.

Every amount is an exact whole number of bits; `as_bytes` is the only conversion.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import NamedTuple

from hqtool.errors import UsageError
from hqtool.nearest import known_names
from hqtool.traffic.geometry import Counts
from hqtool.traffic.pricing.rereads import loads_of
from hqtool.traffic.pricing.store import (
    AT_EVERY_STEP,
    NO_LOOKS,
    PAPER,
    Chip,
    Looks,
    Store,
    Stored,
)
from hqtool.traffic.works import Operand, Work, counted_tensors, product_works

#: A number of bits, exact; looks that do not recur at every step make fractions.
ExactBits = int | Fraction

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

    def stored(self, operand: Operand) -> Stored:
        """What an operand takes in memory: elements of one width, and no scales."""
        width: int = getattr(self, operand.width)
        return Stored(operand.numel * width)

    def looks_at_made(self, work: Work) -> Looks:
        """Those of dynamic quantization, wherever a result is quantized."""
        return AT_EVERY_STEP if work.quantizes else NO_LOOKS

    def looks_at_read(self, operand: Operand) -> Looks:
        """None: what is read was quantized when it was made."""
        return NO_LOOKS


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


#: What a transfer is for.
DATA, SCALES, AGAIN, LOOK, ON_CHIP = "data", "scales", "again", "look", "on chip"


class Transfer(NamedTuple):
    """One tensor's trip between memory and the compute unit.

    Args:
        name: what moves, and which way.
        bits: its size, in bits; a fraction where it is the mean of several steps.
        purpose: `DATA`: elements of a tensor, once; `SCALES` of them; `AGAIN`: elements that are
            loaded more than once; `LOOK`: accumulator output, for a look; `ON_CHIP`: the same,
            within the chip.
    """

    name: str
    bits: ExactBits
    purpose: str = DATA


@dataclass(frozen=True, slots=True)
class Bill:
    """The transfers of one step: eq. 4 where static, eq. 5 where dynamic."""

    transfers: tuple[Transfer, ...]

    def bits_for(self, *purposes: str) -> ExactBits:
        """Bits of the transfers that are for one of these."""
        return sum((t.bits for t in self.transfers if t.purpose in purposes), start=0)

    @property
    def static_bits(self) -> ExactBits:
        """Bits moved when the range is known beforehand (eq. 4)."""
        return self.bits_for(DATA, SCALES, AGAIN)

    @property
    def dynamic_bits(self) -> ExactBits:
        """Bits moved when the tensor must be read before it is quantized (eq. 5)."""
        return self.bits_for(DATA, SCALES, AGAIN, LOOK)

    @property
    def overhead(self) -> float | None:
        """dynamic/static − 1, as a fraction: 3.66 is Table 5's +366%; None where nothing moves."""
        if not self.static_bits:
            return None
        return float((self.dynamic_bits - self.static_bits) / self.static_bits)

    def times(self, repeat: int) -> Bill:
        """The bill of `repeat` such steps or layers."""
        return Bill(tuple(t._replace(bits=t.bits * repeat) for t in self.transfers))


def total(bills: Iterable[Bill]) -> Bill:
    """All transfers of several bills as one bill, those of one name and purpose together."""
    sums: dict[tuple[str, str], ExactBits] = {}
    for bill in bills:
        for name, bits, purpose in bill.transfers:
            sums[name, purpose] = sums.get((name, purpose), 0) + bits
    return Bill(tuple(Transfer(name, bits, purpose) for (name, purpose), bits in sums.items()))


def price(work: Work, store: Store, chip: Chip = PAPER) -> Bill:
    """What one work moves: each operand once, the result once (eq. 4).

    A look at the result also saves the accumulator's output, and loads it back (eq. 5), once more
    for each evaluation of a search. The paper prints b_a there; Table 5 needs b_acc.

    Raises:
        UsageError: the chip is tiled, and its buffer does not hold one accumulator.
    """
    trips = [(f"load {each.name}", each) for each in work.reads]
    trips += [(f"save {work.made.name}", work.made)] if work.saves else []
    kept = [(name, store.stored(operand)) for name, operand in trips]
    return Bill(
        (
            *(Transfer(name, stored.payload) for name, stored in kept),
            *(Transfer(name, stored.scales, SCALES) for name, stored in kept if stored.scales),
            *_loaded_again(work, store, chip),
            *_looks_at_made(work, store, chip),
            *_looks_at_read(work, store, chip),
        )
    )


def _loaded_again(work: Work, store: Store, chip: Chip) -> Iterator[Transfer]:
    """What tiles of a product load more than once."""
    if not (chip.tiled and work.sums):
        return
    if chip.buffer_bits < store.acc:
        cause = f"a buffer of {chip.buffer_bytes} bytes does not hold one accumulator"
        raise UsageError(cause, "give --buffer a size, such as 64KiB")
    bits = [sum(store.stored(each)) for each in work.reads]
    loads = loads_of(work, bits, store.acc, chip.buffer_bits)
    for operand, size, times in zip(work.reads, bits, loads, strict=True):
        if times > 1:
            yield Transfer(f"load {operand.name} again", size * (times - 1), AGAIN)


def _looks_at_made(work: Work, store: Store, chip: Chip) -> Iterator[Transfer]:
    """Accumulator output, saved and loaded; within the chip where it holds what is looked at."""
    looks = store.looks_at_made(work)
    if looks.rate:
        fits = looks.held(work.made) * store.acc <= chip.buffer_bits
        size, purpose = looks.rate * work.made.numel * store.acc, ON_CHIP if fits else LOOK
        yield Transfer("save accumulator output", _whole(size), purpose)
        yield Transfer("load accumulator output", _whole(size), purpose)
        if looks.evaluations:
            name = "load accumulator output to search"
            yield Transfer(name, _whole(size * looks.evaluations), purpose)


def _looks_at_read(work: Work, store: Store, chip: Chip) -> Iterator[Transfer]:
    """Operands that are quantized anew: loaded once more, as they are stored, for each pass."""
    for operand in work.reads:
        looks, bits = store.looks_at_read(operand), sum(store.stored(operand))
        if looks.rate:
            fits = looks.held(operand) * bits <= chip.buffer_bits * operand.numel
            size = looks.rate * bits * (1 + looks.evaluations)
            yield Transfer(f"load {operand.name} to look", _whole(size), ON_CHIP if fits else LOOK)


def _whole(bits: ExactBits) -> ExactBits:
    """The same as an int, where it is whole."""
    return int(bits) if bits == int(bits) else bits


def works_bill(works: Iterable[Work], store: Store, repeat: int = 1, chip: Chip = PAPER) -> Bill:
    """What all these works move, so many times over."""
    return total(price(work, store, chip) for work in works).times(repeat)


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


def as_bytes(bits: ExactBits | float) -> int | float:
    """Bytes of so many bits: an int where whole."""
    whole, rest = divmod(bits, 8)
    return float(bits / 8) if rest else int(whole)
