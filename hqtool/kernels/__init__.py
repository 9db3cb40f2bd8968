"""Fused loops over the values of an array: a plain form in numpy, and a compiled one.

The plain form is the oracle and works everywhere. The compiled form (`_compiled.c`) is built at
installation where a C compiler is. `python -m hqtool.kernels` tells which form is in use and why;
the environment variable HQTOOL_KERNELS=plain or =compiled chooses.

C rather than numba: numba takes 0.3 s to import and 200 MB on disk, in every process that captures
or trains, and does not vectorise these loops over floats as written plainly.
"""

from hqtool.kernels.dispatch import array_sums, lane_sums, quantized, uniform
from hqtool.kernels.form import Form, form_in_use
from hqtool.kernels.grid import Grid
from hqtool.kernels.lanes import LaneGaps, LaneSums
from hqtool.kernels.noise import NoiseKey
from hqtool.kernels.sums import ArraySums

__all__ = [
    "ArraySums",
    "Form",
    "Grid",
    "LaneGaps",
    "LaneSums",
    "NoiseKey",
    "array_sums",
    "form_in_use",
    "lane_sums",
    "quantized",
    "uniform",
]
