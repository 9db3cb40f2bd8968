"""Every operation of a model's forward pass, from shapes alone."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from hqtool.traffic.sources.input_shape import InputShape
from hqtool.traffic.sources.network import Network
from hqtool.traffic.sources.seen import COPY, ELEMENTWISE, REDUCTION, Seen, below, network_of
from hqtool.trial.shapes.building import META, failures_told
from hqtool.trial.shapes.calls import (
    Call,
    Part,
    arguments_of,
    first_tensor,
    is_elementwise,
    tensors_in,
)
from hqtool.trial.shapes.operators import (
    COPIES,
    FREE,
    LIKE,
    READERS,
    REDUCTIONS,
    elementwise_part,
)
from hqtool.trial.shapes.origins import Origins, storage_of
from hqtool.trial.shapes.places import Places

_RUNNING = (
    "give the shape and type of every input: --input 1x3x224x224, of tokens 1x128:int64, "
    "by name NAME=1x128:int64"
)


def network_of_model(
    model: nn.Module, inputs: Sequence[InputShape], label: str = "model"
) -> Network:
    """The operations of a model's forward pass, in the order in which they run.

    Nothing is computed where the model is on torch's meta device, as `built` makes it.

    Args:
        label: what errors call the model.

    Raises:
        DataError: its forward pass fails on such inputs.
    """
    samples = inputs[0].shape[0] if inputs else 1
    recorder = Recorder(model, samples)
    device = next((each.device for each in model.parameters()), torch.device(META))
    tensors = [torch.zeros(i.shape, dtype=getattr(torch, i.dtype), device=device) for i in inputs]
    pairs = list(zip(inputs, tensors, strict=True))
    args = [x for given, x in pairs if given.name is None]
    kwargs = {given.name: x for given, x in pairs if given.name is not None}
    recorder.origins.add_inputs(tensors)
    with failures_told(f"{label}: its forward pass failed", _RUNNING), recorder.watching(device):
        model(*args, **kwargs)
    return network_of(recorder.seen, samples)


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes each operation that runs within `watching`.

    In inference mode torch dispatches its composite functions as a whole, such as `linear` and
    `scaled_dot_product_attention`; those that are unknown here are taken apart.

    Attributes:
        seen: what ran.
        origins: which tensors come from the network's input, and which from its weights.
    """

    def __init__(self, model: nn.Module, samples: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[Seen] = []
        self.origins = Origins(model, samples)
        self._places = Places(model)

    @contextmanager
    def watching(self, device: torch.device) -> Iterator[None]:
        """Note what runs within a `with` block, where new tensors are on this device."""
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)  # it would hide an encoder's operations
        try:
            with self._places.followed(), torch.inference_mode(), device, self:
                yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called by torch in place of each operator."""
        kwargs = kwargs or {}
        operator = str(func._schema.name).partition("::")[2]
        operator = operator if operator.startswith("__") else operator.rstrip("_")
        if operator not in READERS and operator not in FREE:
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        self._see(func, Call(operator, arguments_of(func, args, kwargs), result))
        return result

    def _see(self, func: Any, call: Call) -> None:
        operands, results = tensors_in(call.values), tensors_in(call.result)
        self.origins.made(results, [] if call.operator in LIKE else operands)
        if func.is_view or call.operator in FREE or not self._is_of_network(call, results):
            return
        step, made = _step(func, call.operator), tuple(map(storage_of, results))
        reads = tuple(each for each in operands if self.origins.is_activation(each))
        parts = self._parts(func, call, step) or [Part(call.operator, None, reads)]
        before: tuple[Hashable, ...] = ()
        for part in parts:
            makes: tuple[Hashable, ...] = made if part is parts[-1] else (object(),)
            read = before if part.follows else ()
            self.seen.append(self._seen(part, step, read, makes, first_tensor(call.result)))
            before = makes

    def _is_of_network(self, call: Call, results: Sequence[Tensor]) -> bool:
        """Whether an operation changes with the input; others could be computed once, ahead."""
        return call.operator == "embedding" or any(map(self.origins.is_activation, results))

    def _parts(self, func: Any, call: Call, step: str) -> list[Part]:
        if step == COPY:
            return []
        if call.operator in READERS:
            return list(READERS[call.operator](call, self.origins))
        return list(elementwise_part(call, self.origins)) if step else []

    def _seen(
        self,
        part: Part,
        step: str,
        before: tuple[Hashable, ...],
        makes: tuple[Hashable, ...],
        result: Tensor,
    ) -> Seen:
        reads = [each for each in part.reads if self.origins.is_activation(each)]
        needs_gradient = map(self.origins.needs_gradient, part.reads)
        return Seen(
            self._places.now,
            part.label,
            part.keys,
            None if part.weight is None else self._own_name(part.weight),
            step,
            before + tuple(map(storage_of, reads)),
            makes,
            tuple(reads[0].shape) if reads else (),
            tuple(result.shape),
            bool(before) or any(needs_gradient),
        )

    def _own_name(self, weight: Tensor) -> str | None:
        """The name of a parameter's module; of one that several share, that of the running one."""
        for name, parameter in self._places.module._parameters.items():
            if parameter is not None and storage_of(parameter) == storage_of(weight):
                return _without_weight(below(self._places.now.path, name))
        shared = self.origins.parameter_name(weight)
        return None if shared is None else _without_weight(shared)


def _step(func: Any, operator: str) -> str:
    if operator in COPIES:
        return COPY
    if operator in REDUCTIONS:
        return REDUCTION
    return ELEMENTWISE if is_elementwise(func) else ""


def _without_weight(name: str) -> str:
    """PyTorch calls weights `weight`, `in_proj_weight`, `weight_ih_l0` …"""
    return name.removesuffix("weight").rstrip("._") or name
