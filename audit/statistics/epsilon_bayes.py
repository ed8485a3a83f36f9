"""Credible interval and bound for epsilon (Zanella-Beguelin et al. 2022, arXiv 2206.05199).

Jeffreys posteriors of both error rates, FNR ~ Beta(1/2 + FN, 1/2 + TP) and FPR ~ Beta(1/2 + FP, 1/2 + TN), give the
posterior mass of the region of the square that (epsilon, delta)-DP allows; the interval's ends are where that mass is
(1 - level)/2 and (1 + level)/2.

Deviation, for the bound alone. The paper's region is two-sided: it also allows for an attack that is worse than
guessing, so its interval never holds 0, and under no leak its lower end is positive in every audit. The bound here is
one-sided: the posterior mass of "this attack shows at most epsilon", with all attacks that guess worse than chance in
it, reaches 1 - level at the bound. By the prior alone that would exceed its error where flags are rare (30 against 300
trials flagged at 0.5 %: above 0 in 8.2 % of audits without a leak, at a nominal 5 %), so the bound is 0 unless an exact
test rejects TPR <= FPR + delta at 1 - level: Fisher's, at its error less n_in x delta, the chance that delta alone
flags anything; or Clopper-Pearson's rectangle, where that leaves less than half.

A positive bound stays a credible one, under a stated prior, and no confidence bound. Against a known epsilon it lay
above it, at a nominal 5 %, in 6 to 7 % of runs where one of the two inequalities is tight, and in 8 to 22 % where both
are (randomised response, 400 to 30 trials a side): the larger of two ratios is taken, and its posterior sits too high.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import betainc, betaincinv, gammaln

from mnemoscope.audit.statistics.epsilon import (
    TRIALS,
    EpsilonBound,
    TrialKind,
    check_trials,
    clopper_pearson_bounds,
)
from mnemoscope.audit.statistics.epsilon import epsilon_lower_bound as _rectangle
from mnemoscope.audit.statistics.proportions import check_counts

__all__ = ["bayesian_interval", "bayesian_lower_bound", "exact_p_value", "shows_leak"]

Floats = NDArray[np.float64]
SMALLEST, HIGHEST = 1e-6, 60.0
PRIOR = "credible under Jeffreys' prior of both rates, no confidence bound; 0 unless an exact test finds TPR above FPR"


class _Posterior:
    """Both rates' posteriors, FNR on a grid of midpoint quantiles."""

    def __init__(self, tp: int, n_in: int, fp: int, n_out: int, delta: float, nodes: int) -> None:
        u = (np.arange(nodes) + 0.5) / nodes
        self.fnr: Floats = betaincinv(0.5 + n_in - tp, 0.5 + tp, u)
        self.a, self.b, self.delta = 0.5 + fp, 0.5 + n_out - fp, delta

    def _below(self, fpr: Floats) -> Floats:
        below: Floats = betainc(self.a, self.b, np.clip(fpr, 0.0, 1.0))
        return below

    def _least(self, epsilon: float) -> Floats:
        """The FPR below which an attack with this FNR shows more than epsilon."""
        x, d = self.fnr, self.delta
        least: Floats = np.maximum(1.0 - d - np.exp(epsilon) * x, (1.0 - d - x) * np.exp(-epsilon))
        return least

    def at_most(self, epsilon: float) -> float:
        """Posterior mass of attacks that show at most epsilon, worse than chance included."""
        return float(np.mean(1.0 - self._below(self._least(epsilon))))

    def region(self, epsilon: float) -> float:
        """Posterior mass of the paper's two-sided region."""
        x, d = self.fnr, self.delta
        upper = np.minimum(d + np.exp(epsilon) * (1.0 - x), 1.0 + (d - x) * np.exp(-epsilon))
        return float(np.mean(self._below(upper) - self._below(self._least(epsilon))))


def bayesian_interval(
    tp: int, n_in: int, fp: int, n_out: int, level: float = 0.95, delta: float = 0.0, *, nodes: int = 500
) -> tuple[float, float]:
    """Equal-tailed credible interval of epsilon, as in the paper: two-sided region, never holding 0.

    Args:
        tp: flagged in trials.
        n_in: in trials.
        fp: flagged out trials.
        n_out: out trials.
        level: credibility.
        delta: delta of the claim.
        nodes: quantiles of the FNR over which the mass is averaged.

    Returns:
        (lower, upper); the upper end is a statement about this attack, not about the mechanism.

    Raises:
        InvalidInput: counts that cannot be, a level or delta out of range.

    >>> [round(end, 2) for end in bayesian_interval(487, 487, 512, 513, 0.9, 1e-5)]
    [0.14, 6.42]
    """
    check_counts(tp, n_in)
    check_counts(fp, n_out)
    check_trials(n_in, n_out, level, delta)
    posterior = _Posterior(tp, n_in, fp, n_out, delta, nodes)
    tail = (1.0 - level) / 2.0
    return _solve(posterior.region, tail), _solve(posterior.region, 1.0 - tail)


def _solve(mass: Callable[[float], float], target: float) -> float:
    """Where an increasing mass reaches the target, within what the solver's bracket can tell."""
    if mass(SMALLEST) >= target:
        return 0.0
    if mass(HIGHEST) <= target:
        return HIGHEST
    return float(brentq(lambda e: mass(e) - target, SMALLEST, HIGHEST, xtol=1e-6))


def exact_p_value(tp: int, n_in: int, fp: int, n_out: int) -> float:
    """Fisher's exact one-sided p-value of TPR <= FPR: the hypergeometric chance of at least ``tp`` of all flags.

    >>> round(exact_p_value(3, 4, 1, 4), 4)
    0.2429
    """
    flagged = tp + fp
    k = np.arange(tp, min(n_in, flagged) + 1)

    def log_choose(n: int, j: NDArray[np.int64]) -> Floats:
        return np.asarray(gammaln(n + 1.0) - gammaln(j + 1.0) - gammaln(n - j + 1.0))

    every = log_choose(n_in + n_out, np.array([flagged]))[0]
    return float(min(1.0, np.exp(log_choose(n_in, k) + log_choose(n_out, flagged - k) - every).sum()))


def shows_leak(tp: int, n_in: int, fp: int, n_out: int, level: float, delta: float) -> bool:
    """Whether an exact test at 1 - level rejects that TPR <= FPR + delta."""
    error = 1.0 - level
    spent = n_in * delta
    if spent >= error / 2:
        return bool(clopper_pearson_bounds(tp, n_in, fp, n_out, level, delta) > 0)
    return exact_p_value(tp, n_in, fp, n_out) <= error - spent


@lru_cache(maxsize=4096)
def _lower_end(tp: int, n_in: int, fp: int, n_out: int, level: float, delta: float, nodes: int) -> float:
    if not shows_leak(tp, n_in, fp, n_out, level, delta):
        return 0.0
    return _solve(_Posterior(tp, n_in, fp, n_out, delta, nodes).at_most, 1.0 - level)


@lru_cache(maxsize=4096)
def _upper_end(tp: int, n_in: int, fp: int, n_out: int, mass: float, delta: float, nodes: int) -> float:
    return _solve(_Posterior(tp, n_in, fp, n_out, delta, nodes).region, mass)


def bayesian_lower_bound(
    tp: int,
    n_in: int,
    fp: int,
    n_out: int,
    level: float = 0.95,
    delta: float = 0.0,
    *,
    trials: TrialKind = "records",
    nodes: int = 500,
) -> EpsilonBound:
    """One-sided credible lower bound at a threshold fixed beforehand; 0 unless an exact test shows a leak.

    Args:
        tp: flagged in trials.
        n_in: in trials, independent given the mechanism.
        fp: flagged out trials.
        n_out: out trials.
        level: credibility of the bound.
        delta: delta of the claim.
        trials: what a trial is (``TRIALS``).
        nodes: quantiles of the FNR over which the mass is averaged.

    Returns:
        The bound; ``upper`` is the upper end of the paper's two-sided interval at the same level.

    Raises:
        InvalidInput: counts that cannot be, a level or delta out of range.

    >>> bound = bayesian_lower_bound(84, 1000, 1, 1000)
    >>> 2.5 < bound.bound < bound.point < bound.upper
    True
    """
    base = _rectangle(tp, n_in, fp, n_out, level, delta, trials=trials)

    return EpsilonBound(
        method="Bayesian",
        bound=_lower_end(tp, n_in, fp, n_out, level, delta, nodes),
        point=base.point,
        ceiling=_lower_end(n_in, n_in, 0, n_out, level, delta, nodes),
        level=level,
        delta=delta,
        tp=int(tp),
        n_in=int(n_in),
        fp=int(fp),
        n_out=int(n_out),
        assumption=f"{TRIALS[trials]}; {PRIOR}",
        upper=_upper_end(tp, n_in, fp, n_out, (1.0 + level) / 2.0, delta, nodes),
    )
