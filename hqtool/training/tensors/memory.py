"""Where a quantized tensor is put: new memory takes longer to write to than memory in use."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

#: From a tensor without gaps in its memory to one of its shape, order and type, to be filled.
Into = Callable[[Tensor], Tensor]


def new_memory(x: Tensor) -> Tensor:
    """A tensor of its own."""
    return torch.empty_like(x, requires_grad=False)


def same_memory(x: Tensor) -> Tensor:
    """The tensor itself, which is overwritten."""
    return x


class LastMemory:
    """That of the last tensor that was put here, once nobody uses it any more; else new memory.

    Autograd keeps a quantized weight until its backward pass has run: in the next step its memory
    is free again. It is kept as long as this object; not so that of inference mode, for which
    autograd has no use.
    """

    def __init__(self) -> None:
        self._last: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        last = self._last
        if last is None or not _alike(last, x) or not _is_free(last):
            last = new_memory(x)
            self._last = None if last.is_inference() else last
        return last.detach()


def _alike(one: Tensor, other: Tensor) -> bool:
    return (
        one.shape == other.shape
        and one.stride() == other.stride()
        and one.dtype == other.dtype
        and one.device == other.device
    )


#: Not among torch's documented functions; None where it is missing.
_storage_uses = getattr(torch._C, "_storage_Use_Count", None)


def _is_free(x: Tensor) -> bool:
    """Whether nothing but this tensor holds its memory; no where that cannot be told."""
    return _storage_uses is not None and _uses(x) <= _uses_of_one()


def _uses(x: Tensor) -> int:
    """How many tensors, and others, hold the memory of this one, and for this question."""
    assert _storage_uses is not None
    found: int = _storage_uses(x.untyped_storage()._cdata)
    return found


@functools.cache
def _uses_of_one() -> int:
    return _uses(torch.empty(1, device="cpu"))
