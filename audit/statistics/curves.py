"""Curves for drawing: a pointwise band, and as few points as the eye needs."""

import math

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.counts import RocCounts
from mnemoscope.audit.statistics.proportions import clopper_pearson_limits

__all__ = ["log_axes", "roc_band", "thin_curve"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def roc_band(counts: RocCounts, level: float = 0.95) -> tuple[Floats, Floats]:
    """Pointwise Clopper-Pearson limits of the TPR at each threshold, (b + 1,) each: describes one model's curve."""
    return clopper_pearson_limits(counts.tp, np.full(counts.tp.size, counts.n_in), level)


def thin_curve(counts: RocCounts, tolerance: float = 0.01) -> Ints:
    """Choose points so that straight lines between them stay close to the whole curve as drawn on log-log axes.

    Both axes are log10 with zero drawn at half a record, so an error of 0.01 is a hundredth of a decade: where a decade
    takes 3 cm, 0.3 mm, less than a line's width.

    Args:
        counts: the whole curve.
        tolerance: largest distance, in decades, from any dropped point to the drawn line.

    Returns:
        (p,) int64 ascending indices into ``counts``, the first and the last included.
    """
    if not tolerance > 0:
        raise InvalidInput(f"tolerance={tolerance!r} must be positive, in decades")
    x, y = log_axes(counts)
    # Buckets first, from a million points to some thousands. The first and last point of a run in one bucket stay, and
    # a rising curve stays in the box between them: at most side / sqrt(2) from its diagonal. The lines then add at
    # most one side: 1.71 sides = 0.86 tolerance.
    side = tolerance / 2
    bucket_x, bucket_y = np.floor(x / side), np.floor(y / side)
    change = np.flatnonzero((bucket_x[1:] != bucket_x[:-1]) | (bucket_y[1:] != bucket_y[:-1]))
    keep = np.unique(np.concatenate([[0], change, change + 1, [x.size - 1]]))
    return keep[_simplify(x[keep], y[keep], side)]


def log_axes(counts: RocCounts) -> tuple[Floats, Floats]:
    """Log10 of both rates, zero drawn at half a record."""
    return (
        np.log10(np.maximum(counts.fp, 0.5) / counts.n_out),
        np.log10(np.maximum(counts.tp, 0.5) / counts.n_in),
    )


def _simplify(x: Floats, y: Floats, tolerance: float) -> Ints:
    """Ramer, Douglas and Peucker's line simplification without recursion; distance to the chord."""
    keep = np.zeros(x.size, np.bool_)
    keep[[0, -1]] = True
    stack = [(0, x.size - 1)]
    while stack:
        first, last = stack.pop()
        if last - first < 2:
            continue
        dx, dy = x[last] - x[first], y[last] - y[first]
        length = math.hypot(dx, dy)
        inner = slice(first + 1, last)
        across = np.abs(dx * (y[inner] - y[first]) - dy * (x[inner] - x[first]))
        distance = across / length if length > 0 else np.hypot(x[inner] - x[first], y[inner] - y[first])
        worst = int(np.argmax(distance))
        if distance[worst] > tolerance:
            middle = first + 1 + worst
            keep[middle] = True
            stack += [(first, middle), (middle, last)]
    return np.flatnonzero(keep)
