"""Gaussian differential privacy: its conversion to (epsilon, delta), and a lower bound on mu from counts.

mu-GDP says that no test tells the two worlds apart better than N(0, 1) from N(mu, 1): FNR >= Phi(Phi^-1(1 - FPR) - mu)
(Dong, Roth and Su 2022, arXiv 1905.02383). An attack that keeps below FPR_high and FNR_high therefore shows
mu >= Phi^-1(1 - FPR_high) - Phi^-1(FNR_high), whatever its threshold, and mu converts to epsilon at any delta (Nasr et
al. 2023, arXiv 2302.07956). Training with noise in many steps is close to Gaussian, so that moderate error rates speak
about a small delta, with orders of magnitude fewer trials than the inequalities of (epsilon, delta) need. Where the
true trade-off curve is not Gaussian, the bound on mu stands, but the epsilon converted from it is an estimate under a
model and no certificate.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtri

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.epsilon import TRIALS, EpsilonBound, TrialKind, check_trials
from mnemoscope.audit.statistics.proportions import check_counts, clopper_pearson_limits

__all__ = ["GAUSSIAN", "check_delta", "delta_of_gdp", "epsilon_of_gdp", "gdp_lower_bound", "mu_lower_limits"]

Floats = NDArray[np.float64]

GAUSSIAN = "an estimate under the model that the trade-off curve is Gaussian, no certificate where it is not"


def delta_of_gdp(mu: float, epsilon: float) -> float:
    """Return the delta at which mu-GDP is (epsilon, delta)-DP, without overflow or cancellation.

    >>> round(delta_of_gdp(1.0, 4.377), 7)
    1e-05
    """
    if mu <= 0.0:
        return 0.0
    upper = float(log_ndtr(-epsilon / mu + mu / 2))
    lower = epsilon + float(log_ndtr(-epsilon / mu - mu / 2))
    return max(0.0, -math.exp(upper) * math.expm1(min(0.0, lower - upper)))


def check_delta(delta: float) -> None:
    """Raise ``InvalidInput`` unless a Gaussian curve has a finite epsilon at this delta."""
    if not 0.0 < delta < 1.0:
        raise InvalidInput(
            f"delta={delta!r}: a Gaussian trade-off curve has a finite epsilon only at a delta in (0, 1), e.g. 1e-5"
        )


def epsilon_of_gdp(mu: float, delta: float) -> float:
    """Return the epsilon of mu-GDP at a delta.

    Args:
        mu: finite, at least 0.
        delta: in (0, 1).

    Raises:
        InvalidInput: a delta outside (0, 1), or a mu that is negative or not finite.

    >>> [round(epsilon_of_gdp(mu, 1e-5), 2) for mu in (0.5, 1.0, 2.0, 4.0)]
    [1.99, 4.38, 10.0, 24.38]
    """
    check_delta(delta)
    if not 0.0 <= mu < math.inf:
        raise InvalidInput(f"mu={mu!r} must be finite and at least 0")
    if mu == 0.0 or delta_of_gdp(mu, 0.0) <= delta:
        return 0.0
    # The first term of delta alone is at least delta, so its root lies above: a bracket in closed form.
    high = mu * mu / 2 - mu * float(ndtri(delta))
    return float(brentq(lambda e: math.log(max(delta_of_gdp(mu, e), 1e-320) / delta), 0.0, high, xtol=1e-12))


def mu_lower_limits(tp: ArrayLike, n_in: int, fp: ArrayLike, n_out: int, level: float = 0.95) -> Floats:
    """Return lower limits of mu for many pairs of counts, each at its own threshold fixed beforehand.

    Below 0, down to -inf, they show no leak and order thresholds by how near they come.
    """
    half = (1.0 + level) / 2.0
    tpr_low, _ = clopper_pearson_limits(tp, n_in, half, "lower")
    _, fpr_high = clopper_pearson_limits(fp, n_out, half, "upper")
    none = (tpr_low <= 0.0) | (fpr_high >= 1.0)
    # Phi^-1(1 - FPR) - Phi^-1(1 - TPR), by symmetry
    return np.where(none, -np.inf, ndtri(np.where(none, 0.5, tpr_low)) - ndtri(np.where(none, 0.5, fpr_high)))


def gdp_lower_bound(
    tp: int,
    n_in: int,
    fp: int,
    n_out: int,
    level: float = 0.95,
    delta: float = 1e-5,
    *,
    trials: TrialKind = "records",
) -> EpsilonBound:
    """Bound mu from below at a threshold fixed beforehand, and convert it to epsilon.

    Args:
        tp: flagged in trials.
        n_in: in trials, independent given the mechanism.
        fp: flagged out trials.
        n_out: out trials.
        level: one-sided confidence.
        delta: delta of the claim, above 0.
        trials: what a trial is (``TRIALS``).

    Returns:
        Bound, ceiling and point value as epsilon at ``delta``; ``mu`` is the bound before conversion.

    Raises:
        InvalidInput: counts that cannot be, a level out of range, a delta outside (0, 1).

    >>> bound = gdp_lower_bound(84, 1000, 1, 1000)
    >>> round(bound.mu, 4), round(bound.bound, 2)
    (1.0447, 4.6)
    """
    check_counts(tp, n_in)
    check_counts(fp, n_out)
    check_trials(n_in, n_out, level, delta, trials)
    check_delta(delta)
    mu = max(0.0, float(mu_lower_limits(tp, n_in, fp, n_out, level)))
    inner = 0 < tp < n_in and 0 < fp < n_out
    plugged = max(0.0, float(ndtri(tp / n_in) - ndtri(fp / n_out))) if inner else 0.0
    half = (1.0 + level) / 2.0
    return EpsilonBound(
        method="Gaussian DP",
        bound=epsilon_of_gdp(mu, delta),
        point=epsilon_of_gdp(plugged, delta) if inner else None,
        ceiling=epsilon_of_gdp(max(0.0, float(mu_lower_limits(n_in, n_in, 0, n_out, level))), delta),
        level=level,
        delta=delta,
        tp=int(tp),
        n_in=int(n_in),
        fp=int(fp),
        n_out=int(n_out),
        assumption=f"{TRIALS[trials]}; {GAUSSIAN}",
        tpr_low=float(clopper_pearson_limits(tp, n_in, half, "lower")[0]),
        fpr_high=float(clopper_pearson_limits(fp, n_out, half, "upper")[1]),
        mu=mu,
    )
