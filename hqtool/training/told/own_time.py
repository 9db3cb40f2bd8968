"""How much of a training's time hqtool takes itself."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

from torch import Tensor


@dataclass(slots=True)
class OwnTime:
    """Seconds spent quantizing and recording, of those since the first tensor was quantized.

    What it takes to find out which layers run is not in it. On an accelerator operations run on
    after they were called, so that nothing is known.

    Args:
        own: seconds spent.
        began: when the first tensor was quantized; None: none was.
        on_cpu: all tensors were on a CPU.
    """

    own: float = 0.0
    began: float | None = None
    on_cpu: bool = True

    def begin(self, x: Tensor) -> float:
        """A tensor is about to be quantized; the time."""
        now = perf_counter()
        if self.began is None:
            self.began = now
        if not x.is_cpu:
            self.on_cpu = False
        return now

    def end(self, began: float) -> None:
        """What began then has ended."""
        self.own += perf_counter() - began

    def line(self) -> str | None:
        """What the user is told at the end; None where nothing is known."""
        if self.began is None or not self.on_cpu:
            return None
        total = perf_counter() - self.began
        times = total / max(total - self.own, 1e-9)
        return (
            f"time: {self.own:.1f} of {total:.1f} s went into quantizing and recording, "
            f"{times:.2f} times as long as without"
        )
