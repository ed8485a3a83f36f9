"""Sums of influence values over the cells of a fleet: their variance, clustered by model and by record, and limits.

Every (model, record) cell of an (m, n) array is one trial. Cells share models and records, so a binomial interval is
too short. Each statistic is written as a sum of influence values over cells, and its variance is the two-way
cluster-robust V_model + V_record - V_cell (Cameron, Gelbach and Miller 2011, "Robust inference with multiway
clustering").
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from mnemoscope.audit.statistics.clustered import clustered_limits
from mnemoscope.audit.statistics.proportions import Sides
from mnemoscope.audit.statistics.trials import Estimate

__all__ = ["METHOD", "degrees_of", "influence_variance", "quantile_of", "rate_of"]

Floats = NDArray[np.float64]
METHOD = "two-way clustered by model and record"


def influence_variance(influence: Floats) -> float:
    """Return V_model + V_record - V_cell of a sum of influence values.

    Args:
        influence: (m, n) float64, zero where a cell takes no part.

    Returns:
        The variance of ``influence.sum()``; both cluster terms carry the g/(g-1) correction. Never below the smaller of
        them: were cells of one record not negatively correlated on average, the other clustering alone would remain.
    """
    m, n = influence.shape
    by_model = influence.sum(axis=1)
    by_record = influence.sum(axis=0)
    v_model = float(by_model @ by_model) * m / max(1, m - 1)
    v_record = float(by_record @ by_record) * n / max(1, n - 1)
    v_cell = float(np.einsum("ij,ij->", influence, influence))
    return float(max(v_model + v_record - v_cell, min(v_model, v_record)))


def degrees_of(influence: Floats) -> float:
    """Degrees of freedom of a sum of (m, n) influence values: clusters of the scarcer kind, minus one."""
    return float(max(1, min(influence.shape) - 1))


def quantile_of(level: float, sides: str, influence: Floats) -> float:
    """Student's quantile that a limit at this level lies from its value, in standard errors."""
    return float(stdtrit(degrees_of(influence), 0.5 + level / 2 if sides == "two" else level))


def rate_of(k: int, n: int, influence: Floats, level: float, sides: Sides) -> Estimate:
    """Share k of n with a clustered interval that is never shorter than Clopper-Pearson's."""
    interval = clustered_limits(k / n, influence_variance(influence), k, n, level, sides, degrees_of(influence))
    return Estimate(k / n, interval, k, n)
