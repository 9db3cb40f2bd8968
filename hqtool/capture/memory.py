"""The memory of tensors as arrays, for reading at once, without leaving a mark on the tensors.

`Tensor.numpy` keeps a tensor's memory from being resized, for good. Training frees memory by that:
FSDP its gathered parameters, others activations.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: Of a tensor → of the array; the bits of a type that numpy lacks.
_TYPES: dict[torch.dtype, Any] = {
    torch.float64: np.float64,
    torch.float32: np.float32,
    torch.float16: np.float16,
    torch.bfloat16: np.uint16,
    torch.bool: np.bool_,
}


def array_over(tensor: Tensor) -> NDArray[Any]:
    """The values of a tensor in its own memory, if that is a CPU's; of bfloat16 their bits.

    The array keeps the tensor, but its memory may be given up: it is to be read before the script
    goes on.
    """
    if not tensor.is_cpu or tensor.is_neg():
        tensor = tensor.detach().cpu().resolve_neg()
    type_, place = _TYPES.get(tensor.dtype), tensor.data_ptr()
    if not place and type_ is not None and not tensor.numel():
        return np.empty(tuple(tensor.shape), type_)
    if not place or type_ is None:
        return tensor.numpy(force=True)
    reach, steps = tensor.nbytes, None
    if not tensor.is_contiguous():
        size = tensor.element_size()
        steps = [step * size for step in tensor.stride()]
        reach = size + sum((n - 1) * step for n, step in zip(tensor.shape, steps, strict=True))
    memory: Any = (ctypes.c_char * reach).from_address(place)
    memory.tensor = tensor
    return np.ndarray(tuple(tensor.shape), type_, memory, 0, steps)
