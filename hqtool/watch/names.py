"""Qualified names of modules, however a script calls them."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from hqtool.watch.optimizers import objects_of

#: Names that wrappers insert: torch.compile, FSDP and its checkpointing, Lightning's Fabric.
_WRAPPERS = {
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
}


@dataclass(slots=True)
class Frame:
    """A running call of a module.

    Args:
        made: the names given to modules that were made in this call.
        products: name of products of two activations → how many ran in this call.
    """

    module: nn.Module
    made: set[str] = field(default_factory=set)
    products: dict[str, int] = field(default_factory=dict)


class Surroundings:
    """The calls that ran around a module's, kept until it can be named.

    References to modules are weak: otherwise a model that keeps its own output would never be
    freed, through the graph of that output. Only a module that was made in passing is held, for
    there may be no other reference to it.

    Args:
        frames: the calls, outermost first; the module's own is the last.
        made_in_passing: the module is not part of the model that runs.
    """

    def __init__(self, frames: Sequence[Frame], *, made_in_passing: bool) -> None:
        self._frames = [(weakref.ref(frame.module), frame.made) for frame in frames]
        self._held = frames[-1].module if made_in_passing else None

    def frames(self) -> list[Frame] | None:
        """The calls; None where one of their modules no longer exists."""
        modules = [(reference(), made) for reference, made in self._frames]
        frames = [Frame(module, made) for module, made in modules if module is not None]
        return frames if len(frames) == len(modules) else None


class Names:
    """Names modules from their root.

    A module's root is the model that was called from outside all modules, or the model that it is
    a part of, for a script may call `model.encoder(x)`. Where a second root has a layer of the same
    name, its names begin with its class name and a number, from 2, in the order in which roots
    first train.

    A module that is called within another's forward pass, but is not part of it, is named below
    it, by its class: `encoder.linear`, then `encoder.linear2` and so on. If it no longer exists in
    the next pass, the module that is made then gets its name.

    Args:
        is_named: whether a module's name appears in a trace.
        model: name only its modules, and those called within it; None: any module.

    Attributes:
        are_of_one_model: there is such a model.
    """

    def __init__(
        self, is_named: Callable[[nn.Module], bool], model: nn.Module | None = None
    ) -> None:
        self._is_named = is_named
        self._names: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()
        self._parents: weakref.WeakKeyDictionary[nn.Module, weakref.ref[nn.Module]]
        self._parents = weakref.WeakKeyDictionary()
        self._prefixes: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()
        self._copied: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()
        self._unlike: weakref.WeakKeyDictionary[nn.Module, int] = weakref.WeakKeyDictionary()
        self._taken: dict[str, weakref.ref[nn.Module] | None] = {}  # name → owner; None: for good
        self._model = model
        self.are_of_one_model = model is not None

    def meet(self, modules: Iterable[nn.Module]) -> None:
        """Note which of the existing modules are parts of which."""
        for parent in modules:
            for child in vars(parent).get("_modules", {}).values():
                if child is not None:
                    self.note_parent(parent, child)

    def note_parent(self, parent: nn.Module, child: nn.Module) -> None:
        """Note that a module became part of another; the first parent that still exists counts."""
        if self._parent(child) is None:
            self._parents[child] = weakref.ref(parent)

    def of(self, module: nn.Module, running: Sequence[Frame]) -> str | None:
        """The module's name; None where it is not part of the model.

        Args:
            running: the forward passes this call is within, outermost first; its own is the last.
        """
        if module not in self._names:
            self._find(module, running)
        return self._names.get(module)

    def known(self, module: nn.Module) -> str | None:
        """The name that a module was given; None where it has none yet."""
        return self._names.get(module)

    def of_copy(self, module: nn.Module, running: Sequence[Frame]) -> str | None:
        """The name of the module that this one is a copy of, in a copy of a model with names.

        It has the same place in a model of the same classes and shapes. None where there is no such
        model, or several.

        Args:
            running: see `of`.
        """
        if module not in self._copied:
            self._find_original(self.top(running[0].module))
        return self._copied.get(module)

    def _find_original(self, copy: nn.Module) -> None:
        known = [each for each in self._prefixes if each is not copy]
        if self._unlike.get(copy) == len(known):
            return
        if copy not in self._unlike:  # modules that deepcopy makes are not said to be placed
            self.meet(objects_of(nn.Module))
            copy = self.top(copy)
        parts = _parts(copy)
        alike = [each for each in known if _shapes(_parts(each)) == _shapes(parts)]
        if len(alike) != 1:
            self._unlike[copy] = len(known)
            return
        names = {place: self._names[each] for place, each in _parts(alike[0]).items()}
        self._copied.update({each: names[place] for place, each in parts.items()})

    def exempt(self, module: nn.Module) -> None:
        """Give a module an empty name: the names of its parts get no prefix."""
        self._names[module] = ""

    def outside(self, module: nn.Module, running: Sequence[Frame]) -> str:
        """A label for a module without a name, whose model does not train."""
        for root in (self.top(running[0].module), self.top(module)):
            for name, each in root.named_modules():
                if each is module:
                    return _name_in(module, _class_name(root), _clean(name, _is_wrapper(root)))
        return _class_name(module)

    def of_gone(self, outside: str) -> str:
        """The name of a module whose model no longer exists.

        Args:
            outside: the label that `outside` gave it.
        """
        within = outside.partition(".")[2] or outside
        return within if self._is_free(within) else outside

    def path(self, module: nn.Module) -> str:
        """The prefix of the names of a named module's parts; mostly empty for a root."""
        return self._prefixes.get(module, self._names.get(module, ""))

    def named(self) -> list[tuple[str, nn.Module]]:
        """All modules that have a name, called or not."""
        return [(name, module) for module, name in self._names.items()]

    def top(self, module: nn.Module) -> nn.Module:
        """The outermost module that holds this one."""
        passed = {module}
        while (parent := self._parent(module)) is not None and parent not in passed:
            module = parent
            passed.add(parent)
        return module

    def _parent(self, module: nn.Module) -> nn.Module | None:
        link = self._parents.get(module)
        return None if link is None else link()

    def _find(self, module: nn.Module, running: Sequence[Frame]) -> None:
        """Name a module and all others of its root, unless it is not part of the model."""
        self._adopt(self._model if self._model is not None else self.top(running[0].module))
        if module in self._names:
            return
        root = self.top(module)
        caller = next(
            (each for each in reversed(running) if self.top(each.module) is not root), None
        )
        if self._model is None or (caller is not None and caller.module in self._names):
            self._adopt(root, caller)

    def _adopt(self, root: nn.Module, caller: Frame | None = None) -> None:
        """Name the modules of a root that have no name; `caller` ran when it was first called."""
        lone = _is_wrapper(root)
        found = {
            module: _clean(name, lone)
            for name, module in root.named_modules()
            if module not in self._names
        }
        layers = {name: module for module, name in found.items() if self._is_named(module)}
        prefix = self._prefix(root, layers, caller)
        for name, module in layers.items():
            owner = None if caller is None else weakref.ref(module)
            self._taken[_name_in(module, prefix, name)] = owner
        for module, name in found.items():
            self._names[module] = _name_in(module, prefix, name)

    def _prefix(self, root: nn.Module, layers: dict[str, nn.Module], caller: Frame | None) -> str:
        """The prefix that makes a root's names different from all others; mostly empty."""
        if root not in self._prefixes:
            place = "" if caller is None else self.path(caller.module)
            made = set[str]() if caller is None else caller.made
            by_class = ".".join(filter(None, (place, _class_name(root))))
            numbered = (f"{by_class}{number}" for number in itertools.count(2))
            prefixes = itertools.chain(["" if caller is None else by_class], numbered)
            self._prefixes[root] = next(
                prefix for prefix in prefixes if prefix not in made and self._fits(prefix, layers)
            )
            made.add(self._prefixes[root])
        return self._prefixes[root]

    def _fits(self, prefix: str, layers: dict[str, nn.Module]) -> bool:
        names = [_name_in(module, prefix, name) for name, module in layers.items()]
        return all(map(self._is_free, names))

    def _is_free(self, name: str) -> bool:
        owner = self._taken.get(name, lambda: None)
        return owner is not None and owner() is None


def full_name(module: str | None, part: str) -> str | None:
    """The name of a layer, which is a module or a part of it; None: the module has none."""
    return None if module is None else ".".join(filter(None, (module, part)))


def _name_in(module: nn.Module, prefix: str, name: str) -> str:
    """A module's name in the trace; a root, below its wrappers, is named after its class."""
    return ".".join(filter(None, (prefix, name))) or _class_name(module)


def _class_name(module: nn.Module) -> str:
    return type(module).__name__.lower()


def _is_wrapper(root: nn.Module) -> bool:
    """Whether a module only wraps a model, as DataParallel does."""
    return list(root._modules.keys()) == ["module"]


def _parts(root: nn.Module) -> dict[str, nn.Module]:
    """The modules of a root by their place below its wrappers."""
    lone = _is_wrapper(root)
    return {_clean(name, lone): module for name, module in root.named_modules()}


def _shapes(parts: Mapping[str, nn.Module]) -> dict[str, Any]:
    """By place, a module's class and the shapes of its own parameters."""
    return {
        place: (type(module), [(n, p.shape) for n, p in module.named_parameters(recurse=False)])
        for place, module in parts.items()
    }


def _clean(name: str, lone: bool) -> str:
    """A name without the parts that wrappers insert."""
    parts = [part for part in name.split(".") if part not in _WRAPPERS]
    while lone and parts[:1] == ["module"]:
        del parts[0]
    return ".".join(parts)
