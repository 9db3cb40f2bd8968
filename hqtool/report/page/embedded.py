"""A site's picture as it is embedded: numbers as few digits as the charts can show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqtool.display import harmless
from hqtool.estimators.quantizer import Quantizer
from hqtool.report.model import percent
from hqtool.report.page.histogram import LINEAR_SHARE
from hqtool.report.page.material import Material
from hqtool.report.page.picture import SitePicture
from hqtool.report.page.section import rounded
from hqtool.sizes import counted

#: The end of the axis, on which a value's position is kept as a whole number.
POSITIONS = 9999

#: At most so many ticks on either side of 0.
MOST_TICKS = 3


def embedded_sites(material: Material) -> list[dict[str, Any]]:
    """What the page's script knows of each site."""
    several = len({picture.run for picture in material.pictures}) > 1
    return [_site(each, material, several) for each in material.pictures]


def _site(picture: SitePicture, material: Material, several: bool) -> dict[str, Any]:
    unit = _unit(picture)
    run = f"{material.runs[picture.run].path}: " if several else ""
    return {
        "label": harmless(picture.site.layer),
        "group": harmless(run + picture.site.tensor),
        "facts": {
            "unit": unit,
            "ticks": _ticks(picture, unit),
            "levels": f"levels of {picture.levels_of}",
            "summary": summary_of(picture),
        },
        "data": {
            "steps": {
                "step": picture.seen.steps["step"].tolist(),
                **{name: _positions(picture.seen.steps[name], unit) for name in ("min", "max")},
            },
            "ranges": _ranges(picture, unit),
            "histogram": _histogram(picture),
            "levels": {"level": [rounded(level, 4) for level in picture.levels]},
            "errors": _errors(picture, material.drawn),
        },
    }


def summary_of(picture: SitePicture) -> str:
    """How much of the site is drawn, and how often values lay outside each range."""
    shown = len(picture.seen.steps["step"])
    some = "all" if shown == picture.seen.records else f"{shown:,} of"
    drawn = f"Drawn: {some} {counted(picture.seen.records, 'record')}."
    outside = ", ".join(f"{name} {percent(share)}" for name, share in picture.seen.outside.items())
    return (
        f"{drawn} Records with values outside the range asked for: {outside}." if outside else drawn
    )


def _unit(picture: SitePicture) -> float:
    """Magnitude below which axes of this site are linear."""
    ends = picture.seen.range or (0.0, 0.0)
    known = [
        picture.seen.steps[name] for name in picture.seen.steps if name.startswith(("lo ", "hi "))
    ]
    largest = max(map(abs, ends), default=0.0)
    for column in known:
        finite = np.abs(column[np.isfinite(column)])
        largest = max(largest, float(finite.max(initial=0.0)))
    return float(f"{largest * LINEAR_SHARE:.3g}") or 1.0


def _ticks(picture: SitePicture, unit: float) -> list[float]:
    """Powers of ten and 0, a few, on an axis that is linear below `unit`."""
    top = math.floor(math.log10(unit / LINEAR_SHARE))
    exponents = [top - i for i in range(MOST_TICKS)]
    positive = [float(f"1e{e}") for e in reversed(exponents)]
    return [*(-tick for tick in reversed(positive)), 0.0, *positive]


def _positions(values: NDArray[np.float64], unit: float) -> dict[str, Any]:
    """Values by their whole-numbered position on the symmetric logarithmic axis."""
    step = rounded(math.asinh(4 / LINEAR_SHARE) / POSITIONS, 8)
    with np.errstate(invalid="ignore"):
        places = np.rint(np.arcsinh(values / unit) / step)
    numbers = [None if math.isnan(place) else int(place) for place in places.tolist()]
    return {"unit": unit, "step": step, "n": numbers}


def _ranges(picture: SitePicture, unit: float) -> dict[str, Any]:
    """A row for each step and estimator."""
    names = [name.removeprefix("lo ") for name in picture.seen.steps if name.startswith("lo ")]
    columns = {
        end: [_positions(picture.seen.steps[f"{end} {name}"], unit) for name in names]
        for end in ("lo", "hi")
    }
    flags = {
        flag: [_flags(picture.seen.steps[f"{flag} {name}"]) for name in names]
        for flag in ("looked", "outside")
    }
    return {
        "beside": "steps",
        "series": {"by": "estimator", "names": names, "columns": columns | flags},
    }


def _flags(values: NDArray[np.bool_]) -> dict[str, str]:
    """A character a record: 0 or 1."""
    return {"flags": "".join("01"[int(value)] for value in values)}


def _histogram(picture: SitePicture) -> dict[str, Any]:
    found = picture.seen.histogram
    if found is None:
        return {"from": [], "to": [], "share": []}
    bins = len(found.shares)
    shares = [rounded(share, 3) for share in found.shares.tolist()]
    edges = {"unit": rounded(found.unit, 5), "step": rounded(found.width / 2), "count": bins}
    return {
        "from": {**edges, "start": -bins},
        "to": {**edges, "start": 2 - bins},
        "share": shares,
    }


def _errors(picture: SitePicture, drawn: Sequence[Quantizer]) -> dict[str, Any]:
    """A row for each scored record and quantizer."""
    columns = [
        [None if math.isnan(db) else rounded(db, 4) for db in row.tolist()]
        for row in picture.scored.sqnr_db
    ]
    return {
        "step": picture.scored.steps.tolist(),
        "series": {
            "by": "quantizer",
            "names": [each.label for each in drawn],
            "columns": {"sqnr_db": columns},
        },
    }
