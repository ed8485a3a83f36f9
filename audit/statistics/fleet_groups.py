"""Rates of groups of records at the thresholds of a whole fleet: which class of records carries a signal?

The thresholds are those of ``FleetScores.rates``, set on the never-seen trials of all records; only the counts are
taken group by group. An estimate's variance is clustered as everywhere: the group's own hits, and the thresholds' share
through the density ratio R = dTPR/dFPR of the group's scores against those of all never-seen trials.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import stdtr

from mnemoscope.audit.statistics.clustered import clustered_limits, density_ratio
from mnemoscope.audit.statistics.fleet import FleetScores
from mnemoscope.audit.statistics.fleet_differences import mean_share_difference, p_greater, share
from mnemoscope.audit.statistics.trials import Estimate

__all__ = ["GroupRate", "group_rates"]

Floats = NDArray[np.float64]
Hits = NDArray[np.bool_]


@dataclass(frozen=True)
class GroupRate:
    """One group's rates.

    Attributes:
        tpr: share of its in trials at or above the thresholds, with a clustered interval.
        fpr: share of its out trials; without value where it has none.
        p_value: one-sided, of "its TPR is at most the bound": the largest of the p-values against the bound, against
            the same multiple of the fleet's realised FPR, and against what its own false alarms explain.
    """

    tpr: Estimate
    fpr: Estimate
    p_value: float


def group_rates(
    scores: FleetScores,
    group: NDArray[np.int64],
    fpr: float,
    bound: float,
    *,
    tail: Literal["residual", "over-forgotten"] = "residual",
    level: float = 0.95,
) -> dict[int, GroupRate]:
    """Rates of each group at the fleet's thresholds for one target FPR.

    Args:
        scores: of the fleet.
        group: (n,) int64, the group of each record; records of negative groups stand in none.
        fpr: target of the thresholds.
        bound: on the TPR, for the p-value; a multiple of ``fpr``.
        tail: which scores are flagged.
        level: confidence of the two-sided intervals.

    Returns:
        The rates of every group with an in trial.
    """
    hit = scores.hits(fpr, tail)
    cells_in, cells_out = scores.side == 1, scores.side == 0
    sign = 1.0 if tail == "residual" else -1.0
    out_sorted = np.sort(sign * scores.score[cells_out])
    n_out = out_sorted.size
    realised = float(hit[cells_out].mean())
    spread = _Sums.of(np.where(cells_out, (hit - realised) / n_out, 0.0))
    found = {}
    for g in np.unique(group[group >= 0]):
        columns = np.flatnonzero(group == g)
        inside = cells_in[:, columns]
        n_in = int(inside.sum())
        if n_in == 0:
            continue
        own = hit[:, columns]
        k = int((own & inside).sum())
        tpr = k / n_in
        ratio = density_ratio(np.sort(sign * scores.score[:, columns][inside]), out_sorted, fpr)
        part = _Part(np.where(inside, (own - tpr) / n_in, 0.0), columns, spread)
        found[int(g)] = GroupRate(
            Estimate(tpr, clustered_limits(tpr, part.variance(ratio), k, n_in, level, "two", part.degrees), k, n_in),
            share(own, cells_out[:, columns], level),
            max(
                _p_over(part, tpr, k, n_in, ratio, bound),
                _p_ratio(part, tpr, realised, bound / fpr),
                _p_own(own, inside, cells_out[:, columns], bound - fpr),
            ),
        )
    return found


@dataclass(frozen=True, eq=False)
class _Sums:
    """Sums of influence values by model (m,), by record (n,), and of their squares."""

    model: Floats
    record: Floats
    squares: float

    @classmethod
    def of(cls, influence: Floats) -> "_Sums":
        return cls(influence.sum(axis=1), influence.sum(axis=0), float(np.einsum("ij,ij->", influence, influence)))


class _Part:
    """A group's hits beside the thresholds' share: both lie in different cells, so squares of cells add up."""

    def __init__(self, influence: Floats, columns: NDArray[np.int64], spread: _Sums) -> None:
        self._own, self._columns, self._spread = _Sums.of(influence), columns, spread
        self._m = influence.shape[0]
        self.degrees = float(max(1, min(self._m, columns.size) - 1))

    def variance(self, weight: float) -> float:
        """Of the group's hits minus ``weight`` times the share of all never-seen trials above the thresholds."""
        by_model = self._own.model - weight * self._spread.model
        by_record = -weight * self._spread.record
        by_record[self._columns] += self._own.record
        few = self._columns.size
        v_model = float(by_model @ by_model) * self._m / max(1, self._m - 1)
        # The group's own records are the scarce clusters: theirs is the correction.
        v_record = float(by_record @ by_record) * few / max(1, few - 1)
        v_cell = self._own.squares + weight**2 * self._spread.squares
        return float(max(v_model + v_record - v_cell, min(v_model, v_record)))


def _p_over(part: _Part, tpr: float, k: int, n: int, ratio: float, bound: float) -> float:
    """P-value of "TPR <= bound" at the target FPR: the error at which the lower limit reaches the bound."""
    if tpr <= bound:
        return 1.0
    variance = part.variance(ratio)

    def low(p: float) -> float:
        return clustered_limits(tpr, variance, k, n, 1.0 - p, "lower", part.degrees).lower - bound

    smallest, largest = 1e-12, 0.49
    if low(smallest) > 0:
        return smallest
    return largest if low(largest) < 0 else float(brentq(low, smallest, largest, xtol=1e-13, rtol=1e-6))


def _p_ratio(part: _Part, tpr: float, realised: float, multiple: float) -> float:
    """P-value of "TPR <= multiple x FPR" at the thresholds as they are: one that came out too low is no signal."""
    gap = tpr - multiple * realised
    if gap <= 0:
        return 1.0
    se = float(np.sqrt(part.variance(multiple)))
    return 0.0 if se == 0.0 else float(stdtr(part.degrees, -gap / se))


def _p_own(hit: Hits, inside: Hits, outside: Hits, excess: float) -> float:
    """P-value of "no more than this above the group's own false alarms": an easy class raises both rates."""
    if not outside.any():
        return 0.0
    estimate = mean_share_difference(hit, inside, outside, 0.95, "lower")
    p = p_greater(estimate, excess, max(1, min(hit.shape) - 1))
    return 1.0 if p is None else p
