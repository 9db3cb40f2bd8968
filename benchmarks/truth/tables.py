"""The tables of truth.md on what was trained, from the kept runs alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from benchmarks.truth.claims import CLAIMS, interval, reading
from benchmarks.truth.runs import Runs
from benchmarks.truth.settings import (
    BASELINE,
    BITS,
    ESTIMATORS,
    Setting,
    calibrated,
    settings,
)
from hqtool.study.figures import spread

#: Table → its heading, and the paper's accuracies on ResNet-18 and Tiny ImageNet at 8 bits.
PAPERS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "1": (
        "Table 1: gradients alone, asymmetric, rounded stochastically",
        {"": "58.97 ± 0.13", "current": "59.14 ± 0.23", "running": "59.25 ± 0.55",
         "dsgc": "59.35 ± 0.95", "hindsight": "59.46 ± 0.71"},
    ),
    "2": (
        "Table 2: activations alone, asymmetric",
        {"": "58.97 ± 0.13", "current": "59.00 ± 0.31", "running": "59.28 ± 0.25",
         "dsgc": "59.09 ± 0.01", "hindsight": "59.30 ± 0.19"},
    ),
    "3": (
        "Table 3: weights, activations and gradients (DSGC: of gradients; activations current)",
        {"": "58.97 ± 0.13", "current": "58.77 ± 0.73", "running": "59.20 ± 0.25",
         "dsgc": "59.07 ± 0.33", "hindsight": "58.99 ± 0.44"},
    ),
}  # fmt: skip

FURTHER = {
    "momentum": "Momentum of in-hindsight ranges (0.9 is in table 3)",
    "calibration": "Ranges calibrated before training (without: table 3)",
    "others": "Recipes of other projects, and block formats",
}


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def training_sections(runs: Runs) -> str:
    """All tables on what was trained."""
    tables = [_papers(number, runs) for number in PAPERS]
    further = [_further(table, runs) for table in FURTHER]
    return "\n\n".join([_claims(runs), *tables, *further])


def _claims(runs: Runs) -> str:
    head = ("the paper says", "where", *(f"{bits} bits" for bits in BITS))
    rows = [
        (claim.text, claim.source, *(reading(claim, bits, runs, runs.models) for bits in BITS))
        for claim in CLAIMS
    ]
    return f"### What held of the paper\n\n{markdown(head, rows)}"


def _papers(number: str, runs: Runs) -> str:
    """One of the paper's tables: a row for each width and estimator."""
    title, papers = PAPERS[number]
    head = ("bits", "method", "paper, 8 bits", *runs.models)
    rows = [("32", "FP32", papers[""], *(_alone(runs, model, BASELINE) for model in runs.models))]
    for each in settings():
        if each.table == number:
            estimator = each.name.rpartition("-")[2]
            paper = papers[estimator] if each.bits == 8 else ""
            cells = [_beside(runs, model, each.name) for model in runs.models]
            rows.append((str(each.bits), ESTIMATORS[estimator], paper, *cells))
    return f"### {title}\n\n{markdown(head, rows)}"


def _further(table: str, runs: Runs) -> str:
    chosen = [each for each in (*settings(), *calibrated()) if each.table == table]
    return f"### {FURTHER[table]}\n\n{settings_table(chosen, runs)}"


def settings_table(chosen: Sequence[Setting], runs: Runs) -> str:
    """A row for each setting, by its name."""
    rows = [
        (each.name, *(_beside(runs, model, each.name) for model in runs.models)) for each in chosen
    ]
    return markdown(("setting", *runs.models), rows)


def _alone(runs: Runs, model: str, setting: str) -> str:
    """Mean and standard deviation over seeds, and how many diverged."""
    found = spread(list(runs.accuracy.get((model, setting), {}).values()))
    if found.mean is None:
        return "–"
    std = "" if found.std is None else f" ± {found.std:.1f}"
    diverged = runs.diverged.get((model, setting), 0)
    return f"{found.mean:.1f}{std}" + (f" ({diverged} diverged)" if diverged else "")


def _beside(runs: Runs, model: str, setting: str) -> str:
    """The same, and in brackets the difference from full precision with its interval."""
    difference, pairs = runs.difference(setting, BASELINE, [model])
    alone = _alone(runs, model, setting)
    return f"{alone} [{interval(difference)}]" if pairs else alone
