"""Finding the parameter behind a tensor, and the module that it belongs to."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from torch import Tensor, nn

from hqtool.watch.optimizers import objects_of
from hqtool.watch.tensor_types import is_transformed

#: Nodes of the graph whose output has the values of their single input, in another shape or type.
_SAME_VALUES = re.compile(
    "(Alias|AsStrided|Clone|Diagonal|Expand|Permute|ReshapeAlias|Select|Slice|Split|SplitWithSizes"
    "|Squeeze|T|ToCopy|Transpose|Unbind|Unfold|UnsafeView|Unsqueeze|View)Backward[0-9]"
)

#: How many such nodes may lie between a product and a parameter.
_MOST_NODES = 8


def parameter_of(tensor: Tensor, is_trained: Callable[[Tensor], bool]) -> Tensor | None:
    """The parameter that a tensor is, or is a view, transpose or cast of; None where there is none.

    Args:
        is_trained: whether a leaf that is not an `nn.Parameter` counts as a parameter.
    """
    if is_transformed(tensor):
        return None
    for each in (tensor, tensor._base, _leaf_behind(tensor)):
        if each is not None and (
            isinstance(each, nn.Parameter)
            or (each.is_leaf and each.requires_grad and is_trained(each))
        ):
            return each
    return None


def _leaf_behind(tensor: Tensor) -> Tensor | None:
    node: Any = tensor.grad_fn
    for _ in range(_MOST_NODES):
        if node is None or not _SAME_VALUES.fullmatch(node.name()):
            break
        node = node.next_functions[0][0]
    return getattr(node, "variable", None)


#: Nodes whose output is no longer a weight, but the output of a layer.
_LAYERS = re.compile(
    "(Mm|Mv|Bmm|Add(mm|mv|bmm)|Baddbmm|Dot|Linear|.*Convolution|.*Embedding|.*(Batch|Layer|Group)Norm"
    ").*"
)

#: How many nodes are visited on the way back from a weight.
_MOST_COMPUTED = 64


def parameters_behind(
    weight: Tensor, is_trained: Callable[[Tensor], bool]
) -> tuple[Tensor, list[Tensor]] | None:
    """The parameter that a weight was computed from, and all parameters that were used for that.

    A weight may be a parameter scaled, normalized, masked or rounded. The parameter is the only one
    with as many elements. None where there is none, or several, or where the tensor is the output
    of a layer.
    """
    found = list(_leaves_behind(weight))
    if not all(isinstance(each, nn.Parameter) or is_trained(each) for each in found):
        return None
    of_size = [each for each in found if each.numel() == weight.numel()]
    return (of_size[0], found) if len(of_size) == 1 else None


def _leaves_behind(weight: Tensor) -> Iterator[Tensor]:
    waiting: list[Any] = [weight.grad_fn]
    met = set[Any]()
    while waiting and len(met) < _MOST_COMPUTED:
        node = waiting.pop()
        if node is None or node in met or _LAYERS.fullmatch(node.name()):
            continue
        met.add(node)
        if (leaf := getattr(node, "variable", None)) is not None:
            yield leaf
        waiting += [each for each, _ in node.next_functions]


class Owner(NamedTuple):
    """A module, and what it calls a parameter of its own."""

    module: nn.Module
    name: str


class _Known(NamedTuple):
    parameter: weakref.ref[Tensor]
    module: weakref.ref[nn.Module]
    name: str


class UnownedParameters(nn.Module):
    """A stand-in for the module of parameters that belong to none; they are numbered from 0."""

    def __init__(self) -> None:
        super().__init__()
        self._numbered: dict[int, tuple[weakref.ref[Tensor], str]] = {}
        self._count = 0

    def name_of(self, parameter: Tensor) -> str:
        """The name of a parameter."""
        if not self.knows(parameter):
            self._numbered[id(parameter)] = weakref.ref(parameter), f"parameter{self._count}"
            self._count += 1
        return self._numbered[id(parameter)][1]

    def knows(self, parameter: Tensor) -> bool:
        """Whether a parameter has a number."""
        reference, _ = self._numbered.get(id(parameter), (None, ""))
        return reference is not None and reference() is parameter

    def parameters(self, recurse: bool = True) -> Iterator[Any]:
        """Those that are still in use."""
        return iter([each for ref, _ in self._numbered.values() if (each := ref()) is not None])


class Owners:
    """Finds the module that a parameter belongs to.

    Args:
        model: look only there; None: in all modules that exist.
    """

    def __init__(self, model: nn.Module | None = None) -> None:
        self.unowned = UnownedParameters()
        self._model = model
        self._known: dict[int, _Known] = {}
        self._searches = 0

    def of(self, parameter: Tensor, near: Iterable[nn.Module] = ()) -> Owner | None:
        """The module; `unowned` where there is none, None where it is not part of `model`.

        Args:
            near: modules to look into first. Of several that share a parameter the first counts.
        """
        if (owner := self._find(parameter)) is not None:
            return owner
        if not self.unowned.knows(parameter):
            for module in near:
                self._learn(module.modules())
        return self._find(parameter) or self._search(parameter)

    def _search(self, parameter: Tensor) -> Owner | None:
        """Look everywhere, but ever less often: a script may make new parameters at each step."""
        if self._model is not None:
            self._learn(self._model.modules())
            return self._find(parameter)
        known = self.unowned.knows(parameter)
        self._searches += not known
        if not known and self._searches & (self._searches - 1) == 0:
            self._learn(objects_of(nn.Module))
        return self._find(parameter) or Owner(self.unowned, self.unowned.name_of(parameter))

    def _learn(self, modules: Iterable[nn.Module]) -> None:
        for module in modules:
            for name, parameter in vars(module).get("_parameters", {}).items():
                if parameter is not None and self._find(parameter) is None:
                    known = _Known(weakref.ref(parameter), weakref.ref(module), name)
                    self._known[id(parameter)] = known

    def _find(self, parameter: Tensor) -> Owner | None:
        known = self._known.get(id(parameter))
        if known is None or known.parameter() is not parameter:
            return None
        module = known.module()
        if module is None or module._parameters.get(known.name) is not parameter:
            return None
        return Owner(module, known.name)
