"""Tensors of unusual types: what can be read of them, and why not the rest."""

from __future__ import annotations

import torch
from torch import Tensor

#: A block in which subclasses of tensors do not hear of what is done to them: a script may count
#: on what they hear, and they need not know every function.
Unheard = torch._C.DisableTorchFunctionSubclass


def dense_of(tensor: Tensor) -> Tensor:
    """The tensor itself; of a nested one the values of all its parts.

    Returns:
        for the layout `torch.jagged` the parts joined along their ragged dimension, for the older
        layout one dimension of all values.
    """
    return tensor.detach().contiguous().values() if tensor.is_nested else tensor


def is_transformed(tensor: Tensor) -> bool:
    """Whether it stands for others, within a transform of torch.func such as vmap or grad."""
    return torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def why_unreadable(tensor: Tensor) -> str | None:
    """Why the values of what a layer has made cannot be read; None where they can be."""
    if tensor.layout not in (torch.strided, torch.jagged):
        return "its output is sparse"
    if not tensor.is_floating_point():
        return f"its output is of type {str(tensor.dtype).removeprefix('torch.')}"
    return None
