"""How tensors are kept in memory, and looked at on their way there: what prices ask."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple, Protocol

from hqtool.traffic.works import Operand, Work


class Stored(NamedTuple):
    """Bits of one tensor in memory.

    Args:
        payload: of its elements.
        scales: of its blocks, or of its channels, samples or rows. The one scale of a whole tensor
            is a register's content, and not counted.
    """

    payload: int
    scales: int = 0


@dataclass(frozen=True, slots=True)
class Looks:
    """The looks of an estimator in a mean step, once its ranges are set up.

    Args:
        rate: share of the steps at which it looks.
        evaluations: at each look, passes over the tensor that a search takes beyond it.
        per: what shares a range: the 'tensor', a 'channel', a 'sample' or a 'row'.
    """

    rate: Fraction
    evaluations: int = 0
    per: str = "tensor"

    def held(self, operand: Operand) -> int:
        """Elements that the chip must hold to look at an operand without a trip to memory.

        Those of a channel lie in every sample, so that a look at it takes the whole tensor.
        """
        shape = operand.shape
        if shape is None or self.per not in ("sample", "row"):
            return operand.numel
        return operand.numel // max(1, shape[0]) if self.per == "sample" else channels_of(operand)


#: Of estimators that never look, or only at blocks, on chip.
NO_LOOKS = Looks(Fraction(0))

#: Of dynamic quantization: at the whole tensor, at every step (eq. 5).
AT_EVERY_STEP = Looks(Fraction(1))


class Store(Protocol):
    """How the tensors of one layer are kept in memory, and which are looked at."""

    @property
    def acc(self) -> int:
        """Bits of an accumulator."""
        ...

    def stored(self, operand: Operand) -> Stored:
        """What an operand takes in memory."""
        ...

    def looks_at_made(self, work: Work) -> Looks:
        """At a result, as it leaves the accumulator."""
        ...

    def looks_at_read(self, operand: Operand) -> Looks:
        """At an operand that is quantized anew as it is loaded."""
        ...


@dataclass(frozen=True, slots=True)
class Chip:
    """What the chip keeps from memory.

    Args:
        buffer_bytes: a look at no more accumulator output than this stays on the chip.
        tiled: the buffer is also all that keeps operands of a product from being loaded again.
    """

    buffer_bytes: int = 0
    tiled: bool = False

    @property
    def buffer_bits(self) -> int:
        return 8 * self.buffer_bytes


#: The paper's model: every look goes to memory, and every operand is loaded once (eq. 4, 5).
PAPER = Chip()


def channels_of(operand: Operand) -> int:
    """Entries along an operand's channel axis; all its elements where its shape is unknown."""
    return operand.numel if operand.shape is None else operand.shape[operand.channel_axis]


def full_shape(operand: Operand) -> tuple[tuple[int, ...], int]:
    """An operand's shape and channel axis; one long row where only its elements are known."""
    if operand.shape is None:
        return (operand.numel,), -1
    return operand.shape, operand.channel_axis
