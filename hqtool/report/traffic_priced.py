"""The report of a bill, with all that may be asked of it: quantizers, buffers, joules, time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hqtool.report.model import Column, Report, Table
from hqtool.report.traffic import Billing, traffic_report
from hqtool.report.traffic_costs import Costs
from hqtool.report.traffic_sweep import Swept, plain, with_sweep
from hqtool.sizes import binary_bytes
from hqtool.traffic.bill import ON_CHIP, Bill, Bits, as_bytes, total, works_bill
from hqtool.traffic.pricing.store import PAPER
from hqtool.traffic.spec import LayerSpec
from hqtool.traffic.works import Work

if TYPE_CHECKING:  # numpy, which the bill of a spec alone does not need
    from hqtool.traffic.pricing.scheme import Scheme


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked beyond the bill.

    Args:
        schemes: quantizers and recipes to bill the network under.
        wide_bits: of what a recipe does not quantize.
        buffers: bytes of each buffer of a sweep; empty: no sweep.
    """

    costs: Costs = field(default_factory=Costs)
    schemes: Sequence[Scheme] = ()
    wide_bits: int = 32
    buffers: Sequence[int] = ()


def priced_report(spec: LayerSpec, bits: Bits, billing: Billing, asked: Asked) -> Report:
    """The bill of a network; quantizers or a sweep in place of its layers.

    Raises:
        UsageError: the chip is tiled, and a buffer does not hold one accumulator.
    """
    costs = asked.costs
    chip = PAPER if asked.buffers else costs.chip
    report = _with_settings(traffic_report(spec, bits, billing, chip), asked)
    if not (asked.buffers or asked.schemes or costs.energy or costs.bandwidth):
        return report
    works = billing.works(spec.layers)
    if asked.buffers:
        swept = _swept(spec, bits, asked)
        return with_sweep(report, spec.layers, works, swept, asked.buffers, costs)
    if asked.schemes:
        from hqtool.report.traffic_quantizers import Network, with_quantizers

        network = Network(spec.layers, works)
        return with_quantizers(report, network, asked.schemes, bits, asked.wide_bits, costs)
    return _with_step(report, _bill(spec, works, bits, costs), costs)


def _bill(spec: LayerSpec, works: Sequence[tuple[Work, ...]], bits: Bits, costs: Costs) -> Bill:
    pairs = zip(spec.layers, works, strict=True)
    return total(works_bill(each, bits, layer.repeat, costs.chip) for layer, each in pairs)


def _swept(spec: LayerSpec, bits: Bits, asked: Asked) -> list[Swept]:
    """What is billed at every buffer: dynamic quantization, unless schemes are named."""
    if not asked.schemes:
        return [plain(bits)]
    from hqtool.report.traffic_quantizers import stores_of

    return [
        Swept(scheme.label, stores_of(scheme, spec.layers, bits, asked.wide_bits))
        for scheme in asked.schemes
    ]


def _with_settings(report: Report, asked: Asked) -> Report:
    """The report, whose document says what was asked."""
    costs = asked.costs
    added = {
        "buffer_bytes": costs.chip.buffer_bytes,
        "tiling": costs.chip.tiled,
        "energy": costs.energy.name if costs.energy else None,
        "bandwidth": float(costs.bandwidth) if costs.bandwidth else None,
        "unquantized_bits": asked.wide_bits,
    }
    return replace(
        report,
        document={**report.document, "settings": {**report.document["settings"], **added}},
    )


def _with_step(report: Report, bill: Bill, costs: Costs) -> Report:
    """The report with joules and time of a step."""
    rows: list[dict[str, Any]] = [
        {"name": name, "bytes": as_bytes(bits), **costs.of(bits, on_chip)}
        for name, bits, on_chip in (
            ("static", bill.static_bits, 0),
            ("dynamic", bill.dynamic_bits, bill.bits_for(ON_CHIP)),
        )
    ]
    moved = Column("bytes", "moved", binary_bytes)
    columns = (Column("name", "quantization", number=False), moved, *costs.columns(rows))
    table = Table(f"a step, {costs.text}", columns, tuple(rows))
    return replace(
        report, document={**report.document, "step": rows}, tables=[*report.tables, table]
    )
