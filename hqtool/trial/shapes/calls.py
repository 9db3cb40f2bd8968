"""One call of an operator of torch, and the operations of a layer spec that it computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hqtool.traffic.sources.operation import Keys, Shape
from hqtool.trial.shapes.origins import Origins


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an operator.

    Args:
        values: its arguments by name, defaults included.
        result: what it returned.
    """

    operator: str
    values: dict[str, Any]
    result: Any

    def shape(self, name: str) -> Shape:
        """The shape of an argument."""
        return tuple(self.values[name].shape)


def arguments_of(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of an operator's call by name, defaults included."""
    declared = func._schema.arguments
    values = {each.name: each.default_value for each in declared if each.has_default_value()}
    names = [each.name for each in declared]
    return values | dict(zip(names, args, strict=False)) | kwargs


@dataclass(frozen=True, slots=True)
class Part:
    """One operation of a layer spec, which a call computes.

    Args:
        label: what it is called within its module.
        keys: of a layer spec, without its name; None where it has no bill.
        reads: the tensors that it reads, in the order of operands.
        weight: the parameter that it multiplies with; None where it has none.
        follows: it also reads, before them, what the part before makes.
    """

    label: str
    keys: Keys | None
    reads: tuple[Tensor, ...]
    weight: Tensor | None = None
    follows: bool = False


Reader = Callable[[Call, Origins], Iterator[Part]]


def tensors_in(values: Any) -> list[Tensor]:
    """All tensors among arguments or results."""
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, dict):
        values = list(values.values())
    if isinstance(values, (list, tuple)):
        return [tensor for each in values for tensor in tensors_in(each)]
    return []


def first_tensor(result: Any) -> Tensor:
    """The result, or the first of several."""
    return tensors_in(result)[0]


def is_elementwise(func: Any) -> bool:
    """Whether an operator computes each element of its result by itself."""
    return torch.Tag.pointwise in func.tags
