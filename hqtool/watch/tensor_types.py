"""Tensors of unusual types: what can be read of them, and why others cannot be read."""

from __future__ import annotations

import torch
from torch import Tensor

#: A context manager in which no tensor subclass and no mode sees what is called: a script may count
#: such calls, a subclass need not support every function that hqtool uses, and hqtool's own mode
#: makes reading a tensor's attribute ten times as slow.
Unseen = torch._C.DisableTorchFunction


def dense_of(tensor: Tensor) -> Tensor:
    """The tensor itself; of a nested one the values of all its parts.

    Returns:
        for the layout `torch.jagged` the parts joined along their ragged dimension, for the older
        layout one dimension of all values.
    """
    return tensor.detach().contiguous().values() if tensor.is_nested else tensor


def is_transformed(tensor: Tensor) -> bool:
    """Whether a tensor is a stand-in within a transform of torch.func, such as vmap or grad."""
    return torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def why_unreadable(tensor: Tensor) -> str | None:
    """Why the values of a layer's output cannot be read; None where they can be."""
    if tensor.layout not in (torch.strided, torch.jagged):
        return "its output is sparse"
    if not tensor.is_floating_point():
        return f"its output is of type {str(tensor.dtype).removeprefix('torch.')}"
    return None
