"""The report of a study: a table as papers print it, and every run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from hqtool.compare.recommending.targets import LOWER_IS_BETTER
from hqtool.report.model import Column, Report, Table, TableRow, decibels
from hqtool.sizes import binary_bytes, counted
from hqtool.study.figures import FEWEST_RECIPES, Estimate
from hqtool.study.outcome import Result
from hqtool.study.process import THREADS
from hqtool.study.study import StudyResults
from hqtool.study.study_file import SEED
from hqtool.study.table import RecipeRow, StudyTable

SCHEMA = "hqtool.study-result/1"

#: An interval of a rank correlation from fewer recipes is told to say little.
FEW_RECIPES = 8

#: Offline score → how tables and sentences call it, and show it.
_SCORES: dict[str, tuple[str, Callable[[Any], str]]] = {
    "sqnr_db": ("SQNR dB", decibels),
    "cosine": ("cosine", "{:.6f}".format),
    "noise": ("noise", "{:.2g}".format),
}


def study_report(table: StudyTable) -> Report:
    """The table, what it leaves open, and all runs."""
    rows = [_row(row) for row in table.rows]
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "study": _study(table.found),
        "table": rows,
        "correlation": _correlation_rows(table),
        "runs": [_run(result) for result in table.found.results],
    }
    return Report(
        document=document,
        rows=rows,
        tables=list(_tables(table, rows)),
        closing=" ".join(_sentences(table)),
        notes=list(_notes(table)),
    )


def _study(found: StudyResults) -> dict[str, Any]:
    study = found.study
    return {
        "path": str(study.path),
        "folder": str(found.folder),
        "command": list(study.command),
        "metric": study.metric.pattern,
        "seeds": list(study.seeds),
        "recipes": [recipe.name for recipe in study.recipes],
        "baseline": study.baseline,
        "trace": study.trace,
        "options": list(study.options),
        "resumed": found.resumed,
    }


# --- rows ---------------------------------------------------------------------------------------


def _row(row: RecipeRow) -> dict[str, Any]:
    difference = row.difference or Estimate(None)
    return {
        "recipe": row.recipe.name,
        "runs": row.outcomes["finished"],
        "mean": row.metric.mean,
        "std": row.metric.std,
        "difference": difference.value,
        "difference_low": difference.low,
        "difference_high": difference.high,
        "pairs": row.pairs,
        "diverged": row.outcomes["diverged"],
        "failed": row.outcomes["failed"],
        "timed_out": row.outcomes["timed-out"],
        "static": row.moved.static,
        "static_bytes": row.moved.static_bytes,
        "traffic_bytes": row.moved.traffic_bytes,
        "seconds": row.seconds,
        "sqnr_db": row.scores.sqnr_db if row.scores else None,
        "cosine": row.scores.cosine if row.scores else None,
        "noise": row.scores.noise if row.scores else None,
    }


def _run(result: Result) -> dict[str, Any]:
    return {
        "recipe": result.run.recipe.name,
        "seed": result.run.seed,
        "outcome": result.outcome,
        "metric": result.metric,
        "reason": result.reason or None,
        "status": result.ended.status,
        "seconds": result.ended.seconds,
        "threads": result.ended.threads,
        "folder": str(result.run.place),
    }


def _correlation_rows(table: StudyTable) -> list[dict[str, Any]]:
    return [
        {"score": n, "recipes": k, "spearman": e.value, "low": e.low, "high": e.high}
        for n, (e, k) in table.correlations.items()
    ]


# --- the table ----------------------------------------------------------------------------------


def _tables(table: StudyTable, rows: list[dict[str, Any]]) -> Iterator[Table]:
    """The study's own, and, of a study with a trace, the offline scores beside the metric."""
    shown = tuple(_shown(row, found) for row, found in zip(rows, table.rows, strict=True))
    yield Table(_title(table), tuple(_columns(table)), shown)
    if table.correlations:
        name = table.found.study.metric.name
        scores = (Column(score, *_SCORES[score]) for score in table.correlations)
        columns = (RECIPE, *scores, Column("metric", name))
        yield Table(
            f"scored on {table.found.study.trace} where all quantize, and trained", columns, shown
        )


RECIPE = Column("recipe", "recipe", number=False)


def _title(table: StudyTable) -> str:
    study = table.found.study
    seeds = counted(len(study.seeds), "seed")
    title = f"{study.metric.name}: mean ± standard deviation over {seeds}"
    if len(table.rows) < 2:
        return title
    return f"{title}; from {study.baseline}: mean difference ± half the 95 % interval"


def _columns(table: StudyTable) -> Iterator[Column]:
    found = table.found
    yield RECIPE
    yield Column("static", "static", lambda static: "yes" if static else "no", number=False)
    yield Column("metric", found.study.metric.name)
    if len(table.rows) > 1:
        yield Column("change", f"from {found.study.baseline}")
    yield Column("of", "runs")
    yield Column("diverged", "diverged")
    yield Column("traffic_bytes", "a step", binary_bytes)


def _shown(row: dict[str, Any], found: RecipeRow) -> TableRow:
    places, change = decimals(row["std"], row["mean"]), found.difference
    half = None if change is None or change.high is None else change.high - (change.value or 0.0)
    return row | {
        "metric": plus_minus(row["mean"], row["std"], places),
        "change": None if change is None else plus_minus(change.value, half, places, "+"),
        "of": f"{row['runs']}/{sum(found.outcomes.values())}",
    }


def decimals(std: float | None, mean: float | None) -> int:
    """So many that the standard deviation has two digits; without one, the mean four."""
    size, digits = (std, 2) if std else (abs(mean or 0.0), 4)
    if not size:
        return 2
    return min(8, max(0, digits - 1 - math.floor(math.log10(size))))


def plus_minus(value: float | None, half: float | None, places: int, sign: str = "") -> str | None:
    """'96.1 ± 1.3' with so many decimal places; None where there is no value."""
    if value is None:
        return None
    return f"{value:{sign}.{places}f}" + ("" if half is None else f" ± {half:.{places}f}")


# --- sentences ----------------------------------------------------------------------------------


def _sentences(table: StudyTable) -> Iterator[str]:
    for name, (found, recipes) in table.correlations.items():
        label = _SCORES[name][0].removesuffix(" dB")
        metric = table.found.study.metric.name
        if found.value is None:
            yield f"No rank correlation of {label} with {metric}: {_why_none(recipes)}."
        else:
            yield (
                f"Over {counted(recipes, 'recipe')} {label} on the trace {_ranks(name, metric)} "
                f"with Spearman's ρ = {found.value:+.2f} "
                f"(95 % bootstrap {found.low:+.2f} … {found.high:+.2f})."
            )
    if any(found.value is not None and n < FEW_RECIPES for found, n in table.correlations.values()):
        yield f"An interval from fewer than {FEW_RECIPES} recipes says little."


def _ranks(score: str, metric: str) -> str:
    if score in LOWER_IS_BETTER:
        return f"(less is better) ranks against {metric}"
    return f"ranks as {metric} does"


def _why_none(recipes: int) -> str:
    if recipes < FEWEST_RECIPES:
        return f"{counted(recipes, 'recipe')} with both, and it takes {FEWEST_RECIPES}"
    return "one of the two is the same for all recipes"


def _notes(table: StudyTable) -> Iterator[str]:
    found, rows = table.found, table.rows
    yield from map(_lost_note, _lost(found))
    if not any(row.outcomes["finished"] for row in rows):
        yield f"no run gave a figure; the metric is '{found.study.metric.pattern}'"
    if len(found.study.seeds) > 1 and not found.study.takes_seed:
        yield f"the command has no {SEED}: seeds only change the noise of stochastic rounding"
    if found.changed:
        yield "the script has changed since the study began: its runs are not all of one script"
    threads = {result.ended.threads for result in found.results}
    if len(threads) > 1:
        shown = ", ".join(sorted(each or "unset" for each in threads))
        yield f"runs differ in {THREADS} ({shown}), so that their last bits may, too"
    if any(row.moved.traffic_bytes is not None for row in rows):
        yield (
            "a step: bytes moved by the recorded tensors in a step after the first; static: no "
            "tensor but weights is looked at before it is quantized"
        )


def _lost(found: StudyResults) -> list[tuple[Result, int]]:
    """The first run of each recipe, outcome and reason that has no figure, and how many like it."""
    lost = [result for result in found.results if result.outcome != "finished"]
    alike = Counter(map(_kind, lost))
    first = {_kind(result): result for result in reversed(lost)}
    return [(first[kind], count) for kind, count in alike.items()]


def _kind(result: Result) -> tuple[str, str, str]:
    return result.run.recipe.key, result.outcome, result.reason


def _lost_note(lost: tuple[Result, int]) -> str:
    result, count = lost
    run, more = result.run, f", and {counted(count - 1, 'more seed')}" if count > 1 else ""
    how = result.outcome.replace("-", " ")
    return f"{run.recipe.name}, seed {run.seed}{more} {how}: {result.reason} ({run.place})"
