"""What is seen of a network, operation by operation, and the layers that it amounts to.

A module that calls no other, whose operators all work element by element or reduce, and that reads
one tensor and returns one as large, is one norm, if it reduces, or one activation: an accelerator
would compute it in one go, and other versions of a library compute it in other steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from hqtool.traffic.sources import operation
from hqtool.traffic.sources.network import Network
from hqtool.traffic.sources.operation import Keys, Shape

#: Operations that read several operands as large as the result.
SUMS = ("add", "mul")

#: What an operator may be a step of: a norm or an activation.
ELEMENTWISE, REDUCTION, COPY = "elementwise", "reduction", "copy"


@dataclass(slots=True, eq=False)
class Place:
    """One call of a module.

    Attributes:
        path: the module's qualified name; empty of the model itself.
        is_leaf: it calls no other module.
    """

    path: str
    is_leaf: bool = True


@dataclass(frozen=True, slots=True)
class Seen:
    """One operation.

    Args:
        label: what it is called within its module.
        keys: of a layer spec, without the name; None where it moves tensors and has no bill.
        own_name: the name of the module whose weight it multiplies with; None where it has none.
        step: ELEMENTWISE, REDUCTION or COPY; empty: it is no step of a longer computation.
        reads, makes: the activations that it reads, in the order of its operands, and makes; what
            shares memory is one.
        x, y: the shapes of the first of them.
        grad_input: some of what it reads needs a gradient.
    """

    place: Place
    label: str
    keys: Keys | None
    own_name: str | None
    step: str
    reads: tuple[Hashable, ...]
    makes: tuple[Hashable, ...]
    x: Shape
    y: Shape
    grad_input: bool = True


def network_of(seen: Iterable[Seen], samples: int) -> Network:
    """The network that such operations make.

    Args:
        seen: in the order in which they run.
        samples: N, the number of samples that it reads at once.
    """
    network, makers = Network(), dict[Hashable, tuple[str, ...]]()
    before: tuple[str, ...] = ()
    for name, each in named(seen):
        sources = tuple(maker for read in each.reads for maker in makers.get(read, ()))
        made_by = tuple(dict.fromkeys(sources))
        if each.keys is None:
            network.leave_out(each.label, each.place.path)
        else:
            keys = operation.of_samples(each.keys, samples)
            told = _sources(keys, sources, before) | _gradient(keys, each.grad_input)
            made_by = before = (network.add(name, keys | told),)
        makers |= dict.fromkeys(each.makes, made_by)
    return network


def _sources(keys: Keys, sources: tuple[str, ...], before: tuple[str, ...]) -> Keys:
    """The layers that an operation reads, where that is not just the one before."""
    operands = 2 if keys["op"] == "matmul" else keys.get("operands")
    if operands == len(sources):
        return {"from": list(sources)}
    if keys["op"] in SUMS:
        return {}
    found = tuple(dict.fromkeys(sources))
    return {"from": list(found)} if found and found != before else {}


def _gradient(keys: Keys, grad_input: bool) -> Keys:
    return {} if grad_input or keys["op"] == "embedding" else {"grad_input": False}


def named(seen: Iterable[Seen]) -> Iterator[tuple[str, Seen]]:
    """Each operation with its name: that of its weight's module, or of a module of one operation.

    All others are named below the module that they run in.
    """
    for _, group in itertools.groupby(seen, lambda each: id(each.place)):
        of_call = list(group)
        joined = [_joined(of_call)] if _is_one(of_call) else of_call
        is_whole = len(joined) == 1 and joined[0].place.is_leaf
        for each in joined:
            within = each.place.path if is_whole else below(each.place.path, each.label)
            yield each.own_name or within or each.label, each


def below(path: str, name: str) -> str:
    """The name of a part of a module."""
    return f"{path}.{name}" if path else name


def _is_one(seen: Sequence[Seen]) -> bool:
    if len(seen) < 2 or not seen[0].place.is_leaf or not all(each.step for each in seen):
        return False
    made = {each for one in seen for each in one.makes}
    read = {each for one in seen for each in one.reads} - made
    return len(read) <= 1 and seen[0].x == seen[-1].y and len(seen[0].x) > 1


def _joined(seen: Sequence[Seen]) -> Seen:
    x, labels = seen[0].x, {each.label for each in seen}
    if any(each.step == REDUCTION for each in seen):
        keys = operation.layer_norm(x, x[-1], "layer" if labels & _CENTRED else "rms")
    else:
        kind = next((kind for label, kind in _TELLING.items() if label in labels), "")
        keys = operation.activation(x, kind or "pointwise")
    made = {each for one in seen for each in one.makes}
    reads = tuple(each for one in seen for each in one.reads if each not in made)[:1]
    return replace(seen[0], keys=keys, own_name=None, reads=reads, makes=tuple(made), y=seen[-1].y)


#: Of a norm written out: it subtracts the mean.
_CENTRED = {"sub", "var", "std", "Sub", "ReduceVar"}

#: Of an activation written out: the step that tells which one it is.
_TELLING = {"tanh": "gelu", "erf": "gelu", "sigmoid": "silu", "Tanh": "gelu", "Erf": "gelu"}
