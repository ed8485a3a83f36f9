"""Where values lie among sorted ones; apart from ``counts``, for attacks are made without SciPy."""

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.blocks import over_blocks

__all__ = ["places"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PLACED = 20_000
"""Values that ``places`` sorts at a time."""

PLACING = 10
"""A value placed costs as much as so many that are only read."""


def places(ascending: Floats, values: Floats) -> Ints:
    """Count for each value the elements of ``ascending`` that lie strictly below it.

    Args:
        ascending: (z,) float64, sorted.
        values: (n,) float64 in any order.

    Returns:
        (n,) int64 in 0..z, ``np.searchsorted(ascending, values)``.
    """
    # Ascending needles walk through the sorted array once instead of missing the cache at every step; sorted in parts
    # that the cache holds.
    counts = np.empty(values.size, np.int64)

    def place(start: int) -> None:
        part = values[start : start + PLACED]
        order = np.argsort(part)
        counts[start : start + PLACED][order] = np.searchsorted(ascending, part[order], side="left")

    over_blocks(place, range(0, values.size, PLACED), values=PLACING * values.size)
    return counts
