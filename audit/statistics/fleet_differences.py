"""Shares of a fleet's cells and differences of two fleets or two groups of cells, clustered by model and by record."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.fleet import FleetAuc, FleetRate
from mnemoscope.audit.statistics.influence import METHOD, influence_variance, quantile_of, rate_of
from mnemoscope.audit.statistics.proportions import Sides, clopper_pearson_limits
from mnemoscope.audit.statistics.trials import Estimate, Interval

__all__ = [
    "difference",
    "mean_difference",
    "mean_share_difference",
    "p_greater",
    "paired_share_difference",
    "share",
]


def difference(a: FleetRate | FleetAuc, b: FleetRate | FleetAuc, level: float = 0.90, sides: Sides = "two") -> Estimate:
    """Difference a - b of the same statistic of two fleets on the same cells, with a clustered interval.

    For rates the interval is never shorter than the one built from both Clopper-Pearson intervals by the method of
    variance estimates recovery (Newcombe 1998), which has a width where there are no hits at all.
    """
    influence = a.influence - b.influence
    se = np.sqrt(influence_variance(influence))
    quantile = quantile_of(level, sides, influence)
    if isinstance(a, FleetAuc) or isinstance(b, FleetAuc):
        if not (isinstance(a, FleetAuc) and isinstance(b, FleetAuc)):
            raise InvalidInput("difference: both arguments must be rates, or both AUCs")
        value = a.value - b.value
        low, high = value - quantile * se, value + quantile * se
        n = a.n_in + a.n_out
    else:
        value = a.tpr - b.tpr
        two = level if sides == "two" else 2.0 * level - 1.0
        (la, lb), (ua, ub) = clopper_pearson_limits((a.tp, b.tp), (a.n_in, b.n_in), two)
        low = min(value - quantile * se, value - float(np.hypot(a.tpr - la, ub - b.tpr)))
        high = max(value + quantile * se, value + float(np.hypot(ua - a.tpr, b.tpr - lb)))
        n = a.n_in
    if sides == "upper":
        low = -1.0
    if sides == "lower":
        high = 1.0
    return Estimate(value, Interval(max(-1.0, low), min(1.0, high), level, sides, f"paired difference, {METHOD}"), n=n)


def mean_difference(
    a: NDArray[np.floating | np.bool_], b: NDArray[np.floating | np.bool_], level: float, sides: Sides
) -> Estimate:
    """Mean of a - b over all cells of two (m, n) arrays, clustered by model and record."""
    cells = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    value = float(cells.mean())
    influence = (cells - value) / cells.size
    half = quantile_of(level, sides, influence) * float(np.sqrt(influence_variance(influence)))
    low = -1.0 if sides == "upper" else max(-1.0, value - half)
    high = 1.0 if sides == "lower" else min(1.0, value + half)
    return Estimate(value, Interval(low, high, level, sides, f"paired difference, {METHOD}"), n=cells.size)


def share(
    hit: NDArray[np.bool_],
    cells: NDArray[np.bool_],
    level: float = 0.95,
    sides: Sides = "two",
) -> Estimate:
    """Share of hits among cells, clustered by model and record, at least as wide as Clopper-Pearson."""
    n = int(cells.sum())
    if n == 0:
        return Estimate(None, n=0, reason="no (model, record) pair plays this role")
    k = int((hit & cells).sum())
    return rate_of(k, n, np.where(cells, (hit - k / n) / n, 0.0), level, sides)


def paired_share_difference(
    hit_a: NDArray[np.bool_], hit_b: NDArray[np.bool_], cells: NDArray[np.bool_], level: float
) -> Estimate:
    """Share of hits of fleet a minus that of fleet b on the same cells, two-sided, clustered by model and record."""
    n = int(cells.sum())
    if n == 0:
        return Estimate(None, n=0, reason="no (model, record) pair plays this role")
    cell = np.where(cells, hit_a.astype(np.float64) - hit_b, 0.0)
    value = float(cell.sum() / n)
    influence = np.where(cells, (cell - value) / n, 0.0)
    half = quantile_of(level, "two", influence) * float(np.sqrt(influence_variance(influence)))
    interval = Interval(max(-1.0, value - half), min(1.0, value + half), level, "two", f"paired difference, {METHOD}")
    return Estimate(value, interval, n=n)


def mean_share_difference(
    hit: NDArray[np.bool_],
    cells_a: NDArray[np.bool_],
    cells_b: NDArray[np.bool_],
    level: float,
    sides: Literal["upper", "lower"] = "upper",
) -> Estimate:
    """Share of hits among cells_a minus that among cells_b, with a one-sided limit.

    Args:
        hit: (m, n) bool.
        cells_a: (m, n) bool, the minuend's cells.
        cells_b: (m, n) bool, the subtrahend's cells, disjoint from cells_a.
        level: confidence of the limit; never tighter than the one built from both Clopper-Pearson intervals.
        sides: which limit; the test of "beyond" needs the lower one.
    """
    na, nb = int(cells_a.sum()), int(cells_b.sum())
    if na == 0 or nb == 0:
        return Estimate(None, reason="one of the two groups has no cell to count")
    ka, kb = int((hit & cells_a).sum()), int((hit & cells_b).sum())
    a, b = ka / na, kb / nb
    influence = np.where(cells_a, (hit - a) / na, 0.0) - np.where(cells_b, (hit - b) / nb, 0.0)
    half = quantile_of(level, sides, influence) * float(np.sqrt(influence_variance(influence)))
    (low_a, low_b), (high_a, high_b) = clopper_pearson_limits((ka, kb), (na, nb), 2.0 * level - 1.0)
    above, below = np.hypot(high_a - a, b - low_b), np.hypot(a - low_a, high_b - b)
    low = -1.0 if sides == "upper" else max(-1.0, a - b - max(half, float(below)))
    high = 1.0 if sides == "lower" else min(1.0, a - b + max(half, float(above)))
    return Estimate(a - b, Interval(low, high, level, sides, f"difference of shares, {METHOD}"), n=na + nb)


def p_greater(estimate: Estimate, bound: float, degrees: int) -> float | None:
    """One-sided p-value of "parameter <= bound", from an estimate with a two-sided interval or lower limit.

    The standard error is read back from the arm below the estimate, so a floor on its width holds for the p-value too.
    An upper limit does not serve: cut off at 1 it would make the width, and with it the p-value, too small.

    Args:
        estimate: a difference or mean with an interval on the t scale.
        bound: the bound on the parameter.
        degrees: degrees of freedom the interval was made with.
    """
    if estimate.value is None or estimate.ci is None:
        return None
    ci = estimate.ci
    if ci.sides == "upper":
        raise InvalidInput("p_greater: an upper limit says nothing about the side below; give a lower one")
    quantile = float(stdtrit(degrees, 0.5 + ci.level / 2 if ci.sides == "two" else ci.level))
    width = estimate.value - ci.lower
    if width <= 0:
        return 0.0 if estimate.value > bound else 1.0
    return float(stdtr(degrees, (bound - estimate.value) * quantile / width))
