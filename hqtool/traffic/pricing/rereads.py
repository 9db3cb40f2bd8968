"""The operands of a product, as the loop orders of `tiling` take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hqtool.traffic.pricing.store import channels_of
from hqtool.traffic.pricing.tiling import Streamed, best_loads
from hqtool.traffic.works import Operand, Work


class Shares(NamedTuple):
    """How a product's operands meet in its result.

    Args:
        groups: how many products there are, one for each group of channels.
        rows: of each operand, the entries of the index that it shares with the result, in a group.
    """

    groups: int
    rows: tuple[int, int]


def loads_of(work: Work, bits: Sequence[int], acc_bits: int, buffer_bits: int) -> tuple[int, int]:
    """How often each operand of a product is loaded.

    Args:
        bits: of each operand in memory.

    Raises:
        ValueError: the buffer does not hold one accumulator.
    """
    groups, rows = shares_of(work)
    a, b = (Streamed(*each) for each in zip(bits, rows, strict=True))
    found = best_loads(a, b, groups, acc_bits, buffer_bits)
    return found.a, found.b


def shares_of(work: Work) -> Shares:
    """What the operands share with the result, from the shapes of W, X and Y or of their gradients.

    A result of activations shares its channels with W and its positions with the other operand; a
    gradient of W shares the output channels with G_Y, and the rest with X.
    """
    if any(each.name.endswith("other") for each in (work.made, *work.reads)):
        return _of_activations(work)
    weight, x, y = (_of_kind(work, kind) for kind in ("weight", "input", "output"))
    groups = _groups(weight, x, y)
    if work.made is weight:
        of = {id(x): weight.numel // channels_of(y), id(y): channels_of(y) // groups}
    else:
        channels = channels_of(work.made)
        positions = work.made.numel // channels
        of = {id(weight): channels // groups, id(x): positions, id(y): positions}
    first, second = work.reads
    return Shares(groups, (of[id(first)], of[id(second)]))


#: The indices of the operands and the result of a product of activations.
_INDICES = {"input": "mk", "other": "kn", "output": "mn"}


def _of_activations(work: Work) -> Shares:
    """Of Y[m,n] = A[m,k]·B[k,n] for each sample, or a gradient: the index in common with it."""
    made = _INDICES[work.made.name.removeprefix("grad_")]
    rows = []
    for each in work.reads:
        indices, sizes = _INDICES[each.name.removeprefix("grad_")], (each.shape or ())[-2:]
        rows.append(next(n for index, n in zip(indices, sizes, strict=True) if index in made))
    return Shares(work.made.shape[0] if work.made.shape else 1, (rows[0], rows[1]))


def _of_kind(work: Work, kind: str) -> Operand:
    """The one of a product's three tensors that is W, X or Y, or its gradient."""
    operands = (work.made, *work.reads)
    return next(each for each in operands if each.kind.removeprefix("grad_") == kind)


def _groups(weight: Operand, x: Operand, y: Operand) -> int:
    """Of a convolution's weight, (C_out, C_in/groups, …) or transposed, the groups."""
    if weight.shape is None:
        return 1
    return channels_of(x) * channels_of(y) // (weight.shape[0] * weight.shape[1])
