"""One layer's sizes, in PyTorch's words, and the elements of its tensors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from hqtool.errors import DataError
from hqtool.spec_table import wrong_key


class Counts(NamedTuple):
    """Elements of a layer's tensors; `input` and `output` include the batch.

    Args:
        weight: elements of W, without biases; of a matmul, those of the second operand.
        input: elements of X.
        output: elements of Y.
    """

    weight: int
    input: int
    output: int


@dataclass(frozen=True, slots=True)
class Geometry:
    """One layer's geometry, in PyTorch's words.

    Args:
        name: the module's qualified name.
        op: a key of `OPS`.
        in_channels, out_channels: for `linear`, its features; for `matmul`, k and n; for
            `embedding`, rows and columns of its table.
        input: spatial size of X; for `linear` and others, the number of positions; for `matmul`, m.
        kernel, stride, dilation, output_padding: one per spatial dimension; empty where the op
            has none.
        padding: per side, one per spatial dimension; or "same".
        repeat: how many such layers there are; bills are multiplied by it, counts are not.
        batch: N, the number of samples.
        grad_input: whether G_X is computed; not where X is the network's own input, which needs
            no gradient.
        kind: of an activation, norm or pool, which one.
        operands: of an add, how many tensors are summed up; 0 where it does not say.
        output_size: of an adaptive pool, the spatial size of Y.
        ceil_mode: of a pool, whether the last window may hang over.
        affine: of a norm, whether it has weights.
        sources: names of the layers whose outputs it reads; empty where it is the layer before.
    """

    name: str
    op: str
    in_channels: int
    out_channels: int
    input: tuple[int, ...]
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] | str = ()
    dilation: tuple[int, ...] = ()
    output_padding: tuple[int, ...] = ()
    groups: int = 1
    repeat: int = 1
    batch: int = 1
    grad_input: bool = True
    kind: str = ""
    operands: int = 0
    output_size: tuple[int, ...] = ()
    ceil_mode: bool = False
    affine: bool = True
    sources: tuple[str, ...] = ()

    def wrong(self, key: str, cause: str, remedy: str) -> DataError:
        """The error that says what is wrong with one key of this layer."""
        return wrong_key(layer_label(self.name), key, cause, remedy)


def layer_label(name: str) -> str:
    """What errors call a layer."""
    return f"layer {name!r}"


def sizes_text(sizes: Iterable[int]) -> str:
    """Sizes as people write them: 3×3."""
    return "×".join(map(str, sizes))
