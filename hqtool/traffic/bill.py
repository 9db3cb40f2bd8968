"""The bill of memory traffic: named transfers in bits, for static and dynamic quantization.

Every amount is an exact whole number of bits; `as_bytes` is the only conversion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

from hqtool.errors import UsageError
from hqtool.nearest import known_names
from hqtool.traffic.layers import Counts, Layer

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


def forward(counts: Counts, bits: Bits) -> Bill:
    """Y from X and W: W·b_w + X·b_a + Y·b_a bits; dynamic + 2·Y·b_acc (eq. 4 and 5).

    The paper prints b_a where eq. 5 loads the accumulator output; Table 5 needs b_acc.
    """
    moved = (
        Transfer("load weight", counts.weight * bits.w),
        Transfer("load input", counts.input * bits.a),
        Transfer("save output", counts.output * bits.a),
    )
    return Bill(moved + _spill(counts.output * bits.acc))


def grad_input(counts: Counts, bits: Bits) -> Bill:
    """G_X from G_Y and W: Y·b_g + W·b_w + X·b_g bits; dynamic + 2·X·b_acc (figure 1)."""
    moved = (
        Transfer("load grad_output", counts.output * bits.g),
        Transfer("load weight", counts.weight * bits.w),
        Transfer("save grad_input", counts.input * bits.g),
    )
    return Bill(moved + _spill(counts.input * bits.acc))


def grad_weight(counts: Counts, bits: Bits) -> Bill:
    """G_W from X and G_Y: X·b_a + Y·b_g + W·b_gw bits; it is not quantized, so never dynamic."""
    moved = (
        Transfer("load input", counts.input * bits.a),
        Transfer("load grad_output", counts.output * bits.g),
        Transfer("save grad_weight", counts.weight * bits.gw),
    )
    return Bill(moved)


def _spill(accumulator_bits: int) -> tuple[Transfer, ...]:
    return (
        Transfer("save accumulator output", accumulator_bits, dynamic_only=True),
        Transfer("load accumulator output", accumulator_bits, dynamic_only=True),
    )


#: The passes a layer can be billed for, and what is made in each.
PASSES: dict[str, tuple[Callable[[Counts, Bits], Bill], ...]] = {
    "forward": (forward,),
    "backward": (grad_input, grad_weight),
    "both": (forward, grad_input, grad_weight),
}

#: The bill whose accumulator output becomes a site's tensor, by tensor kind.
_KIND_BILLS: dict[str, Callable[[Counts, Bits], Bill]] = {
    "output": forward,
    "grad_input": grad_input,
}


def layer_bill(layer: Layer, bits: Bits, pass_name: str = "forward") -> Bill:
    """The bill of one pass, a key of `PASSES`, over a layer and all its repeats.

    A layer that reads the network's own input has no G_X: no framework computes it.

    Raises:
        DataError: the layer's geometry is impossible.
    """
    parts = [part for part in PASSES[pass_name] if layer.grad_input or part is not grad_input]
    return total(part(layer.counts(), bits) for part in parts).times(layer.repeat)


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
    if tensor not in _KIND_BILLS:
        return None
    usual = counts.output if tensor == "output" else counts.input
    now = Counts(counts.weight, counts.input * numel // usual, counts.output * numel // usual)
    return _KIND_BILLS[tensor](now, bits)


def as_bytes(bits: float) -> int | float:
    """Bytes of so many bits: an int where whole, else the exact fraction."""
    whole, rest = divmod(bits, 8)
    return bits / 8 if rest else int(whole)
