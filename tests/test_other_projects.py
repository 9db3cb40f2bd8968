"""The ranges and values of other projects' quantizers, on the tensors of a real training run.

Where a project's package is installed it is asked itself; beside it, or where it is not, stands an
independent implementation of its published definition, in the float32 arithmetic that it uses.
Their floors (torch.ao 1.19e-7 under the scale, torchao 1e-12 under the maximum) are left out here:
tensors on which they bite are not compared.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from real_tensors import SHARE_OF_OTHER_CODES, SITES, TENSORS, ranges
from torch.ao.quantization import (
    MinMaxObserver,
    MovingAverageMinMaxObserver,
)

from hqtool.core.formats.lanes import levels_over
from hqtool.core.formats.uniform import UniformFormat
from hqtool.core.quantize import quantize


def test_there_are_enough_tensors():
    assert len(TENSORS) >= 100
    assert sum(x.size for x in TENSORS) > 400_000


def observed(observer, tensors):
    """(scale, zero point, smallest, largest) after each tensor, of those that meet no floor."""
    for x in tensors:
        observer(torch.from_numpy(x))
        scale, zero_point = observer.calculate_qparams()
        ends = float(observer.min_val), float(observer.max_val)
        yield float(scale), int(zero_point), *ends


def above_floor(scale):
    return scale > 1.01 * torch.finfo(torch.float32).eps


def other_codes(found, expected, scale):
    """How many values are quantized to another level."""
    return int(np.count_nonzero(np.abs(found - expected) > 0.5 * scale))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(
    ("spec", "observer", "steps_of"),
    [
        ("current", MinMaxObserver, lambda: [[x] for x in TENSORS]),
        ("running:momentum=0.99", MovingAverageMinMaxObserver, lambda: SITES),
    ],
)
def test_torch_ao_affine(spec, observer, steps_of, bits):
    """MinMax is `current`, MovingAverageMinMax with its constant 0.01 `running:momentum=0.99`."""
    top, compared, other = 2**bits - 1, 0, 0
    for tensors in steps_of():
        theirs = observed(observer(quant_min=0, quant_max=top, dtype=torch.quint8), tensors)
        for x, ours, (scale, zero_point, *ends) in zip(
            tensors, ranges(spec, tensors), theirs, strict=True
        ):
            assert ours == pytest.approx(tuple(ends), rel=1e-6)
            if not above_floor(scale):
                continue
            levels = levels_over(UniformFormat(bits), ours)
            assert levels.scale == pytest.approx(scale, rel=1e-6)
            assert -levels.lowest == zero_point
            q = torch.fake_quantize_per_tensor_affine(
                torch.from_numpy(x), scale, zero_point, 0, top
            )
            other += other_codes(quantize(x.astype("f8"), levels), q.numpy(), scale)
            compared += x.size
    assert compared > 200_000
    assert other <= SHARE_OF_OTHER_CODES * compared
