"""Operators of torch that multiply, as operations of a layer spec."""

from __future__ import annotations

from collections.abc import Iterator

from hqtool.traffic.sources import operation
from hqtool.trial.shapes.calls import Call, Part, Reader
from hqtool.trial.shapes.origins import Origins


def linear(call: Call, origins: Origins) -> Iterator[Part]:
    x, weight = call.values["input"], call.values["weight"]
    if origins.is_activation(weight):
        keys = operation.matmul(tuple(x.shape), tuple(weight.shape[::-1]))
        yield Part("matmul", keys, (x, weight))
    else:
        yield Part("linear", operation.linear(tuple(x.shape), weight.shape[0]), (x,), weight)


def product(left: str, right: str) -> Reader:
    """Matrices, of which one may be a weight: it does not come from the network's input."""

    def read(call: Call, origins: Origins) -> Iterator[Part]:
        a, b = call.values[left], call.values[right]
        if not origins.is_activation(b) and b.dim() == 2:
            yield Part("linear", operation.linear(tuple(a.shape), b.shape[1]), (a,), b)
        elif not origins.is_activation(a) and a.dim() == 2 and b.dim() > 1:
            x = (*b.shape[:-2], b.shape[-1], b.shape[-2])
            yield Part("linear", operation.linear(tuple(x), a.shape[0]), (b,), a)
        else:
            yield Part("matmul", operation.matmul(tuple(a.shape), tuple(b.shape)), (a, b))

    return read


def convolution(transposed: bool | None = None) -> Reader:
    def read(call: Call, origins: Origins) -> Iterator[Part]:
        values = call.values
        is_transposed = values["transposed"] if transposed is None else transposed
        keys = ["stride", "padding", "dilation", *["output_padding"] * is_transposed]
        sizes = {key: (0 if values[key] == "valid" else values[key]) for key in keys}
        geometry = operation.convolution(
            call.shape("input"),
            call.shape("weight"),
            transposed=is_transposed,
            groups=values["groups"],
            **sizes,
        )
        yield Part("conv", geometry, (values["input"],), values["weight"])

    return read


def attention(call: Call, origins: Origins) -> Iterator[Part]:
    """Softmax(QKᵀ)V as its two products with the softmax between."""
    query, key, value = (call.values[name] for name in ("query", "key", "value"))
    q, k, v = tuple(query.shape), tuple(key.shape), tuple(value.shape)
    if call.values.get("enable_gqa"):  # several heads of queries share one of keys and values
        k, v = (*k[:-3], q[-3], *k[-2:]), (*v[:-3], q[-3], *v[-2:])
    scores = (*operation.broadcast(q[:-2], k[:-2]), q[-2], k[-2])
    transposed = (*k[:-2], k[-1], k[-2])
    yield Part("qk", operation.matmul(q, transposed), (query, key))
    yield Part("softmax", operation.activation(scores, "softmax"), (), follows=True)
    yield Part("av", operation.matmul(scores, v), (value,), follows=True)


def recurrent(call: Call, origins: Origins) -> Iterator[Part]:
    """A recurrent layer as its products: with all steps at once, but for its state step by step.

    What its gates compute element by element has no bill.
    """
    values = call.values
    x = values["input"] if "input" in values else values["data"]
    rows = tuple(x.shape[:-1])
    if values.get("batch_first") is False and len(rows) == 2:
        rows = rows[::-1]
    weights = [each for each in values["params"] if each.dim() == 2]
    of_layer = len(weights) // values["num_layers"]
    of_direction = of_layer // (2 if values["bidirectional"] else 1)
    for number, weight in enumerate(weights):
        keys = operation.linear((*rows, weight.shape[1]), weight.shape[0])
        if number % of_direction and len(rows) == 2:
            keys |= {"input": 1, "repeat": rows[1]}
        reads_x = number < of_layer and number % of_direction == 0
        yield Part("linear", keys, (x,) if reads_x else (x, weight), weight)
    yield Part(f"gates of {call.operator}", None, ())
