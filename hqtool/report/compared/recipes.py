"""The part of a comparison's report that sets whole recipes side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, TypeVar

from hqtool.compare.recipe_sites import RecipeSites
from hqtool.compare.recipe_totals import RecipeTotal, alike, gain_db
from hqtool.compare.results import Summary
from hqtool.compare.unquantized import NONE
from hqtool.report.compared.naming import lane_label, lane_of
from hqtool.report.compared.rows import by_site
from hqtool.report.compared.sentence import gained, traffic_compared
from hqtool.report.model import EXACT, Column, Table, TableRow, decibels, percent
from hqtool.sizes import counted
from hqtool.vocab import TENSOR_KINDS

COLUMNS = (
    Column("recipe", "recipe", number=False),
    Column("quantized", "sites"),
    Column("sqnr_db", "SQNR dB", decibels, max),
    Column("sqnr_db_low", "low dB", decibels),
    Column("cosine", "cosine", lambda c: f"{c:.6f}", max),
    Column("noise", "noise", "{:.2g}".format, min),
    Column("traffic_bytes", "KiB", lambda amount: f"{amount / 1024:.1f}", min),
    Column("looks", "looks", lambda n: f"{n:.2f}".rstrip("0").rstrip("."), min),
)

#: Of one site.
SITE_COLUMNS = (
    COLUMNS[0],
    Column("quantizer", "quantizer", number=False),
    *(column for column in COLUMNS if column.key.startswith(("sqnr", "cosine"))),
    Column("looked", "looked", percent, min),
)

#: Of so many recipes the closing sentence tells beside the first one.
MOST_TOLD = 4

#: So many recipes are named in a note.
MOST_NAMED = 3

Kind = TypeVar("Kind")


def total_in_json(total: RecipeTotal) -> dict[str, Any]:
    """One entry of the document's `recipes`."""
    worst = None if total.worst is None else asdict(total.worst)
    return asdict(total) | {"worst": worst}


def recipe_tables(totals: Sequence[RecipeTotal], summaries: Sequence[Summary]) -> list[Table]:
    """A table for each tensor kind, and one of the total where there are several kinds.

    Where recipes quantize different sites, none is marked as the best in quality or looks.
    """
    kinds = [kind for kind in TENSOR_KINDS if any(t.tensor == kind for t in totals)]
    shown: list[str | None] = [*kinds, None] if len(kinds) > 1 else [*kinds]
    return [
        _table(
            kind,
            [t for t in totals if t.tensor == kind],
            alike([s for s in summaries if kind in (None, s.tensor)]),
        )
        for kind in shown
    ]


def _table(kind: str | None, totals: Sequence[RecipeTotal], comparable: bool) -> Table:
    noun = "layer" if kind else "site"
    title = f"{kind or 'in total'} ({counted(totals[0].sites, noun)}; KiB and looks a step)"
    columns = COLUMNS if comparable else tuple(map(_unmarked, COLUMNS))
    return Table(title, columns, tuple(map(_row, totals)))


def _unmarked(column: Column) -> Column:
    """A column of figures over sites that differ: only what all sites move can be compared."""
    return column if column.key in ("noise", "traffic_bytes") else replace(column, best=None)


def _row(total: RecipeTotal) -> TableRow:
    quantized = total.sites - total.unquantized
    exact = {"sqnr_db": EXACT, "sqnr_db_low": EXACT} if total.exact else {}
    nothing = {} if quantized else {"looks": None}
    return asdict(total) | {"quantized": quantized} | exact | nothing


def site_rows(summaries: Iterable[Summary]) -> list[TableRow]:
    """A row for each recipe at each site."""
    of_recipes = [s for s in summaries if s.recipe is not None]
    return [
        {**row, "recipe": s.recipe, "quantizer": lane_label(lane_of(row))}
        for s, row in zip(of_recipes, by_site(of_recipes), strict=True)
    ]


def site_tables(rows: Sequence[TableRow]) -> list[Table]:
    """A table for each tensor kind, with a section for each layer."""
    kinds = [kind for kind in TENSOR_KINDS if any(row["tensor"] == kind for row in rows)]
    return [
        Table(
            f"{kind}, recipes by layer",
            SITE_COLUMNS,
            tuple(_of_site(row) for row in rows if row["tensor"] == kind),
            group=("layer",),
            section="layer",
        )
        for kind in kinds
    ]


def _of_site(row: TableRow) -> TableRow:
    """A row as its table shows it: without figures where nothing is quantized."""
    if row["format"] != NONE:
        return row
    return {key: row[key] for key in ("layer", "recipe")} | {"quantizer": NONE}


# --- in words -----------------------------------------------------------------------------------


def recipe_sentence(totals: Sequence[RecipeTotal], summaries: Sequence[Summary]) -> str:
    """What the recipes cost in total against the first one that quantizes; '' if none is left.

    Qualities are compared over the sites that both quantize, traffic over all of them.
    """
    whole = [t for t in totals if t.tensor is None and t.unquantized < t.sites]
    told = whole[1 : 1 + MOST_TOLD]
    clauses = [clause for t in told if (clause := _clause(t, whole[0], summaries))]
    return f"In total, against {whole[0].recipe}: {'; '.join(clauses)}." if clauses else ""


def _clause(total: RecipeTotal, base: RecipeTotal, summaries: Sequence[Summary]) -> str:
    parts = [_gain(total.recipe, base.recipe, summaries), _saving(total, base)]
    known = " and ".join(filter(None, parts))
    return f"{total.recipe} {known}" if known else ""


def _gain(recipe: str, base: str, summaries: Sequence[Summary]) -> str:
    gain, shared = gain_db(recipe, base, summaries)
    if gain is None:
        return ""
    where = "" if shared is None else f" at the {counted(shared, 'site')} that both quantize"
    return " ".join(filter(None, gained(gain))) + where


def _saving(total: RecipeTotal, base: RecipeTotal) -> str:
    if not (total.traffic_bytes and base.traffic_bytes):
        return ""
    return traffic_compared(total.traffic_bytes, base.traffic_bytes)


def recipe_notes(recipes: RecipeSites) -> Iterable[str]:
    """What of the recipes the trace cannot show, one sentence each."""
    for names, pairs in _shared(_stand_ins(recipes)).items():
        verb = "gives" if len(names) == 1 else "give"
        kinds = _and(other for _, other in pairs)
        places = _and(f"that of {other} on {own}" for own, other in pairs)
        yield (
            f"{listed(names)} {verb} quantizers to {kinds}, of which the trace has nothing: "
            f"scored are {places}"
        )
    for names, missing in _shared(_by_kind(recipes.missing)).items():
        verb = "quantizes" if len(names) == 1 else "quantize"
        wanted = dict.fromkeys([*(site.tensor for site in recipes.given), *missing])
        yield (
            f"{listed(names)} {verb} {_and(missing)}, too, of which the trace has nothing: record "
            f"it with hqtool capture --tensors {','.join(wanted)}"
        )
    for name, layers in recipes.unjudged.items():
        yield (
            f"{name} has rules for module types, and the trace does not tell those of "
            f"{counted(len(layers), 'layer')}: its rules with types do not apply there"
        )
    for name, words in recipes.unmet.items():
        yield f"no layer of the trace matches {_and(words, 'or')}, which {name} names"


def _shared(by_kind: Mapping[Kind, Sequence[str]]) -> dict[tuple[str, ...], list[Kind]]:
    """Kind → recipes, the other way round: the recipes of several kinds are named once."""
    found: dict[tuple[str, ...], list[Kind]] = {}
    for kind, names in by_kind.items():
        found.setdefault(tuple(names), []).append(kind)
    return found


def listed(names: Sequence[str]) -> str:
    """The names; of many the first ones."""
    if len(names) <= MOST_NAMED:
        return _and(names)
    return f"{', '.join(names[:MOST_NAMED])} and {len(names) - MOST_NAMED} more"


def _and(words: Iterable[str], conjunction: str = "and") -> str:
    *others, last = words
    return f"{', '.join(others)} {conjunction} {last}" if others else last


def _stand_ins(recipes: RecipeSites) -> dict[tuple[str, str], list[str]]:
    """(kind scored, kind meant) → the recipes for which it is so."""
    found: dict[tuple[str, str], list[str]] = {}
    for site, given in recipes.given.items():
        for each in given:
            if each.tensor != site.tensor:
                found.setdefault((site.tensor, each.tensor), []).append(each.recipe)
    return {pair: list(dict.fromkeys(names)) for pair, names in found.items()}


def _by_kind(missing: Mapping[str, tuple[str, ...]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, kinds in missing.items():
        for kind in kinds:
            found.setdefault(kind, []).append(name)
    return found
