"""Linear layers, convolutions and products of activations: W, X and Y from a layer's geometry."""

from __future__ import annotations

from dataclasses import replace

from hqtool.traffic.geometry import Geometry, sizes_text
from hqtool.traffic.works import Tensors, tensors_of

#: The axis of a convolution's tensors that counts channels.
CHANNELS = 1


def linear_tensors(layer: Geometry) -> Tensors:
    """W = C_out·C_in, X = N·positions·C_in, Y = N·positions·C_out elements."""
    rows = (layer.batch, *layer.input)
    weight = (layer.out_channels, layer.in_channels)
    return tensors_of(weight, (*rows, layer.in_channels), (*rows, layer.out_channels))


def matmul_tensors(layer: Geometry) -> Tensors:
    """A = N·m·k, B = N·k·n, Y = N·m·n elements; both operands are activations."""
    (m,), k, n = layer.input, layer.in_channels, layer.out_channels
    tensors = tensors_of((layer.batch, k, n), (layer.batch, m, k), (layer.batch, m, n))
    other = tensors.weight._replace(name="other", kind="input", width="a")
    return replace(tensors, weight=other)


def conv_tensors(layer: Geometry) -> Tensors:
    """W = C_out·(C_in/groups)·Πk, X = N·C_in·Πsize, Y = N·C_out·Πsize_o elements (eq. 4).

    Raises:
        DataError: channels do not divide into groups, "same" with a stride, or no output.
    """
    weight = (layer.out_channels, _per_group(layer, "in_channels"), *layer.kernel)
    _per_group(layer, "out_channels")
    return _convolved(layer, weight, _conv_output(layer))


def conv_transpose_tensors(layer: Geometry) -> Tensors:
    """As `conv_tensors`, with W and the output size of a transposed convolution.

    Raises:
        DataError: channels do not divide into groups, padding "same", no output, or an output
            padding that neither stride nor dilation exceeds.
    """
    _per_group(layer, "in_channels")
    weight = (layer.in_channels, _per_group(layer, "out_channels"), *layer.kernel)
    return _convolved(layer, weight, _conv_transpose_output(layer))


def _convolved(layer: Geometry, weight: tuple[int, ...], output: tuple[int, ...]) -> Tensors:
    x = (layer.batch, layer.in_channels, *layer.input)
    return tensors_of(weight, x, (layer.batch, layer.out_channels, *output), CHANNELS)


def _per_group(layer: Geometry, key: str) -> int:
    channels: int = getattr(layer, key)
    if channels % layer.groups:
        cause = f"{channels} channels do not divide into groups = {layer.groups}"
        raise layer.wrong(key, cause, f"make {key} a multiple of groups")
    return channels // layer.groups


def _conv_output(layer: Geometry) -> tuple[int, ...]:
    if isinstance(layer.padding, str):
        return _same_output(layer)
    padded = tuple(x + 2 * p for x, p in zip(layer.input, layer.padding, strict=True))
    spans = _spans(layer)
    if any(span > size for span, size in zip(spans, padded, strict=True)):
        most = sizes_text(padded)
        cause = f"the kernel spans {sizes_text(spans)}, more than the padded input's {most}"
        raise layer.wrong("kernel", cause, "make kernel or dilation smaller, or input larger")
    axes = zip(padded, spans, layer.stride, strict=True)
    return tuple((size - span) // stride + 1 for size, span, stride in axes)


def _same_output(layer: Geometry) -> tuple[int, ...]:
    if set(layer.stride) != {1}:
        cause = f'"same" (the default) needs stride 1, not {sizes_text(layer.stride)}'
        raise layer.wrong("padding", cause, "write the padding as a number or a list")
    return layer.input


def _conv_transpose_output(layer: Geometry) -> tuple[int, ...]:
    if isinstance(layer.padding, str):
        cause = f'{layer.op} takes no padding "{layer.padding}"'
        raise layer.wrong("padding", cause, "write the padding as a number or a list")
    extras = _output_padding(layer)
    axes = zip(layer.input, layer.stride, layer.padding, _spans(layer), extras, strict=True)
    output = tuple((x - 1) * s - 2 * p + span + extra for x, s, p, span, extra in axes)
    if min(output) < 1:
        cause = f"leaves an output of {sizes_text(output)}"
        raise layer.wrong("padding", cause, "make padding smaller, or input or kernel larger")
    return output


def _output_padding(layer: Geometry) -> tuple[int, ...]:
    axes = zip(layer.output_padding, layer.stride, layer.dilation, strict=True)
    if any(extra >= max(stride, dilation) for extra, stride, dilation in axes):
        cause = f"{sizes_text(layer.output_padding)} is below neither stride nor dilation"
        raise layer.wrong("output_padding", cause, "make output_padding smaller than stride")
    return layer.output_padding


def _spans(layer: Geometry) -> tuple[int, ...]:
    """How many input elements one kernel reaches over, per dimension."""
    return tuple(d * (k - 1) + 1 for k, d in zip(layer.kernel, layer.dilation, strict=True))
