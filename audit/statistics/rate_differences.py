"""Differences of two rates, with score intervals that hold at small counts.

Sources: Miettinen and Nurminen 1985 (Statistics in Medicine 4:213) for independent samples; Tango 1998 (Statistics in
Medicine 17:891) for pairs. Both invert a test whose variance is estimated under each hypothesised difference, so
neither collapses at zero events as Wald's interval does.
"""

import math
from collections.abc import Callable

from scipy.special import ndtri

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.proportions import Sides, check_counts, tail_share
from mnemoscope.audit.statistics.trials import Estimate, Interval

__all__ = ["difference_of_rates", "difference_score", "paired_difference_of_rates", "paired_difference_score"]

STEPS = 60
"""Bisection steps: 2 / 2**60 is below the spacing of doubles near 1."""


def _restricted(k1: int, n1: int, k2: int, n2: int, delta: float) -> tuple[float, float]:
    """Maximum-likelihood rates (p1, p2) under p1 - p2 = delta, by the closed form of the cubic."""
    n = n1 + n2
    l3 = float(n)
    l2 = (n1 + 2 * n2) * delta - n - (k1 + k2)
    l1 = (n2 * delta - n - 2 * k2) * delta + (k1 + k2)
    l0 = k2 * delta * (1 - delta)
    b = l2 / (3 * l3)
    q = b**3 - l1 * l2 / (6 * l3 * l3) + l0 / (2 * l3)
    p = math.copysign(math.sqrt(max(0.0, b * b - l1 / (3 * l3))), q if q != 0 else 1.0)
    ratio = 1.0 if p == 0 else min(1.0, max(-1.0, q / p**3))
    angle = (math.pi + math.acos(ratio)) / 3
    p2 = min(1.0, max(0.0, 2 * p * math.cos(angle) - b))
    p2 = min(max(p2, -delta), 1.0 - delta)
    return min(1.0, max(0.0, p2 + delta)), min(1.0, max(0.0, p2))


def difference_score(k1: int, n1: int, k2: int, n2: int, delta: float) -> float:
    """Standardised score of the hypothesis p1 - p2 = delta (Farrington and Manning 1990), large when it is exceeded.

    Args:
        k1: events of the first sample.
        n1: trials of the first sample.
        k2: events of the second sample.
        n2: trials of the second sample.
        delta: hypothesised difference in [-1, 1].

    Returns:
        A value that is about standard normal when the hypothesis holds; +-inf where it is impossible.
    """
    check_counts(k1, n1)
    check_counts(k2, n2)
    if not -1.0 <= delta <= 1.0:
        raise InvalidInput(f"delta={delta!r} must lie in [-1, 1]")
    if n1 == 0 or n2 == 0:
        raise InvalidInput(f"difference_score: both samples need trials, given n1={n1}, n2={n2}")
    p1, p2 = _restricted(k1, n1, k2, n2, delta)
    variance = (p1 * (1 - p1) / n1 + p2 * (1 - p2) / n2) * (n1 + n2) / (n1 + n2 - 1)
    gap = k1 / n1 - k2 / n2 - delta
    if abs(gap) < 1e-14:
        return 0.0
    return math.copysign(math.inf, gap) if variance <= 0 else gap / math.sqrt(variance)


def _invert(score: Callable[[float], float], value: float, z: float, lower: bool) -> float:
    """The delta at which a decreasing score equals z (lower limit) or -z (upper limit)."""
    inside, outside = value, -1.0 if lower else 1.0
    if abs(score(outside)) <= z:
        return outside
    for _ in range(STEPS):
        middle = (inside + outside) / 2
        if abs(score(middle)) <= z:
            inside = middle
        else:
            outside = middle
    return outside


def _interval(score: Callable[[float], float], value: float, level: float, sides: Sides, method: str) -> Interval:
    z = float(-ndtri(tail_share(level, sides)))
    low = -1.0 if sides == "upper" else _invert(score, value, z, lower=True)
    high = 1.0 if sides == "lower" else _invert(score, value, z, lower=False)
    return Interval(low, high, level, sides, method)


def difference_of_rates(k1: int, n1: int, k2: int, n2: int, level: float = 0.95, sides: Sides = "two") -> Estimate:
    """Difference k1/n1 - k2/n2 of two independent rates.

    Args:
        k1: events of the first sample.
        n1: trials of the first sample.
        k2: events of the second sample.
        n2: trials of the second sample.
        level: confidence.
        sides: "two", or the single limit wanted.

    Returns:
        The difference with Miettinen and Nurminen's interval; no value where a sample is empty.

    >>> estimate = difference_of_rates(9, 10, 3, 10)
    >>> (round(estimate.value, 3), round(estimate.low, 4), round(estimate.high, 4))
    (0.6, 0.17, 0.8406)
    """
    check_counts(k1, n1)
    check_counts(k2, n2)
    if n1 == 0 or n2 == 0:
        return Estimate(None, n=n1 + n2, reason="one of the two samples has no trial to count")
    value = k1 / n1 - k2 / n2
    interval = _interval(
        lambda delta: difference_score(k1, n1, k2, n2, delta), value, level, sides, "Miettinen-Nurminen score"
    )
    return Estimate(value, interval, n=n1 + n2)


def paired_difference_score(b: int, c: int, n: int, delta: float) -> float:
    """Tango's standardised score of p1 - p2 = delta for n pairs with b (1, 0) and c (0, 1) discordant ones."""
    gap = b - c - n * delta
    if abs(gap) < 1e-12:
        return 0.0
    linear = -b - c + (2 * n - b + c) * delta
    constant = -c * delta * (1 - delta)
    q21 = (math.sqrt(max(0.0, linear * linear - 8 * n * constant)) - linear) / (4 * n)
    variance = n * (2 * q21 + delta * (1 - delta))
    return math.copysign(math.inf, gap) if variance <= 0 else gap / math.sqrt(variance)


def paired_difference_of_rates(b: int, c: int, n: int, level: float = 0.95, sides: Sides = "two") -> Estimate:
    """Difference of two rates measured on the same n records.

    Args:
        b: records with the event only under the first condition.
        c: records with the event only under the second.
        n: all records.
        level: confidence.
        sides: "two", or the single limit wanted.

    Returns:
        (b - c)/n with Tango's score interval; no value for n = 0.
    """
    check_counts(b + c, n)
    if min(b, c) < 0:
        raise InvalidInput(f"b={b!r} and c={c!r} must not be negative")
    if n == 0:
        return Estimate(None, n=0, reason="no pair to count")
    value = (b - c) / n
    interval = _interval(
        lambda delta: paired_difference_score(b, c, n, delta), value, level, sides, "Tango score, paired"
    )
    return Estimate(value, interval, n=n)
