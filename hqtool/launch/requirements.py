"""What running a training script needs."""

from __future__ import annotations

import importlib.util

from hqtool.errors import HqtoolError


def require_torch() -> None:
    """Raise HqtoolError where PyTorch is not installed; does not import it."""
    if importlib.util.find_spec("torch") is None:
        raise HqtoolError("capture needs PyTorch", "pip install 'hqtool[capture]'")
