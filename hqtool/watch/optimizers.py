"""The optimizers of a script: their names, and which models they update."""

from __future__ import annotations

import functools
import gc
import itertools
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from hqtool.patch import replaced


class Optimizers:
    """Notes every optimizer when it is made.

    An optimizer is named after its class; a second one of that class gets a number, from 2.

    Args:
        model: ignore optimizers that update nothing of it; None: ignore none.
        on_change: called when there is an optimizer, or it updates more than before.
    """

    def __init__(
        self, model: nn.Module | None = None, on_change: Callable[[], None] = lambda: None
    ) -> None:
        self._model = model
        self._on_change = on_change
        self._names: weakref.WeakKeyDictionary[Optimizer, str] = weakref.WeakKeyDictionary()
        self._groups = 0  # how many parameter groups were added; caches are valid for one number
        self._trained: weakref.WeakKeyDictionary[nn.Module, tuple[int, bool]]
        self._trained = weakref.WeakKeyDictionary()
        self._updated = (-1, frozenset[int]())
        self._hold_models = (-1, False)

    def attach(self, stack: ExitStack, in_use: Iterable[Optimizer]) -> None:
        """Note the optimizers in use, and, until the stack is closed, new ones."""
        for optimizer in in_use:
            if self._meet(optimizer):
                self._on_change()
        stack.enter_context(replaced(Optimizer, "add_param_group", self._wrap_add))

    def name(self, optimizer: Optimizer) -> str | None:
        """The name of an optimizer; None where it is ignored."""
        self._meet(optimizer)
        return self._names.get(optimizer)

    def exist(self) -> bool:
        """Whether there is or ever was an optimizer."""
        return self._groups > 0

    def update(self, model: nn.Module) -> bool:
        """Whether an optimizer updates a model, as far as can be known.

        Where no optimizer holds a parameter of any model (they may hold copies in another
        precision, or an image), nothing is known, and every model counts as updated.
        """
        if not self.exist():
            return False
        counted, updated = self._trained.get(model, (-1, True))
        if counted != self._groups:
            updated = not self._parameters().isdisjoint(map(id, model.parameters()))
            updated = updated or not self._know_models()
            self._trained[model] = self._groups, updated
        return updated

    def hold(self, parameter: Tensor) -> bool:
        """Whether any of them updates a parameter."""
        return id(parameter) in self._parameters()

    def held(self) -> Iterator[Tensor]:
        """All parameters that they update."""
        return itertools.chain.from_iterable(map(parameters_updated_by, self._names))

    def _know_models(self) -> bool:
        """Whether any optimizer holds a parameter of any module."""
        counted, known = self._hold_models
        if not known and counted != self._groups:
            owned = (
                id(parameter)
                for module in objects_of(nn.Module)
                for parameter in vars(module).get("_parameters", {}).values()
            )
            known = not self._parameters().isdisjoint(owned)
            self._hold_models = self._groups, known
        return known

    def _parameters(self) -> frozenset[int]:
        """The `id`s of all parameters they update."""
        counted, parameters = self._updated
        if counted != self._groups:
            parameters = frozenset(itertools.chain.from_iterable(map(ids_of, self._names)))
            self._updated = self._groups, parameters
        return parameters

    def _wrap_add(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def add_param_group(optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
            result = original(optimizer, *args, **kwargs)
            if self._meet(optimizer):
                self._groups += 1
                self._on_change()
            return result

        return add_param_group

    def _meet(self, optimizer: Optimizer) -> bool:
        """Name an optimizer, unless it is to be ignored."""
        if optimizer in self._names:
            return True
        if not self._concerns_model(optimizer):
            return False
        name = type(optimizer).__name__.lower()
        taken = set(self._names.values())
        numbered = (f"{name}{number}" for number in itertools.count(2))
        names = itertools.chain([name], numbered)
        self._names[optimizer] = next(name for name in names if name not in taken)
        self._groups += 1
        return True

    def _concerns_model(self, optimizer: Optimizer) -> bool:
        if self._model is None:
            return True
        return not set(ids_of(optimizer)).isdisjoint(map(id, self._model.parameters()))


def parameters_updated_by(optimizer: Optimizer) -> Iterator[Tensor]:
    """The tensors that an optimizer updates."""
    return itertools.chain.from_iterable(group["params"] for group in optimizer.param_groups)


def ids_of(optimizer: Optimizer) -> Iterable[int]:
    """The `id`s of the tensors that an optimizer updates."""
    return map(id, parameters_updated_by(optimizer))


def objects_of(*kinds: type[Any]) -> list[Any]:
    """All objects of some classes that are in use.

    Their type decides: `isinstance` would run code of other packages' objects.
    """
    gc.collect()  # free those no longer in use: models and optimizers form reference cycles
    return [thing for thing in gc.get_objects() if issubclass(type(thing), kinds)]
