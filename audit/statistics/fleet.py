"""Rates of a whole fleet: thresholds from other models, intervals clustered by model and by record.

Each statistic carries its influence values (``influence``). The threshold is estimated too: its share enters through
the density ratio R = dTPR/dFPR at the threshold.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import stdtr

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.clustered import density_ratio
from mnemoscope.audit.statistics.counts import allowed_false_positives
from mnemoscope.audit.statistics.influence import METHOD, degrees_of, influence_variance, quantile_of, rate_of
from mnemoscope.audit.statistics.proportions import Sides
from mnemoscope.audit.statistics.trials import Estimate, Interval

__all__ = ["FleetAuc", "FleetRate", "FleetScores"]

Floats = NDArray[np.float64]


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
        return rate_of(self.tp, self.n_in, self.influence, level, sides)

    def fpr_estimate(self, level: float = 0.95, sides: Sides = "two") -> Estimate:
        """Realised FPR with a clustered interval that is never shorter than Clopper-Pearson's."""
        return rate_of(self.fp, self.n_out, self.influence_fpr, level, sides)

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
        return 0.0 if se == 0.0 else float(stdtr(degrees_of(influence), -gap / se))

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
        half = quantile_of(level, "two", self.influence) * np.sqrt(influence_variance(self.influence))
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
        """TPR at one target FPR, residual and over-forgotten, without intervals, for permutation tests."""
        return self.hit_shares_at([fpr])[0]

    def hit_shares_at(self, fprs: Sequence[float]) -> list[tuple[float, float]]:
        """``hit_shares`` at several target FPRs, each what it would be alone.

        One threshold a fold, set on all its out cells: any statistic will do where its own permutations judge it.
        """
        hits = np.zeros((len(fprs), 2), np.int64)
        for f in np.unique(self.fold):
            inside = self.fold == f
            score, side = self.score[inside], self.side[inside]
            out, own = score[side == 0], score[side == 1]
            allowed = [int(np.floor(fpr * out.size + 1e-9)) for fpr in fprs]
            ordered = np.partition(out, sorted({k for a in allowed for k in (a, out.size - 1 - a)}))
            for i, a in enumerate(allowed):
                hits[i] += (int((own > ordered[out.size - 1 - a]).sum()), int((own < ordered[a]).sum()))
        total = int((self.side == 1).sum())
        return [(int(high) / total, int(low) / total) for high, low in hits]

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
        half = quantile_of(level, "two", influence) * float(np.sqrt(influence_variance(influence)))
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

    def hits(self, fpr: float, tail: Literal["residual", "over-forgotten"] = "residual") -> NDArray[np.bool_]:
        """(m, n) bool: cells that are flagged at the thresholds of ``rates``, those that take no part included."""
        score = self.score if tail == "residual" else -self.score
        flagged: NDArray[np.bool_] = score >= self._thresholds(score, [fpr])[fpr][:, None]
        return flagged

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
