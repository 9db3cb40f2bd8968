"""The answer: what is recommended, what it costs, what may go wrong, what to type next."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Iterator

from hqtool.compare.recommending.choosing import SiteChoice
from hqtool.compare.recommending.outcomes import NONE
from hqtool.compare.recommending.recommendation import Recommendation
from hqtool.report.model import EXACT
from hqtool.report.page.markup import Content, command, element, folded, joined, listed, table
from hqtool.report.page.material import NOTHING_SCORED, Material
from hqtool.report.page.section import Section
from hqtool.report.recommendation_report import recommendation_report
from hqtool.sizes import binary_bytes, counted
from hqtool.vocab import TENSOR_KINDS

#: Figures as a sentence names them.
WORDS = {"sqnr_db": "mean SQNR", "cosine": "mean cosine"}

#: So many layers are named one by one.
MOST_NAMED = 4


def answer(material: Material) -> Section:
    """From the recommendation; without one, what the page is of."""
    found = material.recommendation
    parts = list(_recommended(found, material)) if found else [_without(material)]
    return Section("answer", "The answer", [*parts, *_commands(material)])


def _without(material: Material) -> Content:
    if material.comparison is not None:
        text = "Whole recipes were compared, no quantizers by themselves: the next section shows "
        return element("p", text + "which costs how much.")
    if material.studies:
        return element("p", "A study was given, and no trace: its table is below.")
    return element("p", "Nothing was replayed, so no quantizer is recommended.")


def _recommended(found: Recommendation, material: Material) -> Iterator[Content]:
    if not any(choice.scored for choice in found.sites):
        yield element("p", f"{NOTHING_SCORED} So nothing is recommended.", class_="lead")
        return
    report = recommendation_report(found)
    yield element("p", _wanted(found), class_="lead")
    yield listed(_kinds(found), class_="choice")
    yield element("p", element("b", "Cost. "), report.closing)
    yield element("p", element("b", "Risk. "), " ".join(_risks(found)))
    totals = [each for each in report.tables if each.columns[0].key == "choice"]
    of_kinds = [each for each in report.tables if each.columns[0].key == "quantizer"]
    yield joined(map(table, totals))
    yield element("p", _front(found), class_="note")
    yield folded("Why these: each candidate at each tensor kind", *map(table, of_kinds))


def _wanted(found: Recommendation) -> str:
    labels = (condition.label for condition in found.question.conditions)
    wanted = " and ".join(labels).replace(">=", " ≥ ").replace("<=", " ≤ ")
    sites = counted(len(found.sites), "site")
    count = counted(len(found.question.candidates), "quantizer")
    return f"The cheapest of {count} with {wanted}, chosen for each of {sites}:"


def _front(found: Recommendation) -> str:
    by = WORDS.get(found.question.judged_by, found.question.judged_by)
    return (
        "On the front: no other choice moves as few bytes and is better, or fewer and is as good, "
        f"by {by}, on which the target was set. The chart “Accuracy × traffic” has a front of its "
        "own for each quality it shows."
    )


def _kinds(found: Recommendation) -> Iterator[Content]:
    """What the sites of each tensor kind get, the commonest first."""
    for kind in TENSOR_KINDS:
        choices = [choice for choice in found.sites if choice.site.tensor == kind]
        counts = Counter(choice.chosen.quantizer for choice in choices)
        if choices:
            words = [_at(label, n, choices) for label, n in counts.most_common()]
            yield joined([element("b", kind), ": ", joined(words, ", ")])


def _at(label: str, count: int, choices: list[SiteChoice]) -> Content:
    name = "left unquantized" if label == NONE else label
    if count == len(choices):
        return joined([element("code", name), f" at all {count}" if count > 1 else ""])
    layers = [choice.site.layer for choice in choices if choice.chosen.quantizer == label]
    where = ", ".join(layers) if count <= MOST_NAMED else f"{count} of {len(choices)} layers"
    return joined([element("code", name), f" at {where}"])


def _risks(found: Recommendation) -> Iterator[str]:
    """The worst site, the worst tenth of its records, what could not be judged."""
    quantized = [c for c in found.sites if c.chosen.quantizer != NONE and c.chosen.scored]
    if not quantized:
        yield "Nothing would be quantized."
        return
    worst = min(quantized, key=lambda choice: choice.chosen.quality)
    yield f"Worst off is {worst.site} with {worst.chosen.quantizer}, {_quality(worst)}."
    clipped = max(quantized, key=lambda choice: choice.chosen.figure("saturation") or 0.0)
    if share := clipped.chosen.figure("saturation"):
        yield f"Most is clipped at {clipped.site}: {100 * share:.2g} % of the values."
    unscored = sum(not choice.scored for choice in found.sites)
    if unscored:
        yield f"At {counted(unscored, 'site')} nothing could be scored."
    yield (
        "A replay shows how well tensors are kept, not whether the network trains with them: "
        "hqtool train and hqtool study do."
    )


def _quality(choice: SiteChoice) -> str:
    db, low = choice.chosen.quality, choice.chosen.figure("sqnr_db_low")
    if math.isinf(db):
        return EXACT
    tail = "" if low is None else f" ({low:.1f} dB over the worst tenth of its records)"
    return f"an SQNR of {db:.1f} dB{tail}"


def _commands(material: Material) -> Iterator[Content]:
    yield joined([element("p", "This page was made with"), command(material.command)])
    lines = list(_next(material))
    if lines:
        yield joined([element("p", "Next:"), *map(command, lines)])


def _next(material: Material) -> Iterator[str]:
    found = material.recommendation
    if found is None or not any(choice.scored for choice in found.sites):
        return
    traces = [shlex.quote(facts.path) for facts in found.comparison.traces]
    targets = [f"--target {shlex.quote(each.label)}" for each in found.question.conditions]
    named = [f"--quantizer {shlex.quote(label)}" for label in found.question.labels]
    words = ["hqtool recommend", *traces, *targets, *named, "-o recipe.toml"]
    yield " ".join(words)
    yield f"hqtool train --recipe recipe.toml -- {_script(material)}"


def _script(material: Material) -> str:
    """The command that was recorded."""
    noted = [run.info.get("command") for run in material.runs]
    first = next((each for each in noted if each), None)
    if isinstance(first, list):
        return shlex.join(map(str, first))
    return str(first) if first else "train.py"


def bytes_in_words(amount: float | None) -> str:
    """Bytes with their unit; a dash where they are unknown."""
    return "–" if amount is None else binary_bytes(amount)
