"""Which tensors come from a network's input, and which from its weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

#: What a tensor was computed from: the network's weights, its input, both (3) or neither (0).
FROM_WEIGHTS, FROM_INPUT = 1, 2


class Origins:
    """Follows tensors by the memory that they share, so that views need no care.

    Args:
        samples: N, the number of samples that the network reads at once.

    Tensors are kept until the end, so that none takes another's place: on the meta device they
    have no memory.
    """

    def __init__(self, model: nn.Module, samples: int) -> None:
        self.samples = samples
        self._of: dict[int, int] = {}
        self._kept: list[Tensor] = []
        self._names: dict[int, str] = {}
        for name, parameter in model.named_parameters():
            self._names.setdefault(storage_of(parameter), name)
            self._add(parameter, FROM_WEIGHTS)

    def add_inputs(self, tensors: Iterable[Tensor]) -> None:
        """Note the network's inputs."""
        for tensor in tensors:
            self._add(tensor, FROM_INPUT)

    def of(self, tensor: Tensor) -> int:
        """What a tensor comes from."""
        return self._of.get(storage_of(tensor), 0)

    def made(self, results: Iterable[Tensor], operands: Iterable[Tensor]) -> None:
        """An operation made, or changed, tensors."""
        origin = 0
        for operand in operands:
            origin |= self.of(operand)
        for result in results:
            self._add(result, origin)

    def is_activation(self, tensor: Tensor) -> bool:
        """Whether it changes with the network's input, and holds no indices or masks."""
        return tensor.dtype.is_floating_point and bool(self.of(tensor) & FROM_INPUT)

    def needs_gradient(self, tensor: Tensor) -> bool:
        """Whether training computes its gradient: it depends on weights."""
        return bool(self.of(tensor) & FROM_WEIGHTS)

    def parameter_name(self, tensor: Tensor) -> str | None:
        """The name of the parameter that a tensor is, or is a view of."""
        return self._names.get(storage_of(tensor))

    def _add(self, tensor: Tensor, origin: int) -> None:
        key = storage_of(tensor)
        if key not in self._of:
            self._kept.append(tensor)
        self._of[key] = self._of.get(key, 0) | origin


def storage_of(tensor: Tensor) -> int:
    """A number for a tensor's memory, which its views share; meta tensors have no address."""
    storage: Any = tensor.untyped_storage()
    return int(storage._cdata)
