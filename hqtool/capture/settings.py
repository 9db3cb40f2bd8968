"""What a capture records, and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from typing import Any, TypedDict

from hqtool.capture.budget import DEFAULT_BUDGET_BYTES
from hqtool.errors import UsageError
from hqtool.nearest import known_names
from hqtool.vocab import TENSOR_KINDS

#: What may end a step, as `hqtool.watch.steps` explains; importing that would load torch.
STEP_ENDS = ("auto", "optimizer", "forward")


@dataclass(frozen=True, slots=True)
class CaptureSettings:
    """What a capture records. Statistics are recorded at every step, values at some.

    Args:
        layers: globs of layer names; empty: all layers.
        exclude: globs of layer names to leave out.
        tensors: tensor kinds, keys of TENSOR_KINDS.
        module_types: class names: exactly the modules of these classes, and of those derived from
            them, are recorded; empty: those whose products the bill counts.
        every: the period, in steps, at which values are kept, from step 0.
        burst: values are kept at so many consecutive steps at the start of each period, so that
            an estimator that lags behind can be scored as it would run.
        steps: values are kept only at these steps: half-open and non-negative, like a slice.
        max_elements: of a larger tensor, a sample of so many values is kept: its extremes, and
            fibres along the channel axis drawn at random.
        full: keep all values, however large the tensor.
        step_on: what ends a step: "optimizer", the end of an optimizer's step; "forward", the
            start of the next training forward pass (for updates made by hand); "auto": the
            former or, where the script never makes an optimizer, the latter.
        force: replace an existing trace.
        eval: record what only evaluates, too: modules in eval mode without gradients, and forward
            passes that no backward pass reaches.
        per_channel: record the extremes of each channel, too, at every step.
        seed: of the sampling; training's own random numbers are never touched.
        budget_bytes: the trace's largest size, see `hqtool.capture.budget`; None: no limit.
        follow_fork: record what child processes train, too, each in a trace of its own; only
            `hqtool capture` can.

    Raises:
        UsageError: a value out of bounds.
    """

    layers: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ("output", "grad_input")
    module_types: tuple[str, ...] = ()
    every: int = 10
    burst: int = 1
    steps: tuple[int | None, int | None] | None = None
    max_elements: int = 1 << 18
    full: bool = False
    step_on: str = "auto"
    force: bool = False
    eval: bool = False
    per_channel: bool = False
    seed: int = 0
    budget_bytes: int | None = DEFAULT_BUDGET_BYTES
    follow_fork: bool = False

    def __post_init__(self) -> None:
        for name in ("layers", "exclude", "tensors", "module_types"):
            object.__setattr__(self, name, _texts(name, getattr(self, name)))
        for kind in self.tensors:
            _require(
                kind in TENSOR_KINDS,
                f"unknown tensor kind: {kind}",
                known_names(kind, TENSOR_KINDS),
            )
        for name in self.module_types:
            _require(
                name.isidentifier(), f"not a class name: {name}", "such as Conv2d, Linear, LSTM"
            )
        _require(
            self.step_on in STEP_ENDS, f"unknown step_on: {self.step_on}", ", ".join(STEP_ENDS)
        )
        for name in ("every", "burst", "max_elements"):
            _require(getattr(self, name) >= 1, f"{name} is below 1", f"give {name} a number from 1")
        overlong = f"burst {self.burst} is longer than every {self.every}"
        _require(self.burst <= self.every, overlong, "keep values at most at every step")
        budget = self.budget_bytes
        _require(budget is None or budget >= 1, "budget_bytes is below 1", "None: no limit")
        _require(_is_pair(self.steps), f"steps is {self.steps!r}", "give a pair: (first, end)")
        bounds = [bound for bound in self.steps or () if bound is not None]
        first, end = self.steps or (None, None)
        rising = end is None or (first or 0) <= end
        _require(rising, f"steps {self.steps} hold no step", "give the lower bound first")
        _require(min(bounds, default=0) >= 0, "steps has a negative bound", "count from step 0")

    def wants(self, layer: str) -> bool:
        """Whether a layer is to be recorded."""
        chosen = not self.layers or _matches(layer, self.layers)
        return chosen and not _matches(layer, self.exclude)

    def keeps_values(self, step: int) -> bool:
        """Whether values are kept at a step, not only statistics."""
        first, end = self.steps or (None, None)
        inside = (first or 0) <= step and (end is None or step < end)
        return inside and step % self.every < self.burst

    def to_json(self) -> dict[str, Any]:
        """All options by name, JSON-safe."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


class CaptureOptions(TypedDict, total=False):
    """The fields of CaptureSettings as keyword options, for type checkers."""

    layers: Sequence[str]
    exclude: Sequence[str]
    tensors: Sequence[str]
    module_types: Sequence[str]
    every: int
    burst: int
    steps: tuple[int | None, int | None] | None
    max_elements: int
    full: bool
    step_on: str
    force: bool
    eval: bool
    per_channel: bool
    seed: int
    budget_bytes: int | None
    follow_fork: bool


def settings_of(options: Mapping[str, Any]) -> CaptureSettings:
    """CaptureSettings from keyword options.

    Raises:
        UsageError: an option is unknown or out of bounds.
    """
    known = [field.name for field in fields(CaptureSettings)]
    for name in options:
        _require(name in known, f"unknown capture option: {name}", known_names(name, known))
    return CaptureSettings(**options)


def _texts(name: str, value: Any) -> tuple[str, ...]:
    """A sequence of texts; a single text in its place is refused, for it is an easy mistake."""
    _require(not isinstance(value, str), f"{name} is one text", f"give a list: {name}=[{value!r}]")
    return tuple(value)


def _is_pair(steps: Any) -> bool:
    """Whether `steps` is None, or two bounds, each a number or None."""
    if steps is None:
        return True
    pair = isinstance(steps, tuple | list) and len(steps) == 2
    return pair and all(isinstance(bound, int | None) for bound in steps)


def _matches(layer: str, globs: tuple[str, ...]) -> bool:
    return any(fnmatchcase(layer, glob) for glob in globs)


def _require(condition: bool, cause: str, remedy: str) -> None:
    if not condition:
        raise UsageError(cause, remedy)
