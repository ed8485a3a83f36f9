"""Lower bounds on the epsilon of differential privacy from an attack's counts, valid at their stated confidence.

(eps, delta)-DP implies TPR <= e^eps FPR + delta and TNR <= e^eps FNR + delta for every test that is fixed before it
sees the trials (Kairouz, Oh and Viswanath 2015, arXiv 1311.0776; Jagielski, Ullman and Oprea 2020, arXiv 2006.07709).
Two one-sided Clopper-Pearson limits, on TPR from below and FPR from above, each at half of the error, hold together at
the stated level. They serve both inequalities: TNR = 1 - FPR and FNR = 1 - TPR, so no further split is due. Nothing is
maximised over thresholds, guess counts or kinds of interval on the counts that are reported.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.counts import roc_counts
from mnemoscope.audit.statistics.delong import finite_scores
from mnemoscope.audit.statistics.proportions import check_counts, check_level, clopper_pearson_limits

__all__ = ["EpsilonBound", "epsilon_ceiling", "epsilon_lower_bound", "epsilon_split_bound"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class EpsilonBound:
    """A lower bound on epsilon with what it rests on.

    Attributes:
        bound: epsilon is at least this, at confidence ``level``; 0 says nothing.
        point: plug-in value of the same counts, for description; None where a rate it divides by is zero.
        ceiling: the largest bound that this many trials could give; the audit cannot support "epsilon is at most"
            anything.
        tpr_low: lower limit of the TPR.
        fpr_high: upper limit of the FPR.
        level: confidence of ``bound``.
        delta: the delta it is for.
        tp: true positives.
        n_in: in trials.
        fp: false positives.
        n_out: out trials.
        threshold: where the trials were flagged, if found by a split.
    """

    bound: float
    point: float | None
    ceiling: float
    tpr_low: float
    fpr_high: float
    level: float
    delta: float
    tp: int
    n_in: int
    fp: int
    n_out: int
    threshold: float | None = None


def _log_ratio(upper: Floats, lower: Floats, delta: float) -> Floats:
    """log((upper - delta) / lower), -inf where the numerator is not positive."""
    room = np.maximum(upper - delta, 0.0)
    with np.errstate(divide="ignore"):
        return np.where(room > 0.0, np.log(room) - np.log(np.maximum(lower, 1e-300)), -np.inf)


def _bounds(tp: Floats, n_in: int, fp: Floats, n_out: int, level: float, delta: float) -> Floats:
    """Bound for each pair of counts, at least 0, both inequalities on one rectangle."""
    half = (1.0 + level) / 2.0
    tpr_low, _ = clopper_pearson_limits(tp, n_in, half, "lower")
    _, fpr_high = clopper_pearson_limits(fp, n_out, half, "upper")
    both = np.maximum(_log_ratio(tpr_low, fpr_high, delta), _log_ratio(1.0 - fpr_high, 1.0 - tpr_low, delta))
    return np.maximum(0.0, both)


def epsilon_ceiling(n_in: int, n_out: int, level: float = 0.95, delta: float = 0.0) -> float:
    """Return the bound of a perfect attack with these counts: the most this sample could show.

    >>> round(epsilon_ceiling(1000, 1000), 2)
    5.6
    """
    _check(n_in, n_out, level, delta)
    return float(_bounds(np.array(float(n_in)), n_in, np.array(0.0), n_out, level, delta))


def _check(n_in: int, n_out: int, level: float, delta: float) -> None:
    check_level(level)
    if min(n_in, n_out) < 1:
        raise InvalidInput(f"an epsilon bound needs trials on both sides, given n_in={n_in}, n_out={n_out}")
    if not 0.0 <= delta < 1.0:
        raise InvalidInput(f"delta={delta!r} must lie in [0, 1)")


def epsilon_lower_bound(
    tp: int, n_in: int, fp: int, n_out: int, level: float = 0.95, delta: float = 0.0
) -> EpsilonBound:
    """Bound epsilon from below at a threshold fixed before these trials were seen.

    Args:
        tp: flagged in trials.
        n_in: in trials, independent given the mechanism.
        fp: flagged out trials.
        n_out: out trials.
        level: one-sided confidence of the bound.
        delta: delta of the (epsilon, delta) claim.

    Returns:
        The bound, its plug-in point value and the ceiling of this sample.

    Raises:
        InvalidInput: counts that cannot be, a level or delta out of range.

    >>> round(epsilon_lower_bound(84, 1000, 1, 1000).bound, 2)
    2.5
    """
    check_counts(tp, n_in)
    check_counts(fp, n_out)
    _check(n_in, n_out, level, delta)
    bound = float(_bounds(np.array(float(tp)), n_in, np.array(float(fp)), n_out, level, delta))
    half = (1.0 + level) / 2.0
    tpr_low = float(clopper_pearson_limits(tp, n_in, half, "lower")[0])
    fpr_high = float(clopper_pearson_limits(fp, n_out, half, "upper")[1])
    points = [
        float(_log_ratio(np.array(upper), np.array(lower), delta))
        for upper, lower in ((tp / n_in, fp / n_out), (1 - fp / n_out, 1 - tp / n_in))
        if lower > 0
    ]
    finite = [p for p in points if math.isfinite(p)]
    point = max([0.0, *finite]) if len(points) == 2 else None
    ceiling = epsilon_ceiling(n_in, n_out, level, delta)
    return EpsilonBound(bound, point, ceiling, tpr_low, fpr_high, level, delta, tp, n_in, fp, n_out)


def epsilon_split_bound(
    in_scores: NDArray[np.floating],
    out_scores: NDArray[np.floating],
    *,
    level: float = 0.95,
    delta: float = 0.0,
    fraction: float = 0.5,
    rng: np.random.Generator,
) -> EpsilonBound:
    """Choose the threshold on one random part of the trials, bound epsilon on the other.

    Args:
        in_scores: (n_in,) finite scores, higher = more likely in.
        out_scores: (n_out,) finite scores.
        level: one-sided confidence of the bound.
        delta: delta of the claim.
        fraction: share of each side used to choose; the counts reported are those of the rest.
        rng: generator of the split.

    Returns:
        The bound on the held part, at the threshold whose bound is largest on the chosen part.

    Raises:
        InvalidInput: fewer than 2 trials on a side, or a fraction that leaves a part empty.
    """
    s1, s0 = finite_scores("in_scores", in_scores), finite_scores("out_scores", out_scores)
    if not 0.0 < fraction < 1.0 or min(s1.size, s0.size) < 2:
        raise InvalidInput(
            f"fraction={fraction!r} must lie in (0, 1) and both sides need 2 trials, given {s1.size} and {s0.size}"
        )
    cut1, cut0 = (min(s.size - 1, max(1, round(fraction * s.size))) for s in (s1, s0))
    s1, s0 = rng.permutation(s1), rng.permutation(s0)
    counts = roc_counts(s1[:cut1], s0[:cut0])
    bounds = _bounds(counts.tp.astype(np.float64), cut1, counts.fp.astype(np.float64), cut0, level, delta)
    threshold = float(counts.threshold[int(np.argmax(bounds))])
    tp, fp = int(np.count_nonzero(s1[cut1:] >= threshold)), int(np.count_nonzero(s0[cut0:] >= threshold))
    held = epsilon_lower_bound(tp, s1.size - cut1, fp, s0.size - cut0, level, delta)
    return EpsilonBound(**{**held.__dict__, "threshold": threshold})
