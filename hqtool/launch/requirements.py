"""What running a training script needs."""

from __future__ import annotations

import importlib.util

from hqtool.errors import HqtoolError


def require_torch(what: str = "capture") -> None:
    """Raise HqtoolError where PyTorch is not installed; does not import it.

    Args:
        what: what needs it.
    """
    if importlib.util.find_spec("torch") is None:
        raise HqtoolError(f"{what} needs PyTorch", "pip install 'hqtool[capture]'")
