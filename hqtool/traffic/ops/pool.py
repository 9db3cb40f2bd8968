"""Pooling: windows over the spatial dimensions, of which the largest value or the mean is taken."""

from __future__ import annotations

from hqtool.traffic.geometry import Geometry, sizes_text
from hqtool.traffic.works import Tensors, Work, gradient, tensors_of

POOLS = ("max", "avg")

CHANNELS = 1


def pool_tensors(layer: Geometry) -> Tensors:
    """X = N·C·Πsize, Y = N·C·Πsize_o elements; no W.

    Raises:
        DataError: channels change, the window is missing or impossible, or nothing is left.
    """
    if layer.out_channels != layer.in_channels:
        cause = f"pool has as many channels as it is given, {layer.in_channels}"
        raise layer.wrong("out_channels", cause, "leave out_channels out")
    samples = (layer.batch, layer.in_channels)
    output = _adaptive(layer) if layer.output_size else _output(layer)
    return tensors_of((0,), (*samples, *layer.input), (*samples, *output), CHANNELS)


def pool_works(layer: Geometry, tensors: Tensors) -> tuple[Work, ...]:
    """Y from X; G_X from G_Y, and of a maximum from X, in which it is found again.

    Means are new values, maxima are not. G_X has new values where windows overlap, and gradients
    are summed up; else each of its values is one of G_Y's, divided by the size of the window.
    """
    x, y, is_max = tensors.input, tensors.output, layer.kind == "max"
    return (
        Work("forward", y, (x,), quantizes=not is_max),
        Work("backward", gradient(x), (gradient(y), *((x,) if is_max else ())), _overlaps(layer)),
    )


def _overlaps(layer: Geometry) -> bool:
    if layer.output_size:
        pairs = zip(layer.input, layer.output_size, strict=True)
        return any(size % wanted for size, wanted in pairs)
    return any(span > step for span, step in zip(_spans(layer), layer.stride, strict=True))


def _adaptive(layer: Geometry) -> tuple[int, ...]:
    for key in ("kernel", "stride"):
        if getattr(layer, key):
            cause = "output_size is given, from which it follows"
            raise layer.wrong(key, cause, f"leave {key} or output_size out")
    return layer.output_size


def _output(layer: Geometry) -> tuple[int, ...]:
    _check_window(layer)
    axes = zip(layer.input, _spans(layer), layer.stride, _padding(layer), strict=True)
    output = tuple(_places(*axis, layer.ceil_mode) for axis in axes)
    if min(output) < 1:
        cause = f"the window spans {sizes_text(_spans(layer))}, more than the padded input"
        raise layer.wrong("kernel", cause, "make kernel smaller, or input or padding larger")
    return output


def _check_window(layer: Geometry) -> None:
    if not layer.kernel:
        raise layer.wrong("kernel", "missing", "add the key kernel, or output_size if adaptive")
    if any(2 * p > k for p, k in zip(_padding(layer), layer.kernel, strict=True)):
        cause = f"{sizes_text(_padding(layer))} is more than half the kernel"
        raise layer.wrong("padding", cause, "make padding smaller")
    if layer.kind == "avg" and set(layer.dilation) != {1}:
        raise layer.wrong("dilation", "an average has none", "leave dilation out")


def _places(size: int, span: int, stride: int, padding: int, ceil: bool) -> int:
    """Where windows may start; the last, where it may hang over, within input or padding before."""
    room = size + 2 * padding - span
    places = (room + (stride - 1 if ceil else 0)) // stride + 1
    return places - 1 if ceil and (places - 1) * stride >= size + padding else places


def _spans(layer: Geometry) -> tuple[int, ...]:
    return tuple(d * (k - 1) + 1 for k, d in zip(layer.kernel, layer.dilation, strict=True))


def _padding(layer: Geometry) -> tuple[int, ...]:
    if isinstance(layer.padding, str):
        raise layer.wrong("padding", f'pool takes no padding "{layer.padding}"', "write numbers")
    return layer.padding
