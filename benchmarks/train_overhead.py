"""How much slower is training that is quantized, by hqtool and by torch alone?

    python -m benchmarks.train_overhead [--rounds N]

Trains ResNet-18 on images of noise, some steps at a time: plain, under `hqtool.train` with the
recipe paper-w8a8g8, and quantized by its peers, in turns. A narrow one shows short steps.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

import hqtool
from benchmarks.quantized_peers import (
    eager,
    eager_stochastic,
    fused,
    prepared_by_torch_ao,
    with_hooks,
)
from benchmarks.resnet import SIZES, network, training
from benchmarks.turns import Contender, described, in_turns, table
from hqtool.recipes.named import recipe_text
from hqtool.recipes.recipe import Recipe
from hqtool.recipes.recipe_file import parse_recipe

RECIPE = "paper-w8a8g8"

#: Steps in a turn.
STEPS = 6


def nearest() -> Recipe:
    """The recipe with its gradients rounded to nearest."""
    return parse_recipe(recipe_text(RECIPE).replace("/stochastic", ""), "nearest")


def contenders(width: int, batch_size: int) -> dict[str, Contender]:
    """Plain training first; each peer trains a model of its own."""
    torch.manual_seed(0)
    model = network(width)
    step = training(model, batch_size)

    def under(recipe: str | Recipe, *, writes: bool) -> Contender:
        def within(path: Path) -> Any:
            return hqtool.train(model, recipe, path if writes else None)

        return Contender(step, within)

    def peer(model: nn.Module) -> Contender:
        return Contender(training(model, batch_size))

    plain = copy.deepcopy(model)
    return {
        "plain": Contender(step),
        "`hqtool train`, gradients nearest": under(nearest(), writes=False),
        "nearest, with RUN.h5": under(nearest(), writes=True),
        "`hqtool train`, gradients stochastic": under(RECIPE, writes=False),
        "stochastic, with RUN.h5": under(RECIPE, writes=True),
        "hooks, torch operations, nearest": peer(with_hooks(plain, eager, eager)),
        "hooks, torch operations, gradients stochastic": peer(
            with_hooks(plain, eager, eager_stochastic)
        ),
        "hooks, `fake_quantize_per_tensor_affine`": peer(with_hooks(plain, fused, fused)),
        "torch.ao's QAT-prepared model (no gradients)": peer(prepared_by_torch_ao(plain)),
    }


def run(rounds: int = 12) -> str:
    """All of it, as Markdown.

    Args:
        rounds: how often each contender has its turn.
    """
    return "\n\n".join(parts(rounds))


def parts(rounds: int) -> Iterator[str]:
    """The same, one network after the other."""
    return (_part(rounds, *size) for size in SIZES)


def _part(rounds: int, width: int, batch_size: int) -> str:
    measured = in_turns(contenders(width, batch_size), rounds, STEPS, statistics.median)
    sort = f"{width} channels, batches of {batch_size} of 32×32 images"
    text = f"ResNet-18, 21 quantized layers, {sort}; {described(measured, STEPS)}"
    return "\n".join([text, "", *table(measured, STEPS)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=12)
    for part in parts(parser.parse_args().rounds):
        print(part, end="\n\n", flush=True)


if __name__ == "__main__":
    main()
