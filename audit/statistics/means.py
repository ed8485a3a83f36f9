"""Means and ratios of means with t intervals, for numbers that are no counts.

Source: Fieller 1954 (JRSS B 16:175) for the ratio of two means; its limits fail, and say so, where the denominator
could be zero.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.proportions import check_level
from mnemoscope.audit.statistics.trials import Estimate, Interval

__all__ = ["mean_estimate", "paired_ratio", "unpaired_ratio"]

Floats = NDArray[np.float64]


def mean_estimate(
    values: ArrayLike,
    *,
    of: str,
    level: float = 0.95,
    low: float = -math.inf,
    high: float = math.inf,
) -> Estimate:
    """Return the mean of independent values with a t interval, cut to [low, high].

    Args:
        values: (n,) finite numbers.
        of: what they are of, e.g. "models" or "records", for the reader.
        level: confidence.
        low: least value that the mean can have.
        high: greatest.

    Returns:
        No value without numbers; no interval for a single number or for numbers without any spread, because an interval
        of no width would claim to know the next one.

    >>> estimate = mean_estimate([1.0, 2.0, 3.0], of="models")
    >>> (estimate.value, round(estimate.low, 3), round(estimate.high, 3))
    (2.0, -0.484, 4.484)
    """
    check_level(level)
    x = _finite(values)
    if not x.size:
        return Estimate(None, n=0, reason=f"no {of}")
    value, n = float(x.mean()), int(x.size)
    if n < 2:
        return Estimate(value, n=n, reason=f"one of the {of} shows no spread: no interval")
    if x.min() == x.max():
        return Estimate(value, n=n, reason=f"all {n} {of} alike: no interval")
    half = float(stdtrit(n - 1, 0.5 + level / 2)) * float(x.std(ddof=1)) / n**0.5
    return Estimate(value, Interval(max(low, value - half), min(high, value + half), level, "two", f"t over {of}"), n=n)


def paired_ratio(above: ArrayLike, below: ArrayLike, *, of: str, level: float = 0.95) -> Estimate:
    """Return mean(above) / mean(below) of pairs with Fieller's limits.

    Args:
        above: (n,) finite numbers.
        below: (n,), of the same records in the same order.
        of: what a pair is, e.g. "records".
        level: confidence.

    Returns:
        No value where mean(below) is zero; no interval where it could be zero at this level, or without spread.
    """
    a, b = _finite(above), _finite(below)
    if a.shape != b.shape:
        raise InvalidInput(f"a ratio of pairs needs as many numbers above as below, given {a.size} and {b.size}")
    n = int(a.size)
    if n < 2:
        return _ratio(a, b, n, np.zeros((2, 2)), math.nan, of, level)
    return _ratio(a, b, n, np.cov(a, b) / n, n - 1, of, level)


def unpaired_ratio(above: ArrayLike, below: ArrayLike, *, of: str, level: float = 0.95) -> Estimate:
    """Return mean(above) / mean(below) of two independent samples with Fieller's limits, see ``paired_ratio``.

    Degrees of freedom are those of the smaller sample, which is at most too cautious.
    """
    a, b = _finite(above), _finite(below)
    least, n = int(min(a.size, b.size)), int(a.size + b.size)
    if least < 2:
        return _ratio(a, b, n, np.zeros((2, 2)), math.nan, of, level)
    return _ratio(a, b, n, np.diag([a.var(ddof=1) / a.size, b.var(ddof=1) / b.size]), least - 1, of, level)


def _finite(values: ArrayLike) -> Floats:
    x = np.asarray(values, np.float64)
    if x.ndim != 1 or not np.isfinite(x).all():
        raise InvalidInput(f"numbers to average must be finite and (n,); given shape {x.shape}")
    return x


def _ratio(a: Floats, b: Floats, n: int, cov: Floats, freedom: float, of: str, level: float) -> Estimate:
    check_level(level)
    if not a.size or not b.size:
        return Estimate(None, n=n, reason=f"no {of}")
    top, bottom = float(a.mean()), float(b.mean())
    if bottom == 0.0:
        return Estimate(None, n=n, reason="the denominator is zero")
    value = top / bottom
    if math.isnan(freedom) or not cov.any():
        return Estimate(value, n=n, reason=f"the {of} show no spread: no interval")
    t2 = float(stdtrit(freedom, 0.5 + level / 2)) ** 2
    # All ratios r with (top - r bottom)^2 <= t^2 Var(top - r bottom).
    square, cross, rest = (bottom**2 - t2 * cov[1, 1], top * bottom - t2 * cov[0, 1], top**2 - t2 * cov[0, 0])
    if square <= 0:
        return Estimate(value, n=n, reason="the denominator could be zero: no interval")
    root = math.sqrt(max(0.0, cross**2 - square * rest))
    limits = float((cross - root) / square), float((cross + root) / square)
    return Estimate(value, Interval(*limits, level, "two", f"Fieller over {of}"), n=n)
