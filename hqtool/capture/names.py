"""Qualified names of modules, whichever way they are reached."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterator

from torch import nn

from hqtool.capture.layers import is_layer

#: Names that wrappers insert: torch.compile, FSDP and its checkpointing.
_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


class Names:
    """Names modules from their root.

    A module's root is the model that was called from outside, or what that is a part of: a
    script may well call `model.encoder(x)`. A second root with a layer of the same name gets its
    class name and a number, from 2, before its names, in the order in which roots first train.

    Args:
        model: name only its modules; None: every module that is asked for.
    """

    def __init__(self, model: nn.Module | None = None) -> None:
        self._names: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()
        self._parents: weakref.WeakKeyDictionary[nn.Module, weakref.ref[nn.Module]]
        self._parents = weakref.WeakKeyDictionary()
        self._prefixes: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()
        self._taken: set[str] = set()
        self._model = model

    def note_parent(self, parent: nn.Module, child: nn.Module) -> None:
        """A module became part of another; of several, the first living parent counts."""
        if self._parent(child) is None:
            self._parents[child] = weakref.ref(parent)

    def of(self, module: nn.Module, outermost: nn.Module) -> str | None:
        """The module's name; None where it is no part of the model.

        Args:
            outermost: the module whose forward pass this is part of; the module itself where it
                was called on its own.
        """
        for root in self._roots_of(module, outermost):
            if module not in self._names:
                self._adopt(root)
        return self._names.get(module)

    def layers(self) -> list[tuple[str, nn.Module]]:
        """The layers that have a name, called or not."""
        return [(name, module) for module, name in self._names.items() if is_layer(module)]

    def _roots_of(self, module: nn.Module, outermost: nn.Module) -> Iterator[nn.Module]:
        """Where to look for the module, best first; itself, where no model holds it."""
        if self._model is not None:
            yield self._model
        else:
            yield self._top(outermost)
            yield self._top(module)

    def _top(self, module: nn.Module) -> nn.Module:
        passed = {module}
        while (parent := self._parent(module)) is not None and parent not in passed:
            module = parent
            passed.add(parent)
        return module

    def _parent(self, module: nn.Module) -> nn.Module | None:
        link = self._parents.get(module)
        return None if link is None else link()

    def _adopt(self, root: nn.Module) -> None:
        """Name what `root` holds and has no name yet."""
        lone = list(root._modules) == ["module"]  # DataParallel and its like
        found = {
            module: _clean(name, lone)
            for name, module in root.named_modules()
            if module not in self._names
        }
        layers = [name for module, name in found.items() if is_named(module)]
        prefix = self._prefix(root, layers)
        self._taken.update(_full_name(root, prefix, name) for name in layers)
        for module, name in found.items():
            self._names[module] = _full_name(root, prefix, name)

    def _prefix(self, root: nn.Module, layers: list[str]) -> str:
        """What tells a root's names from those taken before; mostly nothing."""
        if root not in self._prefixes:
            numbered = (f"{_class_name(root)}{number}" for number in itertools.count(2))
            self._prefixes[root] = next(
                prefix
                for prefix in itertools.chain([""], numbered)
                if self._taken.isdisjoint(_full_name(root, prefix, name) for name in layers)
            )
        return self._prefixes[root]


def _full_name(root: nn.Module, prefix: str, name: str) -> str:
    """A module's name in the trace; a root that is a layer itself is called after its class."""
    return ".".join(filter(None, (prefix, name))) or _class_name(root)


def _class_name(module: nn.Module) -> str:
    return type(module).__name__.lower()


def is_named(module: nn.Module) -> bool:
    """Whether a module's name appears in a trace."""
    return is_layer(module) or isinstance(module, nn.MultiheadAttention)


def _clean(name: str, lone: bool) -> str:
    """Without what wrappers insert."""
    parts = [part for part in name.split(".") if part not in _WRAPPERS]
    while lone and parts[:1] == ["module"]:
        del parts[0]
    return ".".join(parts)
