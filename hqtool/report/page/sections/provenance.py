"""Provenance: how all this was made, and what it does not tell."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np

from hqtool.report.compared.notes import notes_on
from hqtool.report.page.markup import Content, element, facts, folded, joined, listed
from hqtool.report.page.material import Material
from hqtool.report.page.section import Section
from hqtool.report.recommendation_report import recommendation_report
from hqtool.sizes import binary_bytes
from hqtool.version import __version__


def provenance(material: Material) -> Section:
    """From everything that was given."""
    parts: list[Content] = [facts("This page", dict(_facts(material)))]
    notes = list(dict.fromkeys(_notes(material)))
    if notes:
        parts += [element("h3", "What these figures do not tell"), listed(notes)]
    parts += [facts(run.path, run.facts) for run in material.runs]
    for study in material.studies:
        known = study["study"]
        noted = {
            "file": known["path"],
            "command": " ".join(known["command"]),
            "metric": known["metric"],
            "seeds": " ".join(map(str, known["seeds"])),
            "baseline": known["baseline"],
            "trace": known["trace"] or "none",
        }
        parts.append(facts("Study", noted))
    return Section("provenance", "Provenance", parts)


def _facts(material: Material) -> Iterator[tuple[str, str]]:
    yield "command", material.command
    versions = f"hqtool {__version__}, numpy {np.__version__}"
    yield "made with", f"{versions}, Python {sys.version.split()[0]}"
    if (comparison := material.comparison) is None:
        return
    settings, selection = comparison.settings, comparison.selection
    chosen = " (this command's default set)" if material.chosen_here else ""
    yield "quantizers", ", ".join(q.label for q in settings.quantizers) + chosen
    if settings.recipes:
        yield "recipes", ", ".join(recipe.name for recipe in settings.recipes)
    if (found := material.recommendation) is not None:
        yield "good enough", " and ".join(each.label for each in found.question.conditions)
    yield "calibration", f"the first {settings.calibrate} steps" if settings.calibrate else "none"
    yield "seed", str(settings.seed)
    yield "loss scale", settings.loss_scale
    yield "buffer", binary_bytes(settings.buffer_bytes)
    yield "layers", ", ".join(selection.layers) or "all"
    yield "tensor kinds", ", ".join(selection.tensors) or "all recorded"


def _notes(material: Material) -> Iterator[str]:
    if material.recommendation is not None:
        yield from recommendation_report(material.recommendation).notes
    elif material.comparison is not None:
        yield from notes_on(material.comparison)
    for run in material.runs:
        yield from run.notes


def licences(text: str) -> Content:
    """The licences of what the page contains."""
    return folded("Licences of the charting library", joined([element("pre", text)]))
