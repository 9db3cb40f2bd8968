"""The report of what can be chosen: estimators, formats, recipes, metrics and tensor kinds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hqtool.core.formats.named import FORMATS
from hqtool.core.metrics import METRICS
from hqtool.errors import HqtoolError, UsageError
from hqtool.estimators.presets import ESTIMATORS
from hqtool.nearest import known_names
from hqtool.parameters import to_json
from hqtool.recipes.named import RECIPES, load_recipe
from hqtool.registry import Entry, Registry
from hqtool.report.model import Column, Report, Table
from hqtool.vocab import TENSOR_KINDS

SCHEMA = "hqtool.list/1"

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the catalogue.

    Args:
        noun: what its rows are.
        rows: makes them, those of outside packages included; each has `name` and `meaning`.
        key: the entry that tables show for a row's name.
        registry: which other names it knows, such as those of a family, intN.
    """

    noun: str
    rows: Callable[[], list[Row]]
    key: str = "name"
    registry: Registry[Any] | None = None

    def named(self, name: str | None) -> list[Row]:
        """Its rows, or those of one name.

        Raises:
            UsageError: no such name.
        """
        rows = self.rows()
        found = [row for row in rows if name in (None, row["name"])]
        if not found and name is not None and self.registry is not None:
            return [_registered(self.registry.entry(self.registry.parse(name).name))]
        if not found:
            known = known_names(str(name), [row["name"] for row in rows])
            raise UsageError(f"unknown {self.noun} '{name}'", known)
        return found


#: The word for a section on the command line → the section.
SECTIONS = {
    "estimators": Section(
        "estimator", lambda: list(map(_registered, ESTIMATORS)), "usage", ESTIMATORS
    ),
    "formats": Section("format", lambda: list(map(_registered, FORMATS)), "usage", FORMATS),
    "recipes": Section("recipe", lambda: [_recipe(entry.name) for entry in RECIPES]),
    "metrics": Section(
        "metric",
        lambda: [{"name": m.name, "unit": m.unit, "meaning": m.meaning} for m in METRICS.values()],
    ),
    "tensors": Section(
        "tensor kind", lambda: [{"name": n, "meaning": text} for n, text in TENSOR_KINDS.items()]
    ),
}


def catalogue_report(section: str | None = None, name: str | None = None) -> Report:
    """Everything that is registered, with what outside packages add.

    Args:
        section: a key of `SECTIONS`; None for all.
        name: of one row of the section.

    Raises:
        UsageError: the section has no row of this name.
    """
    chosen = list(SECTIONS.values()) if section is None else [SECTIONS[section]]
    rows = {each: each.named(name) for each in chosen}
    document = {f"{each.noun}s".replace(" ", "_"): found for each, found in rows.items()}
    flat = [
        {"kind": each.noun, "name": row[each.key], "meaning": row["meaning"]}
        for each, found in rows.items()
        for row in found
    ]
    tables = [_table(each, found) for each, found in rows.items()]
    return Report({"schema": SCHEMA} | document, flat, tables)


def _registered(entry: Entry[Any]) -> Row:
    parameters = {
        name: None if p.default is p.empty else to_json(p.default)
        for name, p in entry.parameters.items()
    }
    return {
        "name": entry.name,
        "usage": entry.usage,
        "parameters": parameters,
        "meaning": entry.summary,
    }


def _recipe(name: str) -> Row:
    """A recipe with what it says of itself; one of an outside package may be broken."""
    try:
        recipe = load_recipe(name)
    except HqtoolError as error:
        return {"name": name, "tensors": None, "meaning": f"cannot be used: {error.cause}"}
    return {"name": name, "tensors": list(recipe.tensors), "meaning": recipe.description}


def _table(section: Section, rows: list[Row]) -> Table:
    columns = (
        Column(section.key, section.noun, number=False),
        Column("meaning", "meaning", number=False),
    )
    return Table(f"{section.noun}s", columns, tuple(rows))
