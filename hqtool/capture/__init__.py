"""Capture: record the activations and gradients of a real, unmodified torch training run.

The package is also the call that does so, `with hqtool.capture(model, "T.h5", every=10):`.
Importing it loads neither torch nor h5py; only its submodules do.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from contextlib import AbstractContextManager
from types import ModuleType
from typing import TYPE_CHECKING, Any

from hqtool.errors import HqtoolError

if TYPE_CHECKING:
    from torch import nn

    from hqtool.capture.session import Session


def require_torch() -> None:
    """Raise HqtoolError where PyTorch is not installed; does not import it."""
    if importlib.util.find_spec("torch") is None:
        raise HqtoolError("capture needs PyTorch", "pip install 'hqtool[capture]'")


class _Capture(ModuleType):
    """This package, callable."""

    def __call__(
        self, model: nn.Module, path: str | os.PathLike[str], **options: Any
    ) -> AbstractContextManager[Session]:
        """Record the training of `model` inside a `with` block.

        Args:
            model: the root module; layers are named from it.
            path: the trace to create.
            options: the fields of `hqtool.capture.settings.CaptureSettings`, such as `every=10`.

        Returns:
            a context manager; it opens the trace on entry and closes it on exit: complete, or
            truncated where the block was left by an exception.

        Raises:
            HqtoolError: PyTorch is missing.
            UsageError: an option is unknown or out of bounds; on entry: the file exists.
        """
        require_torch()
        from hqtool.capture.session import open_session
        from hqtool.capture.settings import settings_of

        return open_session(model, path, settings_of(options))


sys.modules[__name__].__class__ = _Capture
