"""Listing what trained, or ran beside training, without being recorded, so that it can be told."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from hqtool.watch.layer_types import LAYER_TYPES, LOOKUP_TYPES, UNBILLED_TYPES, LayerTypes
from hqtool.watch.names import Frame, Names
from hqtool.watch.optimizers import parameters_updated_by
from hqtool.watch.parameter_owners import Owner, Owners

_SCRIPTED = {kind.__name__ for kind in (*LAYER_TYPES, nn.LSTM, nn.GRU, nn.RNN, nn.Bilinear)}


class Unrecorded:
    """Keeps a list of what was not recorded, and why.

    Args:
        owners: finds the module that a parameter belongs to.
        wants: whether a layer of that name was asked for.
        can_choose: the classes of layers can be chosen: a user is told how.

    Attributes:
        are_outside_layers: some parameters are used outside layers, recorded or not.
        are_outside_modules: some of them are used by functions outside all modules.
        reasons: name of what could not be recorded → why.
        left_out: name of a layer that was not asked for → that reason in words.
    """

    def __init__(
        self,
        names: Names,
        types: LayerTypes,
        owners: Owners,
        wants: Callable[[str], bool],
        *,
        can_choose: bool = True,
    ) -> None:
        self.are_outside_layers = self.are_outside_modules = False
        self.reasons: dict[str, str] = {}
        self.left_out: dict[str, str] = {}
        self._names = names
        self._types = types
        self._owners = owners
        self._wants = wants
        self._can_choose = can_choose
        self._ran: weakref.WeakSet[nn.Module] = weakref.WeakSet()  # and were read
        self._awaited: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()
        self._models: weakref.WeakSet[nn.Module] = weakref.WeakSet()
        self._has_replicas = False
        self._idle: dict[str, None] = {}  # ran, and no backward pass reached it
        self._reached: set[str] = set()
        self._used: dict[int, weakref.ref[Tensor]] = {}  # by functions that were read
        self._judged: dict[int, weakref.ref[Tensor]] = {}

    def model_ran(self, module: nn.Module) -> None:
        """A module was called from outside, with gradients enabled."""
        self._models.add(module)

    def ran(self, module: nn.Module) -> None:
        """A layer ran, and was read."""
        self._ran.add(module)
        own: Iterable[Any] = module._parameters.values()
        for each in own:
            if type(each) is Tensor:  # torch.func.functional_call has put it in place of its own
                self._used[id(each)] = weakref.ref(each)

    def used(self, parameter: Tensor) -> None:
        """A function multiplied with a parameter, and was read."""
        self.are_outside_layers = True
        self.used_by_layer(parameter)

    def used_by_layer(self, parameter: Tensor) -> None:
        """A layer multiplied with a parameter that is not its own, or with what comes of one."""
        self._used[id(parameter)] = weakref.ref(parameter)

    def awaited(self, module: nn.Module, part: str, frames: Sequence[Frame]) -> str:
        """A layer ran that has no name yet, for no backward pass has reached it so far.

        Returns:
            its label until it has a name.
        """
        if module not in self._awaited:
            self._awaited[module] = self._names.outside(module, frames)
        name = ".".join(filter(None, (self._awaited[module], part)))
        self._idle[name] = None
        return name

    def began(self, module: nn.Module, part: str, layer: str) -> None:
        """A layer with this name ran."""
        if layer not in self._reached:
            self.named(module, part)
            self._idle[layer] = None

    def named(self, module: nn.Module, part: str) -> None:
        """A layer has got a name, or is going to."""
        if module in self._awaited:
            name = self._awaited[module]
            self._idle.pop(".".join(filter(None, (name, part))), None)

    def finish(self) -> None:
        """At the end, add the layers that no backward pass has reached."""
        for module in self._models:
            self._judge_new(self._names.top(module).parameters())
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
        """A call of a layer could not be recorded; other calls of it may have been."""
        if layer not in self._reached:
            self._add(layer, reason)

    def replica_ran(self) -> None:
        """A copy of a layer ran, as DataParallel makes them for one pass."""
        self._has_replicas = True

    def compiled(self, model: nn.Module) -> None:
        """A model ran that torch.jit has compiled; no module is called within it."""
        for name, module in model.named_modules():
            if getattr(module, "original_name", None) in _SCRIPTED:
                path = ".".join(filter(None, (self._names.path(model), name)))
                self._add(path or module.original_name.lower(), "compiled by torch.jit")
            for parameter in module.parameters(recurse=False):
                self._judged[id(parameter)] = weakref.ref(parameter)

    def updated(self, optimizer: Optimizer) -> None:
        """Look for parameters that have a gradient, though no recorded layer has used them.

        Their layer's `forward` was called directly, or they were given to a function that is not a
        product, or cannot be intercepted.
        """
        self._judge_new(parameters_updated_by(optimizer))

    def awaits(self, parameters: Iterable[Tensor]) -> bool:
        """Whether some of these have had no gradient so far."""
        return not all(map(self._was_judged, parameters))

    def _was_judged(self, parameter: Tensor) -> bool:
        return _is_among(parameter, self._judged)

    def _judge_new(self, parameters: Iterable[Tensor]) -> None:
        leaves = [each for each in parameters if each.is_leaf]  # torch warns of others' gradients
        news = [each for each in leaves if each.grad is not None and not self._was_judged(each)]
        if news:
            self._judge([each for each in news if each.dim() > 1])
            self._judged.update((id(each), weakref.ref(each)) for each in news)

    def _judge(self, parameters: list[Tensor]) -> None:
        ran = {id(each): each for module in self._ran for each in module.parameters()}
        for each in parameters:
            if id(each) not in ran and not _is_among(each, self._used):
                owner = self._owners.of(each)
                if owner is not None and not self._is_in_no_product(owner, each, ran.values()):
                    self._bypassed(owner)

    def _is_in_no_product(
        self, owner: Owner, parameter: Tensor, recorded: Iterable[Tensor]
    ) -> bool:
        """Whether a parameter is looked up, a norm's, or an optimizer's copy of a recorded one."""
        if owner.module is self._owners.unowned:
            return any(_is_copy(parameter, each) for each in recorded)
        return isinstance(owner.module, LOOKUP_TYPES)

    def _bypassed(self, owner: Owner) -> None:
        """A parameter was trained, though nothing that was read has used it."""
        self.are_outside_layers = True
        module = owner.module
        name = self._names.of(module, (Frame(module),))
        if name is None:
            return
        if isinstance(module, (*LAYER_TYPES, *UNBILLED_TYPES)):
            copies = "run by DataParallel in copies made for each pass"
            self._add(name, copies if self._has_replicas else "not called as a module")
            return
        chosen = self._can_choose and module is not self._owners.unowned
        remedy = f"; see --module-types {type(module).__name__}" if chosen else ""
        self._add(
            f"{name}.{owner.name}" if name else owner.name,
            f"no recorded layer or product used it{remedy}",
        )

    def _add(self, name: str, reason: str) -> None:
        if self._wants(name) and not self._types.are_chosen:
            self.reasons.setdefault(name, reason)


def _is_among(parameter: Tensor, known: Mapping[int, weakref.ref[Tensor]]) -> bool:
    reference = known.get(id(parameter))
    return reference is not None and reference() is parameter


def _is_copy(parameter: Tensor, other: Tensor) -> bool:
    """Whether a parameter has another's values, as an optimizer's copy in other precision has."""
    if parameter.shape != other.shape or parameter.device != other.device:
        return False
    return torch.equal(parameter.detach().to(other.dtype), other.detach())
