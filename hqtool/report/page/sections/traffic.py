"""Traffic: bytes a layer, stacked by transfer; of a bill, over its sweep, and as replayed."""

from __future__ import annotations

from hqtool.report.page.markup import element
from hqtool.report.page.material import Material
from hqtool.report.page.section import Columns, Part, Section
from hqtool.report.page.sections.bill import bill_parts
from hqtool.report.page.sections.moved import moved_parts


def traffic(material: Material) -> Section:
    """From a bill, and from the comparison where layers' geometry is known."""
    parts: list[Part] = []
    data: dict[str, Columns] = {}
    for made, columns in (bill_parts(material), moved_parts(material)):
        parts += made
        data |= columns
    if not parts:
        text = "Neither a bill nor a trace that tells the geometry of its layers was given."
        parts = [element("p", text)]
    return Section("traffic", "Traffic", parts, data)
