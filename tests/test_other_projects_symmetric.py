"""torch.ao's symmetric observers, per tensor and per channel, on the tensors of a real run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from real_tensors import SHARE_OF_OTHER_CODES, TENSORS, ranges
from torch.ao.quantization import MinMaxObserver, PerChannelMinMaxObserver

from hqtool.core.formats.lanes import levels_over
from hqtool.core.formats.named import FORMATS
from hqtool.core.quantize import quantize
from hqtool.vocab import Range

EPS = torch.finfo(torch.float32).eps


def other_codes(found, expected, scale):
    """How many values are quantized to another level."""
    return int(np.count_nonzero(np.abs(found - expected) > 0.5 * scale))


def test_symmetric_is_the_full_range():
    """Levels −128 … 127 and a scale of max|x|/127.5."""
    format_ = FORMATS.parse("int8-fullrange").value
    compared = other = 0
    for x, ours in zip(TENSORS, [ranges("current", [x])[0] for x in TENSORS], strict=True):
        observer = MinMaxObserver(dtype=torch.qint8, qscheme=torch.per_tensor_symmetric)
        observer(torch.from_numpy(x))
        scale, zero_point = observer.calculate_qparams()
        if scale <= 1.01 * EPS:
            continue
        levels = levels_over(format_, ours)
        assert levels.scale == pytest.approx(float(scale), rel=1e-6)
        assert (levels.lowest, levels.highest, int(zero_point)) == (-128, 127, 0)
        q = torch.fake_quantize_per_tensor_affine(
            torch.from_numpy(x), float(scale), 0, -128, 127
        ).numpy()
        no_tie = np.abs(x) < np.abs(x).max()  # the extreme lies at ∓127.5: float32 decides
        ours = quantize(x.astype("f8"), levels)
        other += other_codes(ours[no_tie], q[no_tie], float(scale))
        compared += x.size
    assert compared > 200_000
    assert other <= SHARE_OF_OTHER_CODES * compared


@pytest.mark.parametrize(("axis", "per"), [(0, "sample"), (1, "channel")])
def test_per_channel(axis, per):
    """Each channel has the range of its own extremes, widened to hold 0."""
    format_ = FORMATS.parse("int8").value
    compared = other = 0
    for x in TENSORS[:60]:
        table = x[: x.size // 16 * 16].reshape(-1, 16)[:64]
        observer = PerChannelMinMaxObserver(ch_axis=axis, quant_min=0, quant_max=255)
        observer(torch.from_numpy(table))
        (ours,) = ranges(f"current:per={per}", [table])
        theirs = (each.tolist() for each in observer.calculate_qparams())
        for channel, lo, hi, scale, zero_point in zip(
            np.moveaxis(table, axis, 0), ours.lo, ours.hi, *theirs, strict=True
        ):
            if scale <= 1.01 * EPS:
                continue
            levels = levels_over(format_, Range(lo, hi))
            assert levels.scale == pytest.approx(scale, rel=1e-6)
            assert -levels.lowest == zero_point
            q = torch.fake_quantize_per_tensor_affine(
                torch.from_numpy(channel), scale, zero_point, 0, 255
            ).numpy()
            other += other_codes(quantize(channel.astype("f8"), levels), q, scale)
            compared += channel.size
    assert compared > 20_000
    assert other <= SHARE_OF_OTHER_CODES * compared
