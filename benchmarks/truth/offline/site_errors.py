"""What the sums of a comparison do not tell of a site's error: where it lies in the tensor."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from benchmarks.truth.offline.ranges import kept_records, quantized_values
from benchmarks.truth.offline.site_figures import SiteErrors
from hqtool.core.arrangement import channel_axis_of
from hqtool.estimators.quantizer import Quantizer
from hqtool.trace.reader import TraceReader
from hqtool.training.tensors.quantized import Quantized
from hqtool.vocab import Site


def site_errors(
    reader: TraceReader, site: Site, quantizers: Iterable[Quantizer]
) -> dict[Quantizer, SiteErrors]:
    """The errors of each quantizer at one site."""
    history = reader.history(site)
    kept = kept_records(history)
    if not kept:
        return {}
    exact = [each.values.double() for each in quantized_values(site, history, None, kept)]
    axis = history.axes.channel if history.axes.output is None else None
    found = {}
    for quantizer in quantizers:
        made = quantized_values(site, history, quantizer, kept)
        of_records = [
            _errors(x, q, _axis(x, axis, history.axes.output))
            for x, q in zip(exact, made, strict=True)
        ]
        found[quantizer] = SiteErrors(*torch.tensor(of_records).mean(dim=0).tolist())
    return found


def _axis(x: Tensor, channel: int | None, output: int | None) -> int:
    return channel_axis_of(tuple(x.shape), channel) if output is None else output


def _errors(x: Tensor, q: Quantized, axis: int) -> SiteErrors:
    error, power = (x - q.values.double()).square(), x.square()
    rounded = error if q.clipped is None else error[~q.clipped]
    nonzero = power > 0
    lost = (error[nonzero] / power[nonzero]).clamp(max=1)
    return SiteErrors(
        float(rounded.sum() / power.sum()),
        _of_channels(x, error, axis),
        float(lost.mean()) if len(lost) else 0.0,
    )


def _of_channels(x: Tensor, error: Tensor, axis: int) -> float:
    """Channels that do not vary carry nothing, and do not count."""
    by_channel = [each.movedim(axis, 0).reshape(x.shape[axis], -1) for each in (x, error)]
    variance = by_channel[0].var(dim=1, correction=0)
    varies = variance > 0
    ratio = by_channel[1].mean(dim=1)[varies] / variance[varies]
    return float(torch.log2(1 + ratio).mean()) if len(ratio) else 0.0
