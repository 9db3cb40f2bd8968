"""Stacked bars of memory traffic, one for each layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hqtool.report.page.axes import LONG_LABELS, Spec, hover, named, nominal, quantitative, view

STATIC = "tensors, each moved once (static)"
SCALES = "scales of blocks"
AGAIN = "loaded again, for want of buffer"
LOOKS = "added by looks: accumulator saved and reloaded (dynamic)"

#: Every transfer has its colour on all charts.
COLOURS: Spec = {
    "domain": [STATIC, SCALES, AGAIN, LOOKS],
    "range": ["#0072B2", "#56B4E9", "#CC79A7", "#E69F00"],
}


def bars(data: str, shown: str, told: Sequence[tuple[Any, ...]], unit: str) -> Spec:
    """Layers in the order of the data.

    Args:
        shown: the entry `of` of the rows that are drawn.
        unit: what amounts are of: 'a step'.
    """
    return view(
        {"step": 17},
        data=named(data),
        params=[{"name": "shown", "value": shown}],
        transform=[{"filter": "datum.of === shown"}],
        mark={"type": "bar"},
        encoding={
            "y": nominal("layer", "layer"),
            "x": quantitative(
                "kib", f"memory traffic (KiB{unit})", stack="zero", scale={"zero": True}
            ),
            "color": nominal("what", "moved", scale=COLOURS, legend=LONG_LABELS),
            "order": {"field": "place"},
            "tooltip": hover(*told),
        },
    )


def shows(name: str) -> Spec:
    """The change of a specification that draws other rows."""
    return {"params": [{"name": "shown", "value": name}]}
