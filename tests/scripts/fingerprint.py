"""What the scripts of this folder print at their end; importing it seeds numpy and Python."""

from __future__ import annotations

import hashlib
import os
import random

import numpy as np
import torch
from torch import nn

_PROCESS = os.getpid()
random.seed(0)
np.random.seed(0)  # noqa: NPY002


def fingerprint(*models: nn.Module) -> str:
    """A sha256 over all bytes of the models' states, and of where random numbers stand.

    Those of torch, numpy and Python, which seeds its own anew in a forked child.
    """
    digest = hashlib.sha256(torch.get_rng_state().numpy().tobytes())
    digest.update(repr(np.random.get_state()[1].tolist()).encode())  # noqa: NPY002
    if os.getpid() == _PROCESS:
        digest.update(repr(random.getstate()).encode())
    for model in models:
        for name, tensor in model.state_dict().items():
            flat = tensor.detach().contiguous().view(-1)
            digest.update(name.encode() + flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
