from typing import Any

import numpy as np
from numpy.typing import NDArray

VERSION: int

_Sums = tuple[float, float, float, int, float, float, int, int, int]

def quantized(
    values: NDArray[Any],
    out: NDArray[Any],
    clipped: NDArray[Any] | None,
    grid: tuple[float, ...],
    key: tuple[int, int] | None,
    with_sums: bool,
    finite: bool,
    /,
) -> tuple[int, _Sums | None]: ...
def uniform(out: NDArray[Any], key: tuple[int, int], first: int, /) -> None: ...
def array_sums(array: NDArray[Any], /) -> _Sums: ...
def lane_sums(
    values: NDArray[Any],
    scale: NDArray[np.float64],
    lowest: NDArray[np.float64],
    highest: NDArray[np.float64],
    gaps: tuple[float, ...],
    expected: bool,
    /,
) -> tuple[float, float, float, float, float, float, float]: ...
