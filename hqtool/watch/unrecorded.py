"""What trained, or ran beside training, without being recorded: never missing in silence."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.optim import Optimizer

from hqtool.watch.layer_types import LAYER_TYPES, LOOKUP_TYPES, UNBILLED_TYPES, LayerTypes
from hqtool.watch.names import Names, Pass
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
        self._recorded: weakref.WeakSet[nn.Module] = weakref.WeakSet()
        self._untrained: weakref.WeakSet[nn.Module] = weakref.WeakSet()
        self._judged: set[int] = set()  # ids of parameters

    def recorded(self, module: nn.Module, layer: str) -> None:
        """A layer was recorded, which is a module or within it."""
        self._recorded.add(module)
        if self.reasons:
            self.reasons.pop(layer, None)

    def unwanted(self, layer: str) -> None:
        """A layer ran that was not asked for."""
        self.left_out[layer] = "not among the layers asked for"

    def unreadable(self, layer: str, reason: str) -> None:
        """A layer ran of which there was nothing to record."""
        self._add(layer, reason)

    def untrained(self, module: nn.Module, running: Sequence[Pass]) -> None:
        """A layer ran in training mode, but no optimizer updates its model."""
        if module not in self._untrained:
            self._untrained.add(module)
            self._add(self._names.outside(module, running), "no optimizer updates its model")

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
        used = {id(each) for module in self._recorded for each in module.parameters()}
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
