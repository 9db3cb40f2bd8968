"""Which operations are joined to the one before."""

from __future__ import annotations

from hqtool.errors import UsageError
from hqtool.nearest import known_names
from hqtool.traffic.layers import Layer
from hqtool.traffic.ops.pointwise import NORMS

#: Operations that can work on a result as it leaves the accumulator.
FUSABLE = ("norm", "activation", "add")

#: What accelerators join: they have a unit for such operations behind the accumulator.
DEFAULT_FUSE = frozenset(FUSABLE)

NOTHING = "none"


def parse_fuse(text: str) -> frozenset[str]:
    """Read "norm,activation,add" or "none".

    Raises:
        UsageError: a word is none of these, or "none" is not alone.
    """
    words = [word.strip() for word in text.split(",")]
    if words == [NOTHING]:
        return frozenset()
    for word in words:
        if word not in FUSABLE:
            remedy = known_names(word, (*FUSABLE, f"{NOTHING} (alone)"))
            raise UsageError(f"fuse {text!r}: {word!r} cannot be fused", remedy)
    return frozenset(words)


def can_fuse(layer: Layer, fuse: frozenset[str], *, trains: bool) -> bool:
    """Whether a layer can work on its operand element by element, or row by row, as it is made.

    Products of two operands, element by element, are joined where sums are.

    The statistics of a batch, of an instance or of a group of channels are known only once the
    whole tensor has been made. Those of a batch are constants where nothing trains.
    """
    if ("add" if layer.op == "mul" else layer.op) not in fuse:
        return False
    if layer.op != "norm" or NORMS[layer.kind].by_row:
        return True
    return layer.kind == "batch" and not trains
