"""Re-reads of a product whose operands do not fit the buffer: three loop orders, the best taken.

A product makes a tensor M from A and B; A shares one index with M, B another one, and A and B share
the one that is summed over: of Y from X and W, X shares the positions, W the output channels. The
buffer holds a tile of one of the three, the stationary one, while the others stream past it:

- **A stationary** (of a forward pass: input-stationary): whole rows of A stay, as many as fit. Each
  tile of them streams all of B: B is loaded ⌈rows / rows of a tile⌉ times, A and M move once.
- **B stationary** (weight-stationary): the same with A and B changing places.
- **M stationary** (output-stationary): the accumulators of a tile of M stay while A's and B's part
  of it stream past: A is loaded once for each column of tiles, B once for each row of tiles; the
  shape of the tile is the one that moves least.

Nothing is saved before it is summed up. An order needs room for one row of what is stationary, the
last one for one accumulator. Groups of a convolution are products by themselves, one after the
other. What streams takes no room, and neighbouring tiles of a convolution's input share no edge: an
element of X that several tiles need is loaded for one. So the model is a lower bound for its loop
orders; hardware that splits its buffer moves more, one that keeps tiles of two operands may move
less. Where the buffer holds one of the three tensors whole, each operand is loaded once: the
paper's model (eq. 4).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple


class Streamed(NamedTuple):
    """An operand of a product.

    Args:
        bits: its size, all groups together.
        rows: entries of the index that it shares with the result, in one group.
    """

    bits: int
    rows: int


class Loads(NamedTuple):
    """How often each operand is loaded, and in which loop order.

    Args:
        order: 'A', 'B' or 'M': what is stationary.
    """

    order: str
    a: int
    b: int

    def bits(self, a: Streamed, b: Streamed) -> int:
        """Loaded in all."""
        return self.a * a.bits + self.b * b.bits


@lru_cache(maxsize=4096)  # layers recur
def best_loads(a: Streamed, b: Streamed, groups: int, acc_bits: int, buffer_bits: int) -> Loads:
    """The loads of the loop order that moves least; of equal ones the first of A, B, M.

    Args:
        acc_bits: of an accumulator.
        buffer_bits: room for at least one accumulator.

    Raises:
        ValueError: the buffer does not hold one accumulator.
    """
    orders = loads_by_order(a, b, groups, acc_bits, buffer_bits)
    if not orders:
        raise ValueError(f"{buffer_bits} bits hold no accumulator of {acc_bits}")
    return min(orders.values(), key=lambda loads: loads.bits(a, b))


def loads_by_order(
    a: Streamed, b: Streamed, groups: int, acc_bits: int, buffer_bits: int
) -> dict[str, Loads]:
    """The least loads of each loop order that the buffer has room for: 'A', 'B', 'M'."""
    found: dict[str, Loads] = {}
    for loads in (
        *_with_rows_held(a, b, groups, buffer_bits),
        *_with_sums_held(a, b, acc_bits, buffer_bits),
    ):
        known = found.setdefault(loads.order, loads)
        found[loads.order] = min(known, loads, key=lambda each: each.bits(a, b))
    return found


def _with_rows_held(a: Streamed, b: Streamed, groups: int, buffer_bits: int) -> Iterator[Loads]:
    if tiles := _tiles(a, groups, buffer_bits):
        yield Loads("A", 1, tiles)
    if tiles := _tiles(b, groups, buffer_bits):
        yield Loads("B", tiles, 1)


def _tiles(held: Streamed, groups: int, buffer_bits: int) -> int:
    """How many tiles of whole rows make up an operand's group; 0 where not one row fits."""
    fit = buffer_bits * groups * held.rows // max(1, held.bits)
    return -(-held.rows // min(fit, held.rows)) if fit else 0


def _with_sums_held(a: Streamed, b: Streamed, acc_bits: int, buffer_bits: int) -> Iterator[Loads]:
    """For each number of tiles along B's rows the fewest along A's."""
    sums = buffer_bits // acc_bits
    for width in _widths(b.rows):
        if height := min(sums // width, a.rows):
            yield Loads("M", -(-b.rows // width), -(-a.rows // height))


def _widths(rows: int) -> Iterator[int]:
    """The smallest width of a tile for each number of tiles that there can be."""
    width = 1
    while width < rows:
        yield width
        tiles = -(-rows // width)
        width = -(-rows // (tiles - 1))
    yield rows
