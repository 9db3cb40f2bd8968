from typing import Any

from numpy.typing import NDArray

VERSION: int

def array_sums(
    array: NDArray[Any], /
) -> tuple[float, float, float, int, float, float, int, int, int]: ...
