"""hqtool: choose a quantizer, range estimator and format, by replaying a real training run.

`TraceReader` and `TraceWriter` read and write traces; `with hqtool.capture(model, path):`
records the training inside it, `with hqtool.train(model, recipe):` quantizes it. Each is loaded at
first use, so that `import hqtool` brings in neither torch nor h5py.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hqtool.version import __version__

if TYPE_CHECKING:
    from hqtool.capture.call import capture as capture
    from hqtool.trace.reader import TraceReader as TraceReader
    from hqtool.trace.writer import TraceWriter as TraceWriter
    from hqtool.training.call import train as train

__all__ = ["TraceReader", "TraceWriter", "__version__", "capture", "train"]

_HOMES = {
    "TraceReader": "hqtool.trace.reader",
    "TraceWriter": "hqtool.trace.writer",
    "train": "hqtool.training.call",
}


def __getattr__(name: str) -> Any:
    if name == "capture":
        return import_module("hqtool.capture")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'hqtool' has no attribute '{name}'")
