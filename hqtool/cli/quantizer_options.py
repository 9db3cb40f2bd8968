"""The quantizers that a command line asks for: named as such, and products of their parts."""

from __future__ import annotations

from hqtool.cli.words import bit_widths
from hqtool.errors import UsageError
from hqtool.estimators.presets import DEFAULTS, ESTIMATORS
from hqtool.estimators.protocol import Estimator
from hqtool.estimators.quantizer import (
    NEAREST,
    Quantizer,
    product,
    roundings_of,
    sweep_formats,
    sweep_quantizers,
    unique,
)
from hqtool.registry import Choice

#: Scheme → what follows the name of a uniform format.
SCHEMES = {"asymmetric": "", "symmetric": "-symmetric"}


def quantizers_of(
    quantizers: tuple[str, ...],
    estimators: tuple[str, ...],
    formats: tuple[str, ...],
    roundings: tuple[str, ...],
    bits: tuple[str, ...],
    scheme: str | None,
    *,
    by_default: bool = True,
) -> tuple[Quantizer, ...]:
    """The quantizers given as such, and the product of estimators, formats and roundings.

    Of a product each part has a default; where only quantizers are given, there is no product.

    Args:
        by_default: where nothing is given, the product of the defaults.

    Raises:
        UsageError: a text is malformed, names something unknown, or does not go with the others.
    """
    named = [found for text in quantizers for found in sweep_quantizers(text)]
    if (quantizers or not by_default) and not (estimators or formats or bits):
        _require_no_more(roundings, scheme)
        return tuple(unique(named))
    texts = [*formats, *_uniform_formats(bits, scheme, formats)]
    multiplied = product(
        _estimators(estimators or DEFAULTS),
        [choice for text in texts for choice in sweep_formats(text)],
        roundings_of(roundings or [NEAREST]),
    )
    return tuple(unique([*named, *multiplied]))


def _require_no_more(roundings: tuple[str, ...], scheme: str | None) -> None:
    """Refuse what belongs to a product that there is not."""
    if roundings:
        remedy = f"write --quantizer ESTIMATOR@FORMAT/{roundings[0]}"
        raise UsageError("--rounding is for --estimator and --format", remedy)
    if scheme is not None:
        remedy = f"write --quantizer ESTIMATOR@int8{SCHEMES[scheme]}"
        raise UsageError("--scheme is for --bits", remedy)


def _estimators(texts: tuple[str, ...]) -> list[Choice[Estimator]]:
    """Every estimator that the specs spell out, each once."""
    choices = [choice for text in texts for choice in ESTIMATORS.sweep(text)]
    return list({choice.label: choice for choice in choices}.values())


def _uniform_formats(
    bits: tuple[str, ...], scheme: str | None, formats: tuple[str, ...]
) -> list[str]:
    """The formats that `--bits` and `--scheme` stand for; by default one, unless others are given.

    Raises:
        UsageError: bit-widths out of bounds, or a scheme for other formats.
    """
    if formats and not bits:
        if scheme is not None:
            raise UsageError("--scheme is for --bits", f"write --format int8{SCHEMES[scheme]}")
        return []
    suffix = SCHEMES[scheme or "asymmetric"]
    return [f"int{each}{suffix}" for each in bit_widths(bits or ("8",))]
