"""The part of a comparison's report that sets whole recipes side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from hqtool.compare.recipe_sites import RecipeSites
from hqtool.compare.recipe_totals import RecipeTotal
from hqtool.report.model import EXACT, Column, Table, TableRow, decibels
from hqtool.sizes import counted
from hqtool.vocab import TENSOR_KINDS

COLUMNS = (
    Column("recipe", "recipe", number=False),
    Column("quantized", "sites"),
    Column("sqnr_db", "SQNR dB", decibels, max),
    Column("sqnr_db_low", "low dB", decibels),
    Column("cosine", "cosine", lambda c: f"{c:.6f}", max),
    Column("traffic_bytes", "KiB", lambda amount: f"{amount / 1024:.1f}", min),
    Column("looks", "looks", lambda n: f"{n:.2f}".rstrip("0").rstrip("."), min),
)

#: Of so many recipes the closing sentence tells beside the first one.
MOST_TOLD = 4


def in_json(total: RecipeTotal) -> dict[str, Any]:
    """One entry of the document's `recipes`."""
    worst = None if total.worst is None else asdict(total.worst)
    return asdict(total) | {"worst": worst}


def recipe_tables(totals: Sequence[RecipeTotal]) -> list[Table]:
    """A table for each tensor kind, and one of the total where there are several kinds."""
    kinds = [kind for kind in TENSOR_KINDS if any(t.tensor == kind for t in totals)]
    shown: list[str | None] = [*kinds, None] if len(kinds) > 1 else [*kinds]
    return [_table(kind, [t for t in totals if t.tensor == kind]) for kind in shown]


def _table(kind: str | None, totals: Sequence[RecipeTotal]) -> Table:
    noun = "layer" if kind else "site"
    title = f"{kind or 'in total'} ({counted(totals[0].sites, noun)}; KiB and looks a step)"
    return Table(title, COLUMNS, tuple(map(_row, totals)))


def _row(total: RecipeTotal) -> TableRow:
    quantized = total.sites - total.unquantized
    exact = {"sqnr_db": EXACT, "sqnr_db_low": EXACT} if total.exact else {}
    nothing = {} if quantized else {"looks": None}
    return asdict(total) | {"quantized": quantized} | exact | nothing


# --- in words -----------------------------------------------------------------------------------


def recipe_sentence(totals: Sequence[RecipeTotal]) -> str:
    """What the recipes cost in total against the first one that quantizes; '' if none is left."""
    whole = [t for t in totals if t.tensor is None and t.unquantized < t.sites]
    clauses = [clause for t in whole[1 : 1 + MOST_TOLD] if (clause := _clause(t, whole[0]))]
    return f"In total, against {whole[0].recipe}: {'; '.join(clauses)}." if clauses else ""


def _clause(total: RecipeTotal, base: RecipeTotal) -> str:
    parts = [_gain(total, base), _saving(total, base)]
    known = " and ".join(filter(None, parts))
    return f"{total.recipe} {known}" if known else ""


def _gain(total: RecipeTotal, base: RecipeTotal) -> str:
    if total.sqnr_db is None or base.sqnr_db is None:
        return ""
    gain = total.sqnr_db - base.sqnr_db
    return f"{'gains' if gain >= 0 else 'loses'} {abs(gain):.2f} dB"


def _saving(total: RecipeTotal, base: RecipeTotal) -> str:
    if not (total.traffic_bytes and base.traffic_bytes):
        return ""
    more = round(100 * (total.traffic_bytes / base.traffic_bytes - 1))
    if more == 0:
        return "moves as much memory traffic"
    return f"moves {abs(more)} % {'more' if more > 0 else 'less'} memory traffic"


def recipe_notes(recipes: RecipeSites) -> Iterable[str]:
    """What of the recipes the trace cannot show, one sentence each."""
    for (own, other), names in _stand_ins(recipes).items():
        yield (
            f"the trace has no {other}: the quantizer that {_listed(names)} {_verb(names)} it is "
            f"scored on {own}"
        )
    for kind, names in _by_kind(recipes.missing).items():
        kinds = ",".join(dict.fromkeys([*(s.tensor for s in recipes.given), kind]))
        verb = "quantizes" if len(names) == 1 else "quantize"
        yield (
            f"the trace has no {kind}, which {_listed(names)} {verb}: "
            f"hqtool capture --tensors {kinds} records it"
        )
    for name, layers in recipes.unjudged.items():
        yield (
            f"{name} has rules for module types, and the trace does not tell those of "
            f"{counted(len(layers), 'layer')}: its rules with types do not apply there"
        )


def _verb(names: Sequence[str]) -> str:
    return "gives" if len(names) == 1 else "give"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


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
