"""AUC with DeLong's variance in O(n log n), alone and paired.

Sources: DeLong, DeLong and Clarke-Pearson 1988 (Biometrics 44:837); Sun and Xu 2014 (IEEE Signal Processing Letters
21:1389) for placement values from ranks; Hanley and McNeil 1982 (Radiology 143:29) for planning.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtrit

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.proportions import Sides, tail_share
from mnemoscope.audit.statistics.trials import Estimate, Interval

__all__ = ["DeLong", "PairedAuc", "auc_interval", "delong", "hanley_mcneil_se", "paired_delong", "placements"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class DeLong:
    """AUC with what its variance is made of.

    Attributes:
        auc: P(in > out) + P(in = out)/2.
        se: DeLong's standard error; 0 where all placement values of a side agree.
        v10: (n_in,) float64 placement of each in score among the out scores, mean = auc.
        v01: (n_out,) float64 placement of each out score among the in scores, mean = auc.
    """

    auc: float
    se: float
    v10: Floats
    v01: Floats


@dataclass(frozen=True)
class PairedAuc:
    """Difference of two AUCs on the same records.

    Attributes:
        difference: AUC a minus AUC b with its interval.
        se: its standard error.
        z: difference / se; 0 for identical rankings, +-inf for a difference without variance.
        p_value: two-sided.
    """

    difference: Estimate
    se: float
    z: float
    p_value: float


def finite_scores(name: str, scores: NDArray[np.floating]) -> Floats:
    """Return scores as (n,) float64, or raise ``InvalidInput`` for a wrong shape or a value that is not finite."""
    array = np.asarray(scores, np.float64)
    if array.ndim != 1:
        raise InvalidInput(f"{name}: scores must be one-dimensional, given shape {array.shape}")
    if not np.isfinite(array).all():
        raise InvalidInput(
            f"{name}: {int((~np.isfinite(array)).sum())} of {array.size} scores are not finite; "
            "name these records and leave them out"
        )
    return array


def _share_below(scores: Floats, others: Floats) -> Floats:
    """Share of ``others`` below each score, ties counted half."""
    order = np.argsort(scores, kind="stable")
    queries = scores[order]  # ascending queries keep the binary searches in the cache
    base = np.sort(others)
    counts = np.searchsorted(base, queries, "left") + np.searchsorted(base, queries, "right")
    share = np.empty(scores.size)
    share[order] = counts / (2.0 * others.size)
    return share


def placements(in_scores: NDArray[np.floating], out_scores: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Return DeLong's placement values (v10, v01) of both sides, ties counted half, in O(n log n)."""
    s1, s0 = finite_scores("in_scores", in_scores), finite_scores("out_scores", out_scores)
    if s1.size == 0 or s0.size == 0:
        raise InvalidInput(f"AUC needs scores on both sides, given {s1.size} in and {s0.size} out")
    return _share_below(s1, s0), 1.0 - _share_below(s0, s1)


def _variance_of_mean(values: Floats) -> float:
    return math.nan if values.size < 2 else float(values.var(ddof=1)) / values.size


def delong(in_scores: NDArray[np.floating], out_scores: NDArray[np.floating]) -> DeLong:
    """Compute the AUC and DeLong's standard error.

    Args:
        in_scores: (n_in,) finite scores of "in" records, higher = more likely in.
        out_scores: (n_out,) finite scores of "out" records.

    Returns:
        The AUC, its standard error (NaN with fewer than 2 records on a side) and the placement values.

    Raises:
        InvalidInput: an empty side, or scores that are not finite.

    >>> result = delong(np.array([0.9, 0.8, 0.4, 0.7]), np.array([0.5, 0.3, 0.4, 0.1, 0.6]))
    >>> (result.auc, round(result.se, 6))
    (0.875, 0.136931)
    """
    v10, v01 = placements(in_scores, out_scores)
    return DeLong(float(v10.mean()), math.sqrt(_variance_of_mean(v10) + _variance_of_mean(v01)), v10, v01)


def auc_interval(
    auc: float, se: float, n_in: int, n_out: int, level: float = 0.95, sides: Sides = "two", df: float | None = None
) -> Interval:
    """Interval of an AUC on the logit scale; at 0 and 1, where that is undefined, a crude exact-style limit.

    Args:
        auc: estimate in [0, 1].
        se: its standard error.
        n_in: records (or clusters) on the in side.
        n_out: records (or clusters) on the out side.
        level: confidence.
        sides: "two", or the single limit wanted.
        df: degrees of freedom of a t quantile; None takes the normal one.

    Returns:
        Limits within [0, 1]. For auc = 1 the lower limit is q**(1/min(n_in, n_out)), the share that could be
        missing without showing in that many records (q = error in that tail); mirrored for auc = 0.
    """
    if not (0.0 <= auc <= 1.0 and se >= 0.0):
        raise InvalidInput(f"auc={auc!r} must lie in [0, 1] and se={se!r} must not be negative")
    tail = tail_share(level, sides)
    if auc in (0.0, 1.0) or se == 0.0:
        crude = 1.0 - tail ** (1.0 / max(1, min(n_in, n_out)))
        low, high = max(0.0, auc - crude), min(1.0, auc + crude)
        method = f"crude limit 1 - q^(1/{min(n_in, n_out)}), no variance at this AUC"
    else:
        quantile = float(-ndtri(tail)) if df is None else float(-stdtrit(df, tail))
        centre = math.log(auc / (1.0 - auc))
        half = quantile * se / (auc * (1.0 - auc))
        # exp overflows beyond 709; 50 is already 1 to the last digit.
        low, high = (1.0 / (1.0 + math.exp(min(50.0, -x))) for x in (centre - half, centre + half))
        method = "DeLong, logit scale"
    return Interval(0.0 if sides == "upper" else low, 1.0 if sides == "lower" else high, level, sides, method)


def paired_delong(
    in_a: NDArray[np.floating],
    out_a: NDArray[np.floating],
    in_b: NDArray[np.floating],
    out_b: NDArray[np.floating],
    level: float = 0.95,
) -> PairedAuc:
    """Compare two AUCs on the same records: two attacks, or one attack on two models.

    Args:
        in_a: (n_in,) first scores of the in records.
        out_a: (n_out,) first scores of the out records.
        in_b: (n_in,) second scores, same records in the same order.
        out_b: (n_out,) second scores, same records in the same order.
        level: confidence of the two-sided interval.

    Returns:
        The difference a - b. A score against itself gives z = 0 and p = 1. Where a difference shows no variance at
        all, the p-value is 2**(1 - min(n_in, n_out)), the chance that as many coin flips agree.

    Raises:
        InvalidInput: sides of different length.
    """
    if np.shape(in_a) != np.shape(in_b) or np.shape(out_a) != np.shape(out_b):
        raise InvalidInput(
            f"paired_delong: the same records in both, given in {np.shape(in_a)} and {np.shape(in_b)}, "
            f"out {np.shape(out_a)} and {np.shape(out_b)}"
        )
    a10, a01 = placements(in_a, out_a)
    b10, b01 = placements(in_b, out_b)
    difference = float(a10.mean() - b10.mean())
    n_in, n_out = a10.size, a01.size
    if min(n_in, n_out) < 2:
        reason = f"a variance needs 2 records on each side, given {n_in} in and {n_out} out"
        return PairedAuc(Estimate(difference, n=n_in + n_out, reason=reason), math.nan, 0.0, 1.0)
    se = math.sqrt(_variance_of_mean(a10 - b10) + _variance_of_mean(a01 - b01))
    tail = tail_share(level, "two")
    # Differences of equal ranks are exact zeros; anything below is rounding of the mean.
    if se < 1e-15:
        same = abs(difference) < 1e-12
        z = 0.0 if same else math.copysign(math.inf, difference)
        p = 1.0 if same else min(1.0, 2.0 ** (1 - min(n_in, n_out)))
        half = 1.0 - tail ** (1.0 / min(n_in, n_out))
        method = "crude limit, the difference has no variance"
    else:
        z = difference / se
        p = float(2.0 * ndtr(-abs(z)))
        half = float(-ndtri(tail)) * se
        method = "paired DeLong"
    interval = Interval(max(-1.0, difference - half), min(1.0, difference + half), level, "two", method)
    return PairedAuc(Estimate(difference, interval, n=n_in + n_out), se, z, p)


def hanley_mcneil_se(auc: float, n_in: int, n_out: int) -> float:
    """Standard error of an AUC from its value and counts alone (exponential scores): for planning only."""
    if not 0.0 <= auc <= 1.0 or min(n_in, n_out) < 1:
        raise InvalidInput(f"auc={auc!r} must lie in [0, 1] and both sides have records, given {n_in} and {n_out}")
    q1, q2 = auc / (2.0 - auc), 2.0 * auc * auc / (1.0 + auc)
    variance = auc * (1 - auc) + (n_in - 1) * (q1 - auc * auc) + (n_out - 1) * (q2 - auc * auc)
    return math.sqrt(max(0.0, variance) / (n_in * n_out))
