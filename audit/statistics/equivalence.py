"""Equivalence: two one-sided tests, never "not significantly different".

Sources: Schuirmann 1987 (Journal of Pharmacokinetics and Biopharmaceutics 15:657); Welch 1947 (Biometrika 34:28).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri, ndtr, ndtri, stdtr, stdtrit

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.trials import Interval

__all__ = ["Tost", "auc_equivalence_size", "models_per_arm", "tost", "tost_interval", "welch_tost"]


@dataclass(frozen=True)
class Tost:
    """Outcome of two one-sided tests.

    Attributes:
        equivalent: both tests reject at level q: the difference lies within the margin.
        p_value: the larger of the two one-sided p-values.
        difference: what was tested.
        interval: the 1 - 2 q interval; it lies inside the margin exactly when ``equivalent``.
        margin: the bound on the absolute difference.
        df: degrees of freedom, inf for a normal quantile.
    """

    equivalent: bool
    p_value: float
    difference: float
    interval: Interval
    margin: float
    df: float


def _check(margin: float, q: float) -> None:
    if not (margin > 0.0 and math.isfinite(margin)):
        raise InvalidInput(f"margin={margin!r} must be positive; set it before any result is known")
    if not 0.0 < q < 0.5:
        raise InvalidInput(f"q={q!r} must lie in (0, 0.5), e.g. 0.05")


def tost(difference: float, se: float, margin: float, q: float = 0.05, df: float | None = None) -> Tost:
    """Test whether a difference lies within +- margin.

    Args:
        difference: estimate.
        se: its standard error, 0 where nothing varies (then the difference itself decides).
        margin: positive bound, fixed beforehand.
        q: level of each one-sided test; the interval has level 1 - 2 q.
        df: degrees of freedom of a t distribution; None takes the normal one.

    >>> result = tost(0.01, 0.01, 0.05)
    >>> (result.equivalent, round(result.p_value, 6))
    (True, 3.2e-05)
    """
    _check(margin, q)
    if not (math.isfinite(difference) and se >= 0.0 and math.isfinite(se)):
        raise InvalidInput(f"difference={difference!r} must be finite and se={se!r} not negative")
    degrees = math.inf if df is None else df
    if not degrees > 0:
        raise InvalidInput(f"df={df!r} must be positive")
    quantile = float(ndtri(1.0 - q) if df is None else stdtrit(df, 1.0 - q))
    room = margin - abs(difference)
    # An infinite room in standard errors stands for a difference that does not vary.
    distance = room / se if se > 0.0 else math.copysign(math.inf, room)
    p = float(ndtr(-distance) if df is None else stdtr(df, -distance))
    half = quantile * se
    interval = Interval(difference - half, difference + half, 1.0 - 2.0 * q, "two", "1 - 2q interval of TOST")
    return Tost(p < q, p, difference, interval, margin, degrees)


def tost_interval(interval: Interval, margin: float, q: float = 0.05) -> bool:
    """Tell whether an interval of at least 1 - 2 q lies inside +- margin.

    Raises:
        InvalidInput: a one-sided limit, or a level too low to support the claim.
    """
    _check(margin, q)
    if interval.sides != "two" or interval.level < 1.0 - 2.0 * q - 1e-12:
        raise InvalidInput(
            f"equivalence at q={q} needs a two-sided interval of level {1 - 2 * q:g} or more, "
            f"given {interval.sides!r} at {interval.level:g}"
        )
    return -margin < interval.lower and interval.upper < margin


def welch_tost(a: NDArray[np.floating], b: NDArray[np.floating], margin: float, q: float = 0.05) -> Tost:
    """Test whether the means of two groups of models agree within +- margin (per-model accuracies, AUCs, losses).

    Args:
        a: (m_a,) one number a model, at least 2.
        b: (m_b,) one number a model, at least 2.
        margin: positive bound, fixed beforehand (e.g. two retrain-against-retrain standard deviations).
        q: level of each one-sided test.
    """
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if x.ndim != 1 or y.ndim != 1 or min(x.size, y.size) < 2 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InvalidInput(f"welch_tost: finite values of at least 2 models an arm, given {x.shape} and {y.shape}")
    vx, vy = float(x.var(ddof=1)) / x.size, float(y.var(ddof=1)) / y.size
    total = vx + vy
    df = total**2 / (vx**2 / (x.size - 1) + vy**2 / (y.size - 1)) if total > 0 else float(x.size + y.size - 2)
    return tost(float(x.mean() - y.mean()), math.sqrt(total), margin, q, df)


def auc_equivalence_size(margin: float, power: float = 0.8, q: float = 0.05) -> int:
    """Records on each side so that a true AUC of one half is shown to lie within 0.5 +- margin.

    n = (z_q + z_{power/2})^2 / (6 margin^2): the variance of an AUC of one half is 1 / (6 n).

    >>> auc_equivalence_size(0.02)
    3569
    """
    _check(margin, q)
    if not 0.0 < power < 1.0:
        raise InvalidInput(f"power={power!r} must lie in (0, 1)")
    z = float(-ndtri(q) + ndtri((1.0 + power) / 2.0))
    return math.ceil(z * z / (6.0 * margin * margin))


def models_per_arm(margin_in_sd: float, power: float = 0.8, q: float = 0.05, at_most: int = 100_000) -> int:
    """Models in each arm so that two equal arms are shown to agree within a margin, by a t-based TOST.

    Args:
        margin_in_sd: margin divided by the standard deviation between models.
        power: wanted chance of "equivalent" when the means are equal.
        q: level of each one-sided test.
        at_most: give up above this many.

    Returns:
        The smallest number, by integrating over the distribution of the pooled standard deviation.

    Raises:
        InvalidInput: more than ``at_most`` would be needed.
    """
    _check(margin_in_sd, q)
    if not 0.0 < power < 1.0:
        raise InvalidInput(f"power={power!r} must lie in (0, 1)")
    # Quantiles at midpoints: the integrand is smooth and bounded, 2,000 points give four digits.
    share = (np.arange(2000) + 0.5) / 2000

    def achieved(m: int) -> float:
        df = 2 * m - 2
        scale = np.sqrt(chdtri(df, 1.0 - share) / df)
        room = margin_in_sd / math.sqrt(2.0 / m) - float(stdtrit(df, 1.0 - q)) * scale
        return float(np.where(room > 0, 2.0 * ndtr(room) - 1.0, 0.0).mean())

    low, high = 1, 2
    while achieved(high) < power:
        low, high = high, 2 * high
        if high > at_most:
            raise InvalidInput(f"margin_in_sd={margin_in_sd!r}: more than {at_most:,} models an arm would be needed")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if achieved(middle) < power else (low, middle)
    return high
