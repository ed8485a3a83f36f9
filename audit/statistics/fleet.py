"""Rates of a whole fleet: thresholds from other models, variances clustered by model and by record.

Every (model, record) cell of an (m, n) score array is one trial. Cells share models and records, so a binomial interval
is too short. Each statistic is written as a sum of influence values over cells, and its variance is the two-way
cluster-robust V_model + V_record - V_cell (Cameron, Gelbach and Miller 2011, "Robust inference with multiway
clustering"). The threshold is estimated too: its share enters through the density ratio R = dTPR/dFPR at the threshold.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import stdtr, stdtrit

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.clustered import clustered_limits, density_ratio
from mnemoscope.audit.statistics.counts import allowed_false_positives
from mnemoscope.audit.statistics.proportions import Sides, clopper_pearson_limits
from mnemoscope.audit.statistics.trials import Estimate, Interval

__all__ = [
    "FleetAuc",
    "FleetRate",
    "FleetScores",
    "difference",
    "mean_difference",
    "mean_share_difference",
    "p_greater",
    "paired_share_difference",
    "share",
    "influence_variance",
]

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


@dataclass(frozen=True, eq=False)
class FleetRate:
    """TPR and realised FPR of one tail at one target FPR, with what their intervals need.

    Attributes:
        fpr_target: the FPR the thresholds were set for, on other models.
        tp, n_in, fp, n_out: counts.
        influence: (m, n) float64 influence of each cell on the TPR, threshold's share included.
        influence_fpr: (m, n) float64 influence of each cell on the realised FPR at the thresholds as they are.
        ratio: dTPR/dFPR at the threshold.
    """

    fpr_target: float
    tp: int
    n_in: int
    fp: int
    n_out: int
    influence: Floats
    influence_fpr: Floats
    ratio: float

    @property
    def tpr(self) -> float:
        """Point estimate of the TPR."""
        return self.tp / self.n_in

    @property
    def fpr(self) -> float:
        """Realised FPR."""
        return self.fp / self.n_out

    def tpr_estimate(self, level: float = 0.95, sides: Sides = "two") -> Estimate:
        """TPR with a clustered interval that is never shorter than Clopper-Pearson's at the same counts."""
        return _rate(self.tp, self.n_in, self.influence, level, sides)

    def fpr_estimate(self, level: float = 0.95, sides: Sides = "two") -> Estimate:
        """Realised FPR with a clustered interval that is never shorter than Clopper-Pearson's."""
        return _rate(self.fp, self.n_out, self.influence_fpr, level, sides)

    def p_above(self, bound: float) -> float:
        """One-sided p-value of "the TPR is at most the bound".

        The bound is a multiple of the target FPR. Where the realised FPR is higher than the target, the same multiple
        of it is allowed: a threshold that came out too low is no signal. The p-value is the larger of both tests'; each
        is the error at which its lower limit reaches the bound.
        """
        multiple = bound / self.fpr_target
        if self.tpr <= bound or self.tpr <= multiple * self.fpr:
            return 1.0
        return max(self._p_over(bound), self._p_ratio(multiple))

    def _p_ratio(self, multiple: float) -> float:
        """P-value of "TPR <= multiple x FPR" at the thresholds as they are."""
        influence = self.influence + (self.ratio - multiple) * self.influence_fpr
        gap = self.tpr - multiple * self.fpr
        se = float(np.sqrt(influence_variance(influence)))
        return 0.0 if se == 0.0 else float(stdtr(_degrees(influence), -gap / se))

    def _p_over(self, bound: float) -> float:
        """P-value of "TPR <= bound" at the target FPR, the threshold's error included."""

        def low(p: float) -> float:
            limit = self.tpr_estimate(1.0 - p, "lower").low
            assert limit is not None
            return limit - bound

        # Below the first no decision changes and quantiles lose their digits; above the second nothing is rejected.
        smallest, largest = 1e-12, 0.49
        if low(smallest) > 0:
            return smallest
        return largest if low(largest) < 0 else float(brentq(low, smallest, largest, xtol=1e-13, rtol=1e-6))


@dataclass(frozen=True, eq=False)
class FleetAuc:
    """AUC over pooled cells with its influence values (DeLong's placement values)."""

    value: float
    influence: Floats
    n_in: int
    n_out: int

    def estimate(self, level: float = 0.95) -> Estimate:
        """AUC with a clustered interval; NaN-free, clipped to [0, 1]."""
        half = _quantile(level, "two", self.influence) * np.sqrt(influence_variance(self.influence))
        interval = Interval(
            max(0.0, self.value - half), min(1.0, self.value + half), level, "two", f"DeLong placement values, {METHOD}"
        )
        return Estimate(self.value, interval, n=self.n_in + self.n_out)


@dataclass(frozen=True, eq=False)
class FleetScores:
    """Scores of a fleet in one game.

    Attributes:
        score: (m, n) float64, higher = more likely in.
        side: (m, n) int8, 1 in, 0 out, -1 takes no part.
        fold: (m,) integer folds of models, at least two.
    """

    score: Floats
    side: NDArray[np.int8]
    fold: NDArray[np.integer]

    def __post_init__(self) -> None:
        if self.score.shape != self.side.shape or self.fold.shape != self.score.shape[:1]:
            raise InvalidInput(
                f"FleetScores: score {self.score.shape} and side {self.side.shape} must agree, "
                f"and fold {self.fold.shape} must be ({self.score.shape[0]},)"
            )
        if not (self.side == 1).any() or not (self.side == 0).any():
            raise InvalidInput("FleetScores: the game has no cell on one side; both are needed for a rate")
        if np.unique(self.fold).size < 2:
            raise InvalidInput(
                "FleetScores: at least 2 folds of models are needed, attacks that learn are fitted on other folds"
            )

    def auc(self) -> FleetAuc:
        """AUC of pooled cells, ties counted half."""
        cells_in, cells_out = self.side == 1, self.side == 0
        s1, s0 = self.score[cells_in], self.score[cells_out]
        v10, v01 = _shares_below(s1, s0), 1.0 - _shares_below(s0, s1)
        value = float(v10.mean())
        influence = np.zeros(self.score.shape)
        influence[cells_in] = (v10 - value) / s1.size
        influence[cells_out] = (v01 - value) / s0.size
        return FleetAuc(value, influence, int(s1.size), int(s0.size))

    def auc_value(self) -> float:
        """AUC alone, without influence values: what a permutation test calls thousands of times."""
        s1 = np.sort(self.score[self.side == 1])  # ascending keys search several times faster
        s0 = np.sort(self.score[self.side == 0])
        below = np.searchsorted(s0, s1, "left") + np.searchsorted(s0, s1, "right")
        return float(below.sum() / (2.0 * s1.size * s0.size))

    def hit_shares(self, fpr: float) -> tuple[float, float]:
        """TPR at one target FPR, residual and over-forgotten, without intervals, for permutation tests.

        One threshold a fold, set on all its out cells: any statistic will do where its own permutations judge it.
        """
        shares = []
        for sign in (1.0, -1.0):
            score = sign * self.score
            hits = 0
            for f in np.unique(self.fold):
                inside = self.fold == f
                out = score[inside][self.side[inside] == 0]
                allowed = int(np.floor(fpr * out.size + 1e-9))
                level = np.partition(out, out.size - 1 - allowed)[out.size - 1 - allowed]
                hits += int((score[inside][self.side[inside] == 1] > level).sum())
            shares.append(hits / int((self.side == 1).sum()))
        return shares[0], shares[1]

    def best_accuracy(self, level: float = 0.95) -> Estimate:
        """Balanced accuracy at the threshold that is best on other models of the same fold."""
        cells_in, cells_out = self.side == 1, self.side == 0
        threshold = np.empty(self.fold.shape)
        for f in np.unique(self.fold):
            members = np.flatnonzero(self.fold == f)
            for half in (0, 1):
                rest, own = members[1 - half :: 2], members[half::2]
                if rest.size == 0:  # a fold of one model has no other: take what there is
                    rest = members
                s1 = np.sort(self.score[rest][cells_in[rest]])
                s0 = np.sort(self.score[rest][cells_out[rest]])
                levels = np.unique(np.concatenate([s1, s0]))
                advantage = np.searchsorted(s0, levels) / max(1, s0.size)
                advantage -= np.searchsorted(s1, levels) / max(1, s1.size)
                threshold[own] = levels[int(np.argmax(advantage))] if levels.size else 0.0
        return self.accuracy_at(threshold, level)

    def accuracy_at(self, threshold: Floats, level: float = 0.95) -> Estimate:
        """Balanced accuracy of "in at score >= threshold", one threshold (m,) a model, set without its truth."""
        cells_in, cells_out = self.side == 1, self.side == 0
        hit = self.score >= threshold[:, None]
        tpr, fpr = hit[cells_in].mean(), hit[cells_out].mean()
        influence = np.where(cells_in, (hit - tpr) / cells_in.sum(), 0.0)
        influence -= np.where(cells_out, (hit - fpr) / cells_out.sum(), 0.0)
        influence /= 2.0
        value = float(0.5 + (tpr - fpr) / 2.0)
        half = _quantile(level, "two", influence) * float(np.sqrt(influence_variance(influence)))
        interval = Interval(max(0.0, value - half), min(1.0, value + half), level, "two", METHOD)
        return Estimate(value, interval, n=int(cells_in.sum() + cells_out.sum()))

    def _thresholds(self, score: Floats, fprs: Sequence[float]) -> dict[float, Floats]:
        """For each target FPR one threshold a model, reached by at most that share of its fold's other models' outs.

        Only models of the same fold serve: an attack that learns scores each fold by a fit of its own.
        """
        result = {fpr: np.empty(self.fold.shape) for fpr in fprs}
        for f in np.unique(self.fold):
            members = np.flatnonzero(self.fold == f)
            model, record = np.nonzero(self.side[members] == 0)
            values = score[members[model], record]
            # Only the highest scores can be thresholds: as many as the largest target allows, and one model's own.
            most = allowed_false_positives(max(fprs), values.size) + int(np.bincount(model).max()) + 1
            if most < values.size:
                top = np.argpartition(values, values.size - most)[values.size - most :]
            else:
                top = np.arange(values.size)
            order = top[np.argsort(-values[top], kind="stable")]
            highest, owner = values[order], model[order]
            for place, k in enumerate(members):
                others = highest[owner != place]
                size = values.size - int((model == place).sum())
                if size == 0:
                    raise InvalidInput(
                        f"FleetScores: fold {f} has no out cell in another model than {k}, so no threshold can be set; "
                        "use fewer folds or more models"
                    )
                for fpr in fprs:
                    result[fpr][k] = _level(others, allowed_false_positives(fpr, size))
        return result

    def rates(self, fprs: Sequence[float], tail: Literal["residual", "over-forgotten"] = "residual") -> list[FleetRate]:
        """TPR and realised FPR at several target FPRs.

        Args:
            fprs: target false-positive rates in (0, 1).
            tail: "residual" flags high scores, "over-forgotten" flags low scores.

        Returns:
            One ``FleetRate`` for each target, in order.
        """
        score = self.score if tail == "residual" else -self.score
        cells_in, cells_out = self.side == 1, self.side == 0
        s1 = np.sort(score[cells_in])
        s0 = np.sort(score[cells_out])
        thresholds = self._thresholds(score, fprs)
        result = []
        for fpr in fprs:
            hit = score >= thresholds[fpr][:, None]
            tp, fp = int((hit & cells_in).sum()), int((hit & cells_out).sum())
            ratio = density_ratio(s1, s0, fpr)
            tpr, realised = tp / s1.size, fp / s0.size
            influence = np.where(cells_in, (hit - tpr) / s1.size, 0.0)
            share = np.where(cells_out, (hit - realised) / s0.size, 0.0)
            influence -= ratio * share
            result.append(FleetRate(fpr, tp, int(s1.size), fp, int(s0.size), influence, share, ratio))
        return result


def difference(a: FleetRate | FleetAuc, b: FleetRate | FleetAuc, level: float = 0.90, sides: Sides = "two") -> Estimate:
    """Difference a - b of the same statistic of two fleets on the same cells, with a clustered interval.

    For rates the interval is never shorter than the one built from both Clopper-Pearson intervals by the method of
    variance estimates recovery (Newcombe 1998), which has a width where there are no hits at all.
    """
    influence = a.influence - b.influence
    se = np.sqrt(influence_variance(influence))
    quantile = _quantile(level, sides, influence)
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
    half = _quantile(level, sides, influence) * float(np.sqrt(influence_variance(influence)))
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
    return _rate(k, n, np.where(cells, (hit - k / n) / n, 0.0), level, sides)


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
    half = _quantile(level, "two", influence) * float(np.sqrt(influence_variance(influence)))
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
    half = _quantile(level, sides, influence) * float(np.sqrt(influence_variance(influence)))
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


def _shares_below(queries: Floats, base: Floats) -> Floats:
    """Share of base below each query, ties counted half; ascending queries are searched several times faster."""
    order = np.argsort(queries)
    ascending, reference = queries[order], np.sort(base)
    twice = np.searchsorted(reference, ascending, "left") + np.searchsorted(reference, ascending, "right")
    shares = np.empty(queries.size)
    shares[order] = twice / (2.0 * base.size)
    return shares


def _level(descending: Floats, allowed: int) -> float:
    """The smallest score reached by at most ``allowed`` of the scores; just above all of them where there is none.

    A perfect attack with two score levels has no out score above its tie block, yet separates both sides.
    """
    if allowed >= descending.size:
        return -np.inf
    above = descending[:allowed][descending[:allowed] > descending[allowed]]
    return float(above[-1] if above.size else np.nextafter(descending[0], np.inf))


def _degrees(influence: Floats) -> float:
    return float(max(1, min(influence.shape) - 1))


def _quantile(level: float, sides: str, influence: Floats) -> float:
    return float(stdtrit(_degrees(influence), 0.5 + level / 2 if sides == "two" else level))


def _rate(k: int, n: int, influence: Floats, level: float, sides: Sides) -> Estimate:
    interval = clustered_limits(k / n, influence_variance(influence), k, n, level, sides, _degrees(influence))
    return Estimate(k / n, interval, k, n)
