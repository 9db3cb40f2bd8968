from typing import Any

from numpy.typing import NDArray

VERSION: int

def quantized_nearest(
    values: NDArray[Any],
    out: NDArray[Any],
    clipped: NDArray[Any] | None,
    scale: float,
    first: float,
    last: float,
    lo: float,
    hi: float,
    /,
) -> int: ...
def array_sums(
    array: NDArray[Any], /
) -> tuple[float, float, float, int, float, float, int, int, int]: ...
