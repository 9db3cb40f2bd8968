"""The call `hqtool.capture(model, path, …)`."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Unpack

from hqtool.launch.requirements import require_torch

if TYPE_CHECKING:
    from torch import nn

    from hqtool.capture.session import Session
    from hqtool.capture.settings import CaptureOptions


def capture(
    model: nn.Module, path: str | os.PathLike[str], **options: Unpack[CaptureOptions]
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
