"""Intervals for one rate from its counts, and the one way in which a rate leaves this package.

Sources: Clopper and Pearson 1934 (Biometrika 26:404); Wilson 1927 (JASA 22:209); Brown, Cai and DasGupta 2001
(Statistical Science 16:101) for Jeffreys' interval and its ends at zero and at n events.
"""

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv, ndtri

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.trials import Estimate, Interval

__all__ = [
    "Sides",
    "check_counts",
    "check_level",
    "clopper_pearson",
    "clopper_pearson_limits",
    "jeffreys",
    "rate",
    "tail_share",
    "wilson",
]

Floats = NDArray[np.float64]
Sides = Literal["two", "lower", "upper"]


def check_level(level: float) -> None:
    """Raise ``InvalidInput`` unless a confidence level lies strictly between 0 and 1."""
    if not 0.0 < level < 1.0:
        raise InvalidInput(f"level={level!r} must lie strictly between 0 and 1, e.g. 0.95")


def tail_share(level: float, sides: Sides) -> float:
    """Return the error allowed in one tail: half of 1 - level for two sides, all of it for one."""
    check_level(level)
    if sides not in ("two", "lower", "upper"):
        raise InvalidInput(f"sides={sides!r} must be 'two', 'lower' or 'upper'")
    return (1.0 - level) / 2.0 if sides == "two" else 1.0 - level


def check_counts(k: float, n: float) -> None:
    """Raise ``InvalidInput`` unless 0 <= k <= n."""
    if not (math.isfinite(k) and math.isfinite(n) and 0 <= k <= n):
        raise InvalidInput(f"k={k!r} events of n={n!r} trials: 0 <= k <= n must hold")


def beta_limits(k: ArrayLike, n: ArrayLike, tail: float, half: float) -> tuple[Floats, Floats]:
    """Beta quantiles at both tails: ``half`` 0 gives Clopper and Pearson's limits, 1/2 Jeffreys', of real counts."""
    events, trials = np.broadcast_arrays(np.asarray(k, np.float64), np.asarray(n, np.float64))
    if not (np.isfinite(events).all() and np.isfinite(trials).all() and ((events >= 0) & (events <= trials)).all()):
        raise InvalidInput("k events of n trials: 0 <= k <= n must hold for every pair")
    misses = trials - events
    other = 1.0 - half
    # Placeholder parameters where a limit is fixed: betaincinv is undefined at a zero parameter.
    low = betaincinv(np.where(events > 0, events + half, 1.0), np.where(events > 0, misses + other, 1.0), tail)
    high = betaincinv(np.where(misses > 0, events + other, 1.0), np.where(misses > 0, misses + half, 1.0), 1.0 - tail)
    return np.where(events > 0, low, 0.0), np.where(misses > 0, high, 1.0)


def clopper_pearson_limits(
    k: ArrayLike, n: ArrayLike, level: float = 0.95, sides: Sides = "two"
) -> tuple[Floats, Floats]:
    """Exact limits for many counts at once.

    Args:
        k: events, any shape; real numbers are allowed (effective counts of clustered samples).
        n: trials, broadcast against k; n = 0 gives (0, 1).
        level: confidence, e.g. 0.95.
        sides: "two", or the single limit wanted (the other is then 0 or 1).

    Returns:
        (lower, upper), float64 of the broadcast shape.

    Raises:
        InvalidInput: k outside [0, n], or a level or side that is unknown.
    """
    low, high = beta_limits(k, n, tail_share(level, sides), 0.0)
    if sides == "upper":
        low = np.zeros_like(low)
    if sides == "lower":
        high = np.ones_like(high)
    return low, high


def clopper_pearson(k: int, n: int, level: float = 0.95, sides: Sides = "two") -> Interval:
    """Exact interval or limit for k events of n; its coverage is never below the level.

    >>> ci = clopper_pearson(84, 1000)
    >>> (round(ci.lower, 7), round(ci.upper, 7))
    (0.0675527, 0.102943)
    """
    low, high = clopper_pearson_limits(k, n, level, sides)
    return Interval(float(low), float(high), level, sides, "Clopper-Pearson")


def jeffreys(k: int, n: int, level: float = 0.95, sides: Sides = "two") -> Interval:
    """Equal-tailed interval of the Beta(1/2, 1/2) posterior, 0 and 1 kept inside at k = 0 and k = n."""
    low, high = beta_limits(k, n, tail_share(level, sides), 0.5)
    return Interval(
        0.0 if sides == "upper" else float(low), 1.0 if sides == "lower" else float(high), level, sides, "Jeffreys"
    )


def wilson(k: int, n: int, level: float = 0.95, sides: Sides = "two") -> Interval:
    """Score interval; fine for plots, not for certificates (its coverage dips below the level)."""
    check_counts(k, n)
    if n == 0:
        return Interval(0.0, 1.0, level, sides, "Wilson")
    z = float(-ndtri(tail_share(level, sides)))
    p = k / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    low = 0.0 if sides == "upper" or k == 0 else max(0.0, centre - half)
    high = 1.0 if sides == "lower" or k == n else min(1.0, centre + half)
    return Interval(low, high, level, sides, "Wilson")


def rate(k: int, n: int, level: float = 0.95, sides: Sides = "two") -> Estimate:
    """Return k/n with its exact interval and counts; without a trial, no value but a reason."""
    check_counts(k, n)
    if n == 0:
        check_level(level)
        return Estimate(None, None, int(k), int(n), "no trial to count")
    return Estimate(k / n, clopper_pearson(k, n, level, sides), int(k), int(n))
