"""torchao's rowwise FP8 on the tensors of a real run, scored whole: its definition, on its own.

FIELD: max|x| of each row in float64 is clamped to 1e-12 from below, the scale is 448 / amax in
float32, rounded down to a power of two; x times the scale is clamped and cast to E4M3 by torch.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from real_tensors import TRACE  # noqa: E402

from hqtool import TraceReader  # noqa: E402
from hqtool.core.formats.named import FORMATS  # noqa: E402
from hqtool.core.observation import values_of  # noqa: E402
from hqtool.core.recorded import RecordedObservation  # noqa: E402
from hqtool.estimators.presets import ESTIMATORS  # noqa: E402
from hqtool.estimators.protocol import decide  # noqa: E402
from hqtool.vocab import Record  # noqa: E402

E4M3 = FORMATS.parse("e4m3:scale=pow2").value
ROWWISE = ESTIMATORS.parse("current:per=row").value


def by_definition(rows: np.ndarray) -> np.ndarray:
    """The rounded values of a float32 table, row by row."""
    found = np.empty(rows.shape)
    for i, row in enumerate(rows):
        amax = max(float(np.abs(row).max()), 1e-12)
        scale = 2.0 ** math.floor(math.log2(np.float32(448.0 / amax)))
        scaled = torch.from_numpy(row.astype("f8") * scale).clamp(-448, 448).float()
        found[i] = scaled.to(torch.float8_e4m3fn).double().numpy() / scale
    return found


def rows_of(record: Record) -> np.ndarray:
    """(rows, channels): axis 1 of a convolution's images, the last of all others."""
    if record.sampled:
        return record.values.reshape(-1, record.layout.length)
    rows = np.moveaxis(record.values, 1 if record.values.ndim == 4 else -1, -1)
    return rows.reshape(-1, rows.shape[-1])


def test_rows_of_real_tensors() -> None:
    compared = 0
    with TraceReader(TRACE) as reader:
        for site in reader.sites:
            history = reader.history(site)
            kept = [i for i in range(len(history)) if history.has_values[i]][::3]
            for record in map(history.record, kept):
                prepared = values_of(record, *history.axes)
                obs = RecordedObservation(record.stats, E4M3, prepared, shape=record.shape)
                decision, _ = decide(ROWWISE, ROWWISE.start(), obs)
                found = prepared.moments([decision.range], [E4M3])
                rows = rows_of(record)
                q, x, weight = by_definition(rows), rows.astype("f8"), record.numel / rows.size
                sums = [weight * total for total in ((q * q).sum(), (x * q).sum())]
                sums.append(weight * ((x - q) ** 2).sum())
                ours = [found.qq[0], found.xq[0], found.err[0]]
                assert ours == pytest.approx(sums, rel=1e-9), f"{site} at step {record.step}"
                assert (decision.look.per, decision.look.elements) == ("row", rows.shape[1])
                compared += 1
    assert compared >= 100
