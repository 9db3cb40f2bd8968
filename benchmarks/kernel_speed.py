"""How fast are the kernels on one tensor?

    python -m benchmarks.kernel_speed [--rounds N]

One tensor of 1 Mi float32 values. The contenders take turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from hqtool.capture.tensors import stats_of_tensor
from hqtool.core.formats.named import FORMATS
from hqtool.kernels import NoiseKey, form_in_use, uniform
from hqtool.kernels.noise import plain_uniform
from hqtool.training.tensors.quantizing import Axes, quantized, quantized_in_torch
from hqtool.vocab import Range

VALUES = 1 << 20
KEY = NoiseKey(1, 2)

#: Holds all values, all but about 1 of 370.
WIDE, NARROW = Range(-6.0, 6.0), Range(-3.0, 3.0)

Work = Callable[[], object]


def contenders(x: Tensor) -> dict[str, dict[str, Work]]:
    """Table → what is measured."""
    return {"noise": noises(), "quantizing": torches(x) | kernels(x)}


def noises() -> dict[str, Work]:
    generator = np.random.Generator(np.random.Philox(key=1))
    out = np.empty(VALUES, np.float32)
    return {
        "`torch.rand`": lambda: torch.rand(VALUES),
        "numpy's Philox, float32": lambda: generator.random(VALUES, np.float32),
        "keyed noise": lambda: uniform(KEY, VALUES),
        "keyed noise, plain form in numpy": lambda: plain_uniform(out, KEY, 0),
    }


def torches(x: Tensor) -> dict[str, Work]:
    """What PyTorch has, and quantizing by its plain operations."""
    step = 12.0 / 255
    plain = {
        f"{name}, {rounding}, plain torch": in_torch(x, name, key)
        for name in ("int8", "e4m3")
        for rounding, key in (("nearest", None), ("stochastic with the keyed noise", KEY))
    }
    return {
        "copying by torch": lambda: x.clone(),
        "`torch.aminmax`": x.aminmax,
        "`torch.fake_quantize_per_tensor_affine`": lambda: torch.fake_quantize_per_tensor_affine(
            x, step, 0, -128, 127
        ),
        "int8, stochastic with `torch.rand`, plain torch": lambda: (
            (x / step).add_(torch.rand(VALUES)).floor_().clamp_(-128, 127).mul_(step)
        ),
        **plain,
    }


def in_torch(x: Tensor, name: str, key: NoiseKey | None) -> Work:
    """As training does it without the compiled kernels."""
    format_, stats = FORMATS.parse(name).value, stats_of_tensor(x)
    return lambda: quantized_in_torch(x, format_, WIDE, Axes(-1), key, stats)


def kernels(x: Tensor) -> dict[str, Work]:
    stats = stats_of_tensor(x)
    found: dict[str, Work] = {"statistics": lambda: stats_of_tensor(x)}
    for name in ("int8", "e4m3"):
        for rounding, key in (("nearest", None), ("stochastic", KEY)):
            whole = f"{name}, {rounding}"
            found[whole] = quantizing(x, name, WIDE, key, stats)
            found[f"{whole}, and statistics"] = quantizing(x, name, WIDE, key, None)
            found[f"{whole}, and statistics, some clipped"] = quantizing(x, name, NARROW, key, None)
    half = x.bfloat16()
    found["int8, nearest, bfloat16"] = quantizing(half, "int8", WIDE, None, stats)
    found["int8, stochastic, bfloat16"] = quantizing(half, "int8", WIDE, KEY, stats)
    return found


def quantizing(x: Tensor, name: str, wanted: Range, *how: object) -> Work:
    format_ = FORMATS.parse(name).value
    return lambda: quantized(x, format_, wanted, Axes(-1), *how)  # type: ignore[arg-type]


def run(rounds: int = 41) -> str:
    """All of it, as Markdown."""
    threads = torch.get_num_threads()
    x = torch.randn(VALUES, generator=torch.Generator().manual_seed(0))
    lines = [
        f"Nanoseconds a value, of {VALUES:,} normal float32 values, in a new tensor each time. "
        f"What does not name torch are hqtool's kernels, in the {form_in_use().name} form, which "
        f"runs on one thread. Medians of {rounds} rounds.",
    ]
    for title, works in contenders(x).items():
        alone, all_threads = (_nanoseconds(works, rounds, number) for number in (1, threads))
        lines += ["", f"| {title} | torch on 1 thread | on {threads} |", "|---|---|---|"]
        lines += [f"| {name} | {alone[name]:.2f} | {all_threads[name]:.2f} |" for name in works]
    torch.set_num_threads(threads)
    return "\n".join(lines)


def _nanoseconds(works: Mapping[str, Work], rounds: int, threads: int) -> dict[str, float]:
    torch.set_num_threads(threads)
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds + 2):
        for name, work in works.items():
            work()  # the caches are as they are in a row of the same work
            began = time.perf_counter()
            work()
            taken[name].append(time.perf_counter() - began)
    return {name: 1e9 / VALUES * statistics.median(each[2:]) for name, each in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=41)
    print(run(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
