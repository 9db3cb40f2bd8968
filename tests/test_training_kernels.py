"""Training quantizes with the same bits by the compiled kernel and by torch."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from hqtool.capture.tensors import stats_of_tensor  # noqa: E402
from hqtool.core.formats.named import FORMATS  # noqa: E402
from hqtool.kernels.form import why_not_compiled  # noqa: E402
from hqtool.training import quantizing  # noqa: E402
from hqtool.vocab import Range  # noqa: E402

NOT_COMPILED = why_not_compiled()
RANGES = [Range(-1.0, 1.0), Range(-3.0, 0.5), Range(0.0, 9.0), Range(-1e-8, 2e-8)]
NONE, ONE_NAN, ONE_INFINITY = (), (float("nan"),), (float("inf"),)


@pytest.mark.skipif(NOT_COMPILED is not None, reason=str(NOT_COMPILED))
@pytest.mark.parametrize("extra", [NONE, ONE_NAN, ONE_INFINITY], ids=str)
@pytest.mark.parametrize("wanted", RANGES, ids=str)
@pytest.mark.parametrize("name", ["int8", "int4", "int8-symmetric", "int8-midrise", "int16"])
@pytest.mark.parametrize("known", [True, False], ids=["with statistics", "without"])
def test_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, name: str, wanted: Range, extra: tuple, known: bool
) -> None:
    x = torch.randn(3001, generator=torch.Generator().manual_seed(0))
    x[: len(extra)] = torch.tensor(extra)
    stats = stats_of_tensor(x) if known else None
    given = (x, FORMATS.parse(name).value, wanted, quantizing.Axes(-1), None, stats)
    found = quantizing.quantized(*given)
    monkeypatch.setattr(quantizing, "_in_one_pass", lambda x: False)
    expected = quantizing.quantized(*given)
    assert torch.equal(found.values.view(torch.int32), expected.values.view(torch.int32))
    assert (found.clipped is None) == (expected.clipped is None)
    assert found.clipped is None or torch.equal(found.clipped, expected.clipped)
