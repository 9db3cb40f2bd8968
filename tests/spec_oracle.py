"""What a real run of a model computes, forward and backward, to compare layer specs with.

The oracle is PyTorch's own autograd on real tensors: hooks on modules tell the sizes of each one's
tensors and gradients by name; and every operator that PyTorch dispatches, in the forward and in the
backward pass, is counted by kind and sizes. It shares no code with what makes the specs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from hqtool.traffic.layers import Layer

#: Kind and sizes of one operation: elements of what it reads and makes.
Sizes = tuple[str, tuple[int, ...]]

_DEEP = {  # the only module classes of the libraries tried that compute one thing in steps
    *("NewGELUActivation", "GELUTanh", "LlamaRMSNorm", "OwnGELU", "OwnRMSNorm"),
}


class ByName(NamedTuple):
    """Elements of a module's tensors; those of gradients are None where there is none."""

    weight: int
    input: int
    output: int
    grad_output: int | None
    grad_input: int | None
    grad_weight: int | None


class Measured(NamedTuple):
    """What ran: the calls of each named module, and all operators by kind and sizes."""

    modules: dict[str, list[ByName]]
    forward: Counter[Sizes]
    backward: Counter[Sizes]


def measured(model: nn.Module, *args: Tensor) -> Measured:
    """Run a model forward and backward, as it is."""
    modules, samples = _Modules(model), args[0].shape[0]
    forward, backward = _Operators(samples, modules), _Operators(samples, modules)
    with forward:
        loss = _total(model(*args))
    with backward:
        loss.backward()
    found = forward.counted + Counter(modules.in_steps)
    return Measured(modules.found(), found, backward.counted)


def _total(result: Any) -> Tensor:
    """A number that depends on all of a model's result."""
    result = getattr(result, "logits", result)
    tensors = result.values() if isinstance(result, dict) else [result]
    return torch.stack([each.sum() for each in tensors]).sum()


# --- by name ------------------------------------------------------------------------------------


class _Modules:
    """Hooks on the modules without children."""

    def __init__(self, model: nn.Module) -> None:
        self.deep = 0
        self.in_steps: list[Sizes] = []
        self._calls: dict[str, list[dict[str, Any]]] = {}
        self._weights: dict[str, Any] = {}
        for name, module in model.named_modules():
            if next(module.children(), None) is None:
                module.register_forward_pre_hook(self._enter)
                module.register_forward_hook(self._hook(name))
                self._weights[name] = getattr(module, "weight", None)

    def _enter(self, module: nn.Module, args: Any) -> None:
        self.deep += type(module).__name__ in _DEEP

    def _hook(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], y: Any) -> None:
            self.deep -= type(module).__name__ in _DEEP
            if args and isinstance(args[0], Tensor) and isinstance(y, Tensor):
                call: dict[str, Any] = dict.fromkeys(("gx", "gy"))
                call |= {"x": args[0].numel(), "y": y.numel()}
                if type(module).__name__ in _DEEP:
                    kind = "norm" if "Norm" in type(module).__name__ else "activation"
                    self.in_steps.append((kind, (call["x"], call["y"])))
                self._calls.setdefault(name, []).append(call)
                for tensor, key in ((args[0], "gx"), (y, "gy")):
                    if tensor.requires_grad:
                        tensor.register_hook(lambda g, key=key: call.update({key: g.numel()}))

        return hook

    def found(self) -> dict[str, list[ByName]]:
        return {name: [self._by_name(name, c) for c in of] for name, of in self._calls.items()}

    def _by_name(self, name: str, call: dict[str, Any]) -> ByName:
        weight = self._weights[name]
        size = 0 if weight is None else weight.numel()
        grad = None if weight is None or weight.grad is None else weight.grad.numel()
        return ByName(size, call["x"], call["y"], call["gy"], call["gx"], grad)


# --- by operator --------------------------------------------------------------------------------


class _Operators(TorchDispatchMode):
    """Counts the operators that PyTorch dispatches, below autograd."""

    def __init__(self, samples: int, modules: _Modules) -> None:
        super().__init__()
        self.counted: Counter[Sizes] = Counter()
        self._samples, self._modules = samples, modules

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self._modules.deep:
            self.counted.update(self._sizes(func.overloadpacket.__name__.rstrip("_"), args, result))
        return result

    def _sizes(self, name: str, args: Sequence[Any], result: Any) -> Iterator[Sizes]:
        y = result[0] if isinstance(result, (tuple, list)) else result
        n = [each.numel() if isinstance(each, Tensor) else 0 for each in args]
        if name == "convolution":
            yield "conv", (n[1], n[0], y.numel())
        elif name == "convolution_backward":
            yield "conv", (n[2], n[1] if args[-1][0] else 0, n[0])
        elif name in ("mm", "bmm"):
            yield "product", tuple(sorted((n[0], n[1], y.numel())))
        elif name == "addmm":
            yield "product", tuple(sorted((n[1], n[2], y.numel())))
        elif name.startswith("_scaled_dot_product"):
            yield from _attention(name, args)
        elif name in _NORMS:
            yield "norm", (n[_NORMS[name]], y.numel())
        elif name in _ACTIVATIONS:
            yield "activation", (n[0], y.numel())
        elif name in _POOLS or name == "mean":
            yield "pool", (n[0], y.numel())
        elif name in ("embedding", "embedding_dense_backward"):
            yield "embedding", (y.numel() if name == "embedding" else n[0],)
        elif name in ("add", "mul") and self._are_large(y, n[:2]):
            yield name, (2, y.numel())

    def _are_large(self, y: Any, operands: Sequence[int]) -> bool:
        """Whether both operands are as large as the result, or as one sample of it."""
        is_float = isinstance(y, Tensor) and y.dtype.is_floating_point
        return is_float and all(each * self._samples >= y.numel() > 1 for each in operands)


def _attention(name: str, args: Sequence[Any]) -> Iterator[Sizes]:
    """The two products of attention, and the softmax between; or the four of its backward pass."""
    q, k, v = args[1:4] if name.endswith("backward") else args[:3]
    scores = math.prod(q.shape[:-1]) * k.shape[-2]
    times = 2 if name.endswith("backward") else 1
    for _ in range(times):
        yield "product", tuple(sorted((q.numel(), k.numel(), scores)))
        yield "product", tuple(sorted((v.numel(), scores, math.prod(q.shape[:-1]) * v.shape[-1])))
    yield "activation", (scores, scores)


_NORMS = {
    **dict.fromkeys(("native_batch_norm", "_native_batch_norm_legit_no_training"), 0),
    **dict.fromkeys(("_native_batch_norm_legit", "native_layer_norm", "native_group_norm"), 0),
    **dict.fromkeys(("_batch_norm_no_update", "_batch_norm_with_update", "cudnn_batch_norm"), 0),
    **dict.fromkeys(("native_batch_norm_backward", "native_layer_norm_backward"), 0),
    **dict.fromkeys(("native_group_norm_backward", "batch_norm_backward"), 0),
}
_ACTIVATIONS = {
    *(
        "relu",
        "gelu",
        "silu",
        "hardswish",
        "hardsigmoid",
        "sigmoid",
        "hardtanh",
        "tanh",
        "_softmax",
    ),
    *("threshold_backward", "gelu_backward", "silu_backward", "hardswish_backward"),
    *("hardsigmoid_backward", "sigmoid_backward", "hardtanh_backward", "tanh_backward"),
    "_softmax_backward_data",
}
_POOLS = {
    *("max_pool2d_with_indices", "avg_pool2d", "_adaptive_avg_pool2d", "adaptive_max_pool2d"),
    *("max_pool2d_with_indices_backward", "avg_pool2d_backward", "_adaptive_avg_pool2d_backward"),
}


# --- the same of a spec -------------------------------------------------------------------------


def spec_sizes(layers: Sequence[Layer], pass_name: str) -> Counter[Sizes]:
    """What a run computes according to a layer spec, by kind and sizes."""
    return Counter(each for layer in layers for each in _SPEC[pass_name](layer))


def _forward(layer: Layer) -> Iterator[Sizes]:
    w, x, y = (each * layer.repeat for each in layer.counts())
    if layer.op.startswith("conv"):
        yield "conv", (w, x, y)
    elif layer.op in ("linear", "matmul"):
        yield "product", tuple(sorted((w, x, y)))
    elif layer.op in ("add", "mul"):
        yield layer.op, (layer.operands, y)
    elif layer.op == "embedding":
        yield "embedding", (y,)
    elif layer.op != "activation" or layer.kind not in ("scale", "pointwise"):
        yield layer.op, (x, y)


def _backward(layer: Layer) -> Iterator[Sizes]:
    """Each product makes G_X, of its operands, and G_W; the others G_X, or G_W, from G_Y."""
    w, x, y = (each * layer.repeat for each in layer.counts())
    works = [work.made for work in layer.works() if work.pass_name == "backward"]
    if layer.op.startswith("conv"):
        yield "conv", (w, x if layer.grad_input else 0, y)
    elif layer.op in ("linear", "matmul"):
        for _ in works:
            yield "product", tuple(sorted((w, x, y)))
    elif layer.op == "embedding":
        yield "embedding", (y,)
    elif layer.op == "pool" and layer.kind == "avg" and set(layer.output_size) == {1}:
        return  # PyTorch expands the gradient of a mean, which is no operator of its own
    elif layer.op in ("norm", "pool") or layer.kind not in ("", "scale", "pointwise"):
        yield layer.op, (y, x)


_SPEC = {"forward": _forward, "backward": _backward}
