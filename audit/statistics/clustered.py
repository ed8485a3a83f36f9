"""Intervals for scores of a fleet, where trials share models and records.

A fleet gives one trial for each (model, record) cell. Cells of one model share its training run, cells of one record
share its difficulty, so binomial and DeLong's formulas are too short. Each estimate is written as its value plus a sum
of influence contributions, one a cell, and the variance of that sum is V_model + V_record - V_cell (Cameron, Gelbach
and Miller 2011, JBES 29:238): squares of the sums within models, within records, and of the cells themselves, which
both of the former contain.

The contributions
-----------------
rate          (hit - p) / n for each counted cell.
AUC           (V10 - A) / n_in for in cells, (V01 - A) / n_out for out cells: DeLong's placement values, the first-order
              terms of the two-sample U-statistic. In and out cells of one record enter the same record sum.
TPR at FPR a  (1[s >= t] - T) / n_in for in cells. The threshold t solves F_out(t) = a, so an error e in the empirical
              F_out moves t by e / f_out(t) and T by -R e, with R = f_in(t) / f_out(t) = dTPR/dFPR: out cells
              contribute -R (1[s >= t] - a) / n_out. With thresholds taken from other folds of models each out cell
              enters as often in other folds' thresholds, and the same sum holds to first order.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.delong import auc_interval, placements
from mnemoscope.audit.statistics.proportions import Sides, beta_limits, clopper_pearson_limits, tail_share
from mnemoscope.audit.statistics.trials import Estimate, Interval, Trials

__all__ = [
    "Influence",
    "auc_influence",
    "clustered_limits",
    "density_ratio",
    "rate_influence",
    "tpr_influence",
    "two_way_variance",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def _codes(ids: Ints) -> tuple[int, Ints]:
    """Number of distinct ids and each one's position among them."""
    if ids.size and int(ids.min()) >= 0 and int(ids.max()) <= 4 * ids.size + 1000:
        # Small ids, the usual case, are counted in place of sorted.
        present = np.bincount(ids) > 0
        return int(np.count_nonzero(present)), (np.cumsum(present) - 1)[ids]
    unique, position = np.unique(ids, return_inverse=True)
    return int(unique.size), position.astype(np.int64)


def _effective_df(contribution: Floats, ids: Ints, by_moments: bool) -> float:
    """Clusters minus one, or fewer where fourth moments say that few carry the variance (Satterthwaite's matching)."""
    count, codes = _codes(ids)
    df = float(count - 1)
    if not by_moments:
        return df
    squares = np.bincount(codes, contribution, count) ** 2
    total = float(squares.sum())
    spread = float((squares * squares).sum()) - total * total / count
    return df if spread <= 0.0 else min(df, 2.0 * total * total / spread)


def _variance(contribution: Floats, model: Ints, record: Ints) -> float:
    """V_model + V_record - V_cell of a sum, floored; with one model only records vary."""
    m, by_model = _codes(model)
    n, by_record = _codes(record)
    if n < 2:
        return math.nan
    record_sums = np.bincount(by_record, contribution, n)
    v_record = float(record_sums @ record_sums) * n / (n - 1)
    if m < 2:
        return v_record
    model_sums = np.bincount(by_model, contribution, m)
    v_model = float(model_sums @ model_sums) * m / (m - 1)
    cell = by_model * n + by_record
    # A sort is avoided where each cell stands once, which is the usual case.
    if contribution.size * 4 > m * n:
        cell_sums = np.bincount(cell, contribution, m * n)
    else:
        unique, position = np.unique(cell, return_inverse=True)
        cell_sums = np.bincount(position, contribution, unique.size)
    v_cell = float(cell_sums @ cell_sums)
    # If cells of one record (or of one model) are not negatively correlated on average, the sum's variance is at
    # least that of the other clustering alone; balanced designs make one of them negative, hardly ever both.
    return max(v_model + v_record - v_cell, min(v_model, v_record))


def two_way_variance(values: Floats, mask: NDArray[np.bool_] | None = None) -> float:
    """Variance of the mean of an (m, n) array whose rows (models) and columns (records) are both sampled.

    Args:
        values: (m, n) float64, e.g. hits or influence values.
        mask: (m, n) bool, cells that count; None counts all.

    Returns:
        V_model + V_record - V_cell of the masked mean, with the g/(g-1) corrections, never below
        min(V_model, V_record). With a single model only V_record (the statement then is about this model).
        NaN for fewer than two records.
    """
    if values.ndim != 2 or (mask is not None and mask.shape != values.shape):
        shape = None if mask is None else mask.shape
        raise InvalidInput(f"two_way_variance: values {values.shape} and mask {shape} must be one (m, n) shape")
    cells = np.ones(values.shape, np.bool_) if mask is None else mask
    model, record = np.nonzero(cells)
    if model.size == 0:
        raise InvalidInput("two_way_variance: no cell counts")
    counted = np.asarray(values, np.float64)[cells]
    return _variance((counted - counted.mean()) / counted.size, model, record)


def clustered_limits(
    value: float,
    variance: float,
    k: int,
    n: int,
    level: float = 0.95,
    sides: Sides = "two",
    df: float | None = None,
) -> Interval:
    """Limits of a rate from its clustered variance, never tighter than Clopper and Pearson's at the same counts.

    The variance becomes an effective number of trials p (1 - p) / variance, shrunk by the squared ratio of the normal
    to the t quantile (Korn and Graubard 1998, Survey Methodology 24:193), and Jeffreys' limits are taken at the
    effective counts: unlike estimate +- t SE they follow the skewness of rare events and stay within [0, 1].

    Args:
        value: the rate, k / n.
        variance: its variance, e.g. of ``two_way_variance``.
        k: events.
        n: trials, all of them, not the effective number.
        level: confidence.
        sides: "two", or the single limit wanted.
        df: degrees of freedom, usually min(models, records) - 1; None takes the normal quantile.

    Returns:
        The wider of both limits on each side asked for. At zero events the variance is zero too and
        Clopper-Pearson alone remains.
    """
    if not 0.0 <= value <= 1.0 or not variance >= 0.0:
        raise InvalidInput(f"value={value!r} must lie in [0, 1] and variance={variance!r} must not be negative")
    tail = tail_share(level, sides)
    exact_low, exact_high = clopper_pearson_limits(k, n, level, sides)
    low, high = float(exact_low), float(exact_high)
    if variance > 0.0 and 0.0 < value < 1.0:
        shrink = 1.0 if df is None else float(ndtri(tail) / stdtrit(df, tail)) ** 2
        effective = min(float(n), value * (1.0 - value) / variance * shrink)
        beta_low, beta_high = beta_limits(value * effective, effective, tail, 0.5)
        low = 0.0 if sides == "upper" else min(low, float(beta_low))
        high = 1.0 if sides == "lower" else max(high, float(beta_high))
    return Interval(low, high, level, sides, "clustered, effective counts, at least Clopper-Pearson")


@dataclass(frozen=True, eq=False)
class Influence:
    """An estimate over cells with the contribution of each cell to its error.

    Attributes:
        value: the estimate.
        contribution: (t,) float64, first-order share of each cell in the error; sums to about zero.
        model_id: (t,) int64; equal ids mean the same cluster, also across the two sides of a difference.
        record_id: (t,) int64.
        kind: "rate", "auc" or "difference": the scale of its interval.
        k: events, for rates.
        n_in: trials of a rate, or in trials of an AUC.
        n_out: out trials behind a threshold or an AUC, 0 where none.
    """

    value: float
    contribution: Floats
    model_id: Ints
    record_id: Ints
    kind: str
    k: int | None
    n_in: int
    n_out: int

    def __sub__(self, other: "Influence") -> "Influence":
        """Difference of two estimates: cells with the same model and record are paired, all others just share clusters.

        Two fleets of the same design give the same ids to the same cells; fleets of unrelated models must use
        different model ids.
        """
        same = np.array_equal(self.model_id, other.model_id) and np.array_equal(self.record_id, other.record_id)
        if same:
            contribution, model, record = self.contribution - other.contribution, self.model_id, self.record_id
        else:
            contribution = np.concatenate([self.contribution, -other.contribution])
            model = np.concatenate([self.model_id, other.model_id])
            record = np.concatenate([self.record_id, other.record_id])
        n_out = self.n_out + other.n_out
        return Influence(
            self.value - other.value, contribution, model, record, "difference", None, self.n_in + other.n_in, n_out
        )

    @property
    def df(self) -> float:
        """Degrees of freedom of the t quantile: the smaller number of clusters minus one, of records for one model.

        For rates and differences it is also no more than 2 / (relative variance of the sum of squared cluster sums):
        where few models or records hold most false positives, few clusters inform.
        """
        clusters = [self.record_id]
        if _codes(self.model_id)[0] > 1:
            clusters.append(self.model_id)
        return max(2.0, min(_effective_df(self.contribution, ids, self.kind != "auc") for ids in clusters))

    @property
    def variance(self) -> float:
        """Two-way variance of the estimate (records only for a single model)."""
        return _variance(self.contribution, self.model_id, self.record_id)

    def interval(self, level: float = 0.95, sides: Sides = "two") -> Interval:
        """Limits with t quantiles: effective counts for rates, logit scale for an AUC, plain for differences."""
        variance = self.variance
        if math.isnan(variance):
            raise InvalidInput("a clustered interval needs at least two records")
        if self.kind == "rate" and self.k is not None:
            return clustered_limits(self.value, variance, self.k, self.n_in, level, sides, self.df)
        if self.kind == "auc":
            n, _ = _codes(self.record_id)
            limits = auc_interval(
                self.value, math.sqrt(variance), min(self.n_in, n), min(self.n_out, n), level, sides, self.df
            )
            return Interval(limits.lower, limits.upper, level, sides, f"{limits.method}, clustered")
        half = float(-stdtrit(self.df, tail_share(level, sides))) * math.sqrt(variance)
        low = -1.0 if sides == "upper" else max(-1.0, self.value - half)
        high = 1.0 if sides == "lower" else min(1.0, self.value + half)
        return Interval(low, high, level, sides, "difference clustered by model and record")

    def estimate(self, level: float = 0.95, sides: Sides = "two") -> Estimate:
        """The value with its interval; counts for rates."""
        n = self.n_in if self.kind == "rate" else self.n_in + self.n_out
        return Estimate(self.value, self.interval(level, sides), self.k, n)


def rate_influence(hit: NDArray[np.bool_], model_id: Ints, record_id: Ints) -> Influence:
    """Share of hits among trials, with contributions.

    Args:
        hit: (t,) bool.
        model_id: (t,) int64.
        record_id: (t,) int64.

    Raises:
        InvalidInput: no trial.
    """
    if hit.size == 0:
        raise InvalidInput("rate_influence: no trial to count")
    k, n = int(np.count_nonzero(hit)), int(hit.size)
    return Influence(k / n, (hit - k / n) / n, model_id, record_id, "rate", k, n, 0)


def auc_influence(trials: Trials) -> Influence:
    """AUC over pooled trials, ties counted half, with DeLong's placement values as contributions."""
    v10, v01 = placements(trials.in_scores, trials.out_scores)
    value = float(v10.mean())
    contribution = np.empty(trials.score.size)
    contribution[trials.is_in] = (v10 - value) / v10.size
    contribution[~trials.is_in] = (v01 - value) / v01.size
    return Influence(value, contribution, trials.model_id, trials.record_id, "auc", None, int(v10.size), int(v01.size))


def density_ratio(in_scores: Floats, out_scores: Floats, fpr: float, *, spread: float = 2.0) -> float:
    """Slope dTPR/dFPR of the ROC at an FPR: the density of in scores over that of out scores at the threshold.

    In normal scores (the probit of both rates) ROC curves are nearly straight: exactly so for shifted or scaled bell
    curves and where nothing leaks. So the slope is measured there, between fpr / spread and fpr x spread, and carried
    back: slope x phi(probit TPR) / phi(probit FPR). A secant of the rates themselves is too flat by 6 to 25 %.

    Args:
        in_scores: (n_in,) finite scores.
        out_scores: (n_out,) finite scores.
        fpr: where on the ROC, in (0, 1).
        spread: ratio of the window's ends to its middle, above 1.

    Returns:
        The slope, not negative; 1 (no leak) where tied out scores leave the window without an inside.
    """
    if not (0.0 < fpr < 1.0 and spread > 1.0) or min(in_scores.size, out_scores.size) == 0:
        raise InvalidInput(
            f"density_ratio: fpr={fpr!r} must lie in (0, 1), spread={spread!r} above 1, both sides need scores"
        )
    s1, s0 = np.sort(in_scores), np.sort(out_scores)
    ranks = np.array([fpr / spread, fpr, min(fpr * spread, (1.0 + fpr) / 2.0)]) * s0.size
    levels = s0[s0.size - np.clip(np.rint(ranks).astype(np.int64), 1, s0.size)]
    # Half a count on either side keeps the probits finite at none and at all.
    tpr = (s1.size - np.searchsorted(s1, levels, "left") + 0.5) / (s1.size + 1.0)
    realised = (s0.size - np.searchsorted(s0, levels, "left") + 0.5) / (s0.size + 1.0)
    y, x = ndtri(tpr), ndtri(realised)
    if x[2] - x[0] <= 0.0:
        return 1.0
    return float((y[2] - y[0]) / (x[2] - x[0]) * np.exp((x[1] ** 2 - y[1] ** 2) / 2.0))


def tpr_influence(trials: Trials, flagged: NDArray[np.bool_], *, ratio: float, fpr: float | None = None) -> Influence:
    """TPR at decisions whose thresholds were set on these trials' own out scores, the threshold's share included.

    Args:
        trials: scores with truth.
        flagged: (t,) bool decisions, score >= threshold: one threshold, or one for each fold of models.
        ratio: dTPR/dFPR at the threshold (see :func:`density_ratio`); 0 leaves the threshold's share out, which is
            right for a threshold from records and models outside these trials.
        fpr: rate the out contributions are centred at; None takes the realised one.

    Raises:
        InvalidInput: no in or no out trial, shapes that differ, or a ratio that is negative.
    """
    n_in = int(np.count_nonzero(trials.is_in))
    n_out = trials.score.size - n_in
    if flagged.shape != trials.score.shape or min(n_in, n_out) == 0 or not ratio >= 0.0:
        raise InvalidInput(
            f"tpr_influence: flagged {flagged.shape} must match {trials.score.shape} trials, both sides are needed "
            f"({n_in} in, {n_out} out) and ratio={ratio!r} must not be negative"
        )
    tp = int(np.count_nonzero(flagged & trials.is_in))
    fp = int(np.count_nonzero(flagged)) - tp
    level = fp / n_out if fpr is None else fpr
    contribution = np.where(trials.is_in, (flagged - tp / n_in) / n_in, -ratio * (flagged - level) / n_out)
    return Influence(tp / n_in, contribution, trials.model_id, trials.record_id, "rate", tp, n_in, n_out)
