"""What is trained: four models, each under the same settings, as studies of hqtool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent

#: Model → the command that trains it, in this folder.
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "residual": ("images.py", "--model", "residual"),
    "depthwise": ("images.py", "--model", "depthwise"),
    "plain": ("images.py", "--model", "plain"),
    "transformer": ("text.py",),
}

BASELINE = "none"

#: 8 bits, as in the paper, and the widths where methods part.
BITS = (8, 4, 3, 2)

#: The paper's estimators, by the names of its tables.
ESTIMATORS: Mapping[str, str] = {
    "current": "Current min-max",
    "running": "Running min-max",
    "dsgc": "DSGC",
    "hindsight": "In-hindsight min-max",
}

#: Other projects' recipes, and block formats.
OTHERS = ("te-delayed", "te-current", "mxfp8", "nvfp4", "nvfp4-hindsight")

#: What a training starts from where its ranges are calibrated first (section 5.2).
CALIBRATION_STEPS = 4

Quantizers = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to train.

    Args:
        name: unique.
        table: `1`, `2` and `3` are the paper's; `momentum`, `calibration` and `others` are not.
        bits: of gradients and activations; None of recipes with their own.
        recipe: quantizers for all layers, or the name of one of hqtool's recipes.
    """

    name: str
    table: str
    bits: int | None
    recipe: Quantizers | str


def settings() -> list[Setting]:
    """All of them, the baseline first; those calibrated are in `calibrated`."""
    found = [Setting(BASELINE, "", None, BASELINE)]
    for bits in BITS:
        found += _table_1(bits) + _table_2(bits) + _table_3(bits)
    found += [_momentum(bits, eta) for bits in (8, 4) for eta in ("0", "0.5", "0.99")]
    return found + [Setting(name, "others", None, name) for name in OTHERS]


def calibrated() -> list[Setting]:
    """As in `settings`, with ranges calibrated before training; the baseline first."""
    w8, w4 = (w_a_g("hindsight", "hindsight", bits) for bits in (8, 4))
    return [
        Setting(BASELINE, "", None, BASELINE),
        Setting("w8a8g8-hindsight-calibrated", "calibration", 8, w8),
        Setting("w4a4g4-hindsight-calibrated", "calibration", 4, w4),
    ]


def w_a_g(gradients: str, activations: str, bits: int) -> Quantizers:
    """Weights by current min-max, activations and gradients by an estimator each (table 3)."""
    return {
        "weight": f"current@int{bits}",
        "output": f"{activations}@int{bits}",
        "grad_input": f"{gradients}@int{bits}/stochastic",
    }


def _table_1(bits: int) -> list[Setting]:
    """Gradients alone, asymmetric, rounded stochastically."""
    return [
        Setting(f"g{bits}-{name}", "1", bits, {"grad_input": f"{name}@int{bits}/stochastic"})
        for name in ESTIMATORS
    ]


def _table_2(bits: int) -> list[Setting]:
    """Activations alone, asymmetric."""
    return [
        Setting(f"a{bits}-{name}", "2", bits, {"output": f"{name}@int{bits}"})
        for name in ESTIMATORS
    ]


def _table_3(bits: int) -> list[Setting]:
    """Everything, by the paper's pairs: DSGC's authors take activations' current min-max."""
    return [
        Setting(
            f"w{bits}a{bits}g{bits}-{name}",
            "3",
            bits,
            w_a_g(name, "current" if name == "dsgc" else name, bits),
        )
        for name in ESTIMATORS
    ]


def _momentum(bits: int, eta: str) -> Setting:
    hindsight = f"hindsight:momentum={eta}"
    name = f"w{bits}a{bits}g{bits}-momentum-{eta}"
    return Setting(name, "momentum", bits, w_a_g(hindsight, hindsight, bits))


def study_text(
    model: str, chosen: Sequence[Setting], seeds: Sequence[int], calibrate: int = 0
) -> str:
    """A study file of hqtool that trains a model under the settings."""
    command = [str(HERE / COMMANDS[model][0]), *COMMANDS[model][1:], "--seed", "{seed}"]
    lines = [
        'schema = "hqtool.study/1"',
        f"command = {_array(command)}",
        "metric = 'accuracy: ([0-9.]+)'",
        f"seeds = {list(seeds)}",
        f"calibrate = {calibrate}" if calibrate else "",
        "recipes = [",
        *(f"    {_recipe(each)}," for each in chosen),
        "]",
    ]
    return "\n".join(filter(None, lines)) + "\n"


def _recipe(setting: Setting) -> str:
    if isinstance(setting.recipe, str):
        return f'"{setting.recipe}"'
    pairs = {"name": setting.name, **setting.recipe}
    return "{" + ", ".join(f'{key} = "{value}"' for key, value in pairs.items()) + "}"


def _array(words: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{word}"' for word in words) + "]"
