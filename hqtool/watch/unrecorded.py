"""What trained, or ran beside training, without being recorded: never missing in silence."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.optim import Optimizer

from hqtool.watch.layer_types import LAYER_TYPES, LOOKUP_TYPES, UNBILLED_TYPES, LayerTypes
from hqtool.watch.names import Frame, Names
from hqtool.watch.optimizers import parameters_of

_SCRIPTED = {kind.__name__ for kind in (*LAYER_TYPES, nn.LSTM, nn.GRU, nn.RNN, nn.Bilinear)}


class Unrecorded:
    """Keeps a list of what was not recorded, and why.

    Args:
        wants: whether a layer of that name was asked for.

    Attributes:
        reasons: by name: what could not be recorded.
        left_out: by name: what was not asked for.
    """

    def __init__(self, names: Names, types: LayerTypes, wants: Callable[[str], bool]) -> None:
        self.reasons: dict[str, str] = {}
        self.left_out: dict[str, str] = {}
        self._names = names
        self._types = types
        self._wants = wants
        self._ran: weakref.WeakSet[nn.Module] = weakref.WeakSet()  # and were read
        self._awaited: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()
        self._idle: dict[str, None] = {}  # ran, and no backward pass reached it
        self._reached: set[str] = set()
        self._judged: set[int] = set()  # ids of parameters

    def ran(self, module: nn.Module) -> None:
        """A layer ran, and was read."""
        self._ran.add(module)

    def awaited(self, module: nn.Module, part: str, frames: Sequence[Frame]) -> str:
        """A layer ran that has no name yet, for no backward pass has reached it so far.

        Returns:
            what to call it until it has one.
        """
        if module not in self._awaited:
            self._awaited[module] = self._names.outside(module, frames)
        name = ".".join(filter(None, (self._awaited[module], part)))
        self._idle[name] = None
        return name

    def began(self, module: nn.Module, part: str, layer: str) -> None:
        """A layer ran that has this name."""
        if layer not in self._reached:
            self.named(module, part)
            self._idle[layer] = None

    def named(self, module: nn.Module, part: str) -> None:
        """A layer has got a name, or is going to."""
        if module in self._awaited:
            name = self._awaited[module]
            self._idle.pop(".".join(filter(None, (name, part))), None)

    def finish(self) -> None:
        """Nothing more is to come: what no backward pass has reached is told."""
        for name in self._idle:
            self._add(name, "no backward pass reached it")

    def recorded(self, layer: str) -> None:
        """A layer was recorded."""
        if layer not in self._reached:
            self._reached.add(layer)
            self._idle.pop(layer, None)
        if self.reasons:
            self.reasons.pop(layer, None)

    def unwanted(self, layer: str) -> None:
        """A layer ran that was not asked for."""
        self.left_out[layer] = "not among the layers asked for"

    def unreadable(self, layer: str, reason: str) -> None:
        """A layer ran of which there was nothing to record."""
        self._add(layer, reason)

    def compiled(self, model: nn.Module) -> None:
        """A model ran that torch.jit has compiled: within it no module is called."""
        for name, module in model.named_modules():
            if getattr(module, "original_name", None) in _SCRIPTED:
                path = ".".join(filter(None, (self._names.path(model), name)))
                self._add(path or module.original_name.lower(), "compiled by torch.jit")
            self._judged.update(map(id, module.parameters(recurse=False)))

    def updated(self, optimizer: Optimizer) -> None:
        """Look for parameters that have a gradient, though no recorded layer has used them.

        Their layer's `forward` was called past `__call__`, or they were given to a function.
        """
        news = [
            each
            for each in parameters_of(optimizer)
            if each.grad is not None and id(each) not in self._judged
        ]
        if news:
            self._judge([each for each in news if each.dim() > 1])
            self._judged.update(map(id, news))

    def _judge(self, parameters: list[Tensor]) -> None:
        used = {id(each) for module in self._ran for each in module.parameters()}
        missing = {id(each) for each in parameters} - used
        for name, module in self._names.named() if missing else ():
            for own, parameter in module._parameters.items():
                if id(parameter) in missing and not isinstance(module, LOOKUP_TYPES):
                    self._bypassed(name, module, own)

    def _bypassed(self, name: str, module: nn.Module, parameter: str) -> None:
        if isinstance(module, (*LAYER_TYPES, *UNBILLED_TYPES)):
            self._add(name, "not called as a module")
        else:
            kind = type(module).__name__
            self._add(
                f"{name}.{parameter}", f"no recorded layer used it; see --module-types {kind}"
            )

    def _add(self, name: str, reason: str) -> None:
        if self._wants(name) and not self._types.are_chosen:
            self.reasons.setdefault(name, reason)
