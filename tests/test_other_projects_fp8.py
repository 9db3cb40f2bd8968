"""The FP8 scaling of TransformerEngine and torchao, on the tensors of a real training run.

TransformerEngine needs a GPU to be built for; torchao is asked itself where it is installed.
Beside it stands an implementation of the published definitions, in their float32 arithmetic,
with torch's own cast to FP8 (which is not hqtool's).
"""

from __future__ import annotations

import importlib.util
import math

import numpy as np
import pytest
import torch
from real_tensors import SHARE_OF_OTHER_CODES, TENSORS, ranges

from hqtool.core.formats.lanes import levels_over
from hqtool.core.formats.named import FORMATS
from hqtool.core.quantize import quantize
from hqtool.vocab import Range

FP8 = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}


def scale_by_definition(amax, dtype, pow2):
    """FP8_MAX / amax in float32; the power-of-two option leaves the mantissa out."""
    scale = np.float32(np.float64(torch.finfo(dtype).max) / np.float64(amax))
    return float(2.0 ** math.floor(math.log2(scale))) if pow2 else float(scale)


def scale_by_torchao(amax, dtype, pow2):
    from torchao.float8.float8_utils import amax_to_scale

    return float(amax_to_scale(torch.tensor(amax), dtype, pow2))


SCALES = [scale_by_definition]
if importlib.util.find_spec("torchao"):
    SCALES.append(scale_by_torchao)


def cast(x, scale, dtype):
    """x·scale, saturated and cast to FP8, and divided by the scale again, all in float32."""
    top = torch.finfo(dtype).max
    scaled = torch.clamp(torch.from_numpy(x) * np.float32(scale), -top, top)
    return (scaled.to(dtype).to(torch.float32) / np.float32(scale)).numpy()


def others(found, expected):
    """How many values are another level; neighbours of FP8 differ by 6 % or more."""
    return int(np.count_nonzero(np.abs(found - expected) > 1e-5 * np.abs(expected)))


def float32_holds(scale):
    """Scales beyond float32 have none in these projects."""
    return 1e-30 < scale < 1e30


@pytest.mark.parametrize("scale_of", SCALES)
@pytest.mark.parametrize("pow2", [False, True])
@pytest.mark.parametrize("name", FP8)
@pytest.mark.parametrize("spec", ["current", "te-current"])
def test_current_scaling_of_a_tensor(spec, name, pow2, scale_of):
    """TransformerEngine's current scaling, and torchao's tensorwise."""
    format_ = FORMATS.parse(f"{name}:scale=pow2" if pow2 else name).value
    compared = other = 0
    for x, ours in zip(TENSORS, [ranges(spec, [x])[0] for x in TENSORS], strict=True):
        amax = float(np.abs(x).max())
        theirs = scale_of(amax, FP8[name], pow2)
        if not (float32_holds(theirs) and amax > 1e-12):
            continue
        assert max(-ours.lo, ours.hi) == amax
        levels = levels_over(format_, ours)
        assert 1 / levels.scale == pytest.approx(theirs, rel=2e-7)
        other += others(quantize(x.astype("f8"), levels), cast(x, theirs, FP8[name]))
        compared += x.size
    assert compared > 400_000
    assert other <= SHARE_OF_OTHER_CODES * compared


@pytest.mark.parametrize("scale_of", SCALES)
def test_torchao_rowwise(scale_of):
    """A scale for each row of the matrix, rounded down to a power of two."""
    format_ = FORMATS.parse("e4m3:scale=pow2").value
    compared = other = rows = 0
    for x in TENSORS[:60]:
        table = x[: x.size // 64 * 64].reshape(-1, 64)
        (ours,) = ranges("current:per=row", [table])
        for row, lo, hi in zip(table, ours.lo, ours.hi, strict=True):
            amax = float(np.abs(row).max())
            if amax <= 1e-12:
                continue
            theirs = scale_of(amax, FP8["e4m3"], True)
            levels = levels_over(format_, Range(lo, hi))
            assert 1 / levels.scale == theirs
            other += others(quantize(row.astype("f8"), levels), cast(row, theirs, FP8["e4m3"]))
            compared, rows = compared + row.size, rows + 1
    assert rows > 1000
    assert other <= SHARE_OF_OTHER_CODES * compared
