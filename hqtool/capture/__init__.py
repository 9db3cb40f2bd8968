"""Capture: record the activations and gradients of a real, unmodified torch training run.

The package is also the call that does so, `with hqtool.capture(model, "T.h5", every=10):`.
Importing it loads neither torch nor h5py; only its submodules do.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Capture(ModuleType):
    """This package, callable; `hqtool` tells type checkers that it is `call.capture`."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        """See `hqtool.capture.call.capture`."""
        from hqtool.capture.call import capture

        return capture(*args, **options)


sys.modules[__name__].__class__ = _Capture
