"""Rates of one model at thresholds fixed on other records, and their differences from retrained models.

Every record is judged at a threshold that was set on records disjoint from it. Where no calibration records are given,
the holdout serves twice: it is dealt into two halves, each half is judged at the other's threshold, and so is half of
the forget records. Compared with setting half of the holdout aside this doubles what both the threshold and the
realised false-alarm rate rest on; the two halves' errors cancel in the realised rate, whose exact interval then
is the right one for the mean of both thresholds' true rates.
"""

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, betaln, stdtr, stdtrit

from mnemoscope.audit.statistics.clustered import density_ratio
from mnemoscope.audit.statistics.delong import placements
from mnemoscope.audit.statistics.proportions import clopper_pearson_limits
from mnemoscope.audit.statistics.roc import threshold_at
from mnemoscope.audit.statistics.trials import Estimate, Interval
from mnemoscope.audit.verdict.result import Tail

__all__ = [
    "Board",
    "Difference",
    "Group",
    "Influence",
    "TailRate",
    "auc_influence",
    "deal",
    "p_above_ratio",
    "tail_rate",
]

Floats = NDArray[np.float64]
FEW = 5
"""Below this many hits the normal width of a difference is not trusted alone."""


class Group(IntEnum):
    """What a record is in a one-model audit; names in lower case are those of prediction files."""

    FORGET = 0
    HOLDOUT = 1
    RETAIN = 2
    CALIBRATION = 3
    POPULATION = 4


@dataclass(frozen=True, eq=False)
class Board:
    """Who is judged by whom.

    Attributes:
        group: (n,) int8 of ``Group``.
        sets: (n,) int8, the threshold a record helps to set; -1 = none.
        judged: (n,) int8, the threshold it is judged at; -1 = not judged.
    """

    group: NDArray[np.int8]
    sets: NDArray[np.int8]
    judged: NDArray[np.int8]

    def take(self, rows: NDArray[np.bool_]) -> "Board":
        """The same deal on a part of the records."""
        return Board(self.group[rows], self.sets[rows], self.judged[rows])

    def rows(self, group: Group) -> NDArray[np.bool_]:
        """(n,) bool, the records of a group."""
        found: NDArray[np.bool_] = self.group == group
        return found


def deal(group: NDArray[np.int8], labels: NDArray[np.int64], rng: np.random.Generator) -> Board:
    """Deal thresholds: all from the calibration records, or crosswise between two halves of the holdout.

    Args:
        group: (n,) int8 of ``Group``.
        labels: (n,) int64; halves are balanced within each class and group.
        rng: seeded generator.
    """
    sets, judged = np.full(group.size, -1, np.int8), np.full(group.size, -1, np.int8)
    calibration = group == Group.CALIBRATION
    if calibration.any():
        sets[calibration] = 0
        judged[~calibration & (group != Group.POPULATION)] = 0
        return Board(group, sets, judged)
    for g in (Group.FORGET, Group.HOLDOUT, Group.RETAIN):
        rows = np.flatnonzero(group == g)
        # Sorted by class with random order inside: alternating rows then differ by at most one in every class.
        order = rows[np.lexsort((rng.random(rows.size), labels[rows]))]
        judged[order[0::2]], judged[order[1::2]] = 0, 1
    holdout = group == Group.HOLDOUT
    sets[holdout] = 1 - judged[holdout]
    return Board(group, sets, judged)


@dataclass(frozen=True, eq=False)
class TailRate:
    """TPR and realised FPR of one model in one tail.

    Attributes:
        alpha: target FPR.
        tail: "residual" flags high scores, "over-forgotten" low ones.
        k, n: flagged and all records of the judged group.
        fp, n_out: flagged and all holdout records that are judged.
        shape: parameters (a, b) of the Beta law of the thresholds' true FPR, where nothing ties.
        hit: (n_board,) bool, flagged.
        exceeds: (n_board,) bool, at or above the threshold that the record helps to set.
    """

    alpha: float
    tail: Tail
    k: int
    n: int
    fp: int
    n_out: int
    shape: tuple[float, float]
    hit: NDArray[np.bool_]
    exceeds: NDArray[np.bool_]

    def p_above(self, ratio: float) -> float:
        """One-sided p-value of TPR <= ratio x FPR, the threshold's own noise included."""
        return p_above_ratio(self.k, self.n, ratio, self.shape)


def tail_rate(score: Floats, board: Board, alpha: float, tail: Tail, group: Group = Group.FORGET) -> TailRate:
    """Count flagged records of a group and of the holdout at thresholds for ``alpha``.

    Args:
        score: (n,) float64 of one model on the board's records.
        board: the deal.
        alpha: target FPR.
        tail: which scores are flagged.
        group: whose rate is the TPR.
    """
    signed = score if tail == "residual" else -score
    hit, exceeds = np.zeros(score.size, np.bool_), np.zeros(score.size, np.bool_)
    a = b = 0.0
    for fold in np.unique(board.sets[board.sets >= 0]):
        own, judged = board.sets == fold, board.judged == fold
        out = signed[own]
        level = threshold_at(out, alpha)
        exceeds[own] = out >= level
        hit[judged] = signed[judged] >= level
        above = int(np.count_nonzero(exceeds[own]))
        # The above-th largest of n draws; where a tie block is in the way, the next one bounds it.
        tied = above < math.floor(alpha * out.size + 1e-9)
        a += above + tied
        b += out.size + 1 - above - tied
    target, holdout = board.rows(group), board.rows(Group.HOLDOUT) & (board.judged >= 0)
    return TailRate(
        alpha, tail, int((hit & target).sum()), int(target.sum()), int((hit & holdout).sum()), int(holdout.sum()),
        (a, b), hit, exceeds,
    )  # fmt: skip


def p_above_ratio(k: int, n: int, ratio: float, shape: tuple[float, float]) -> float:
    """P(at least k of n hits) if TPR = ratio x FPR, over the Beta law of the threshold's true FPR.

    Exact for continuous scores, so that a threshold that came out too low by chance is not taken for a signal.

    Args:
        k: hits.
        n: records.
        ratio: TPR / FPR under the hypothesis.
        shape: (a, b) of the Beta law.

    >>> round(p_above_ratio(20, 100, 2.0, (5000.0, 95000.0)), 3)  # a threshold known well: binomial at 10 %
    0.002
    """
    if k <= 0:
        return 1.0
    a, b = shape
    if a <= 0:
        return 0.0
    # Integrate in the logit of the FPR around its mode, wide enough that the neglected mass is below 1e-12.
    centre, width = math.log(a / b), 10.0 / math.sqrt(1.0 / (1.0 / a + 1.0 / b))
    y = np.linspace(centre - 3 * width, centre + 3 * width, 2001)
    log_f, log_1f = -np.logaddexp(0.0, -y), -np.logaddexp(0.0, y)
    density = np.exp(a * log_f + b * log_1f - betaln(a, b))
    tail = betainc(k, n - k + 1, np.minimum(1.0, ratio * np.exp(log_f)))
    return float(min(1.0, np.sum(density * tail) * (y[1] - y[0])))


@dataclass(frozen=True, eq=False)
class Influence:
    """A statistic of one model with each record's first-order share in its error, (n_board,) float64."""

    value: float
    share: Floats


def rate_influence(score: Floats, board: Board, rate: TailRate, group: Group = Group.FORGET) -> Influence:
    """The TPR with shares of the judged records and of those that set the thresholds."""
    signed = score if rate.tail == "residual" else -score
    target = board.rows(group)
    share = np.where(target, (rate.hit - rate.k / rate.n) / rate.n, 0.0)
    setters = board.sets >= 0
    slope = density_ratio(signed[target], signed[setters], rate.alpha)
    for fold in np.unique(board.sets[setters]):
        own = board.sets == fold
        weight = int((target & (board.judged == fold)).sum()) / rate.n
        exceeds = rate.exceeds[own]
        share[own] -= slope * weight * (exceeds - exceeds.mean()) / exceeds.size
    return Influence(rate.k / rate.n, share)


def auc_influence(score: Floats, board: Board) -> Influence:
    """AUC of forget against holdout records with DeLong's placement values as shares."""
    forget, holdout = board.rows(Group.FORGET), board.rows(Group.HOLDOUT)
    v10, v01 = placements(score[forget], score[holdout])
    value = float(v10.mean())
    share = np.zeros(score.size)
    share[forget] = (v10 - value) / v10.size
    share[holdout] = (v01 - value) / v01.size
    return Influence(value, share)


@dataclass(frozen=True)
class Difference:
    """One model minus the mean of retrained models, hierarchical: records, and retrained models as a sample.

    Attributes:
        value: the difference.
        se: standard error from records (paired) and from the between-model variance over their number.
        df: Satterthwaite's degrees of freedom.
        floor: (low, high) distances below which the interval never falls; 0 where not needed.
    """

    value: float
    se: float
    df: float
    floor: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def of(cls, pairs: "list[tuple[Influence, Influence]]", counts: tuple[int, int] | None = None) -> "Difference":
        """Pairs (this model, retrained model j), both scored with the same references, j among neither's.

        Args:
            pairs: one for each retrained model.
            counts: (records, hits of both) of a rate, for the floor at few hits.
        """
        ours = np.array([a.share for a, _ in pairs])
        theirs = np.array([b.share for _, b in pairs])
        values = np.array([b.value for _, b in pairs])
        r, n = theirs.shape
        value = float(np.mean([a.value for a, _ in pairs]) - values.mean())
        gap = ours.mean(axis=0) - theirs.mean(axis=0)
        records = float((gap**2).sum()) * n / max(1, n - 1)
        # What spreads beyond the records' own noise is a difference between training runs.
        between = max(0.0, float(values.var(ddof=1) - theirs.var(axis=0, ddof=1).sum())) / r if r > 1 else 0.0
        total = records + between
        spread = records**2 / max(1, n - 1) + (between**2 / (r - 1) if r > 1 else 0.0)
        df = total**2 / spread if spread > 0 else float(max(1, n - 1))
        floor = (0.0, 0.0)
        if counts is not None and counts[1] < 2 * FEW:
            size = counts[0]
            a, b = float(np.mean([x.value for x, _ in pairs])), float(values.mean())
            (la, lb), (ua, ub) = clopper_pearson_limits(np.array([a, b]) * size, size, 0.90)
            floor = (math.hypot(a - float(la), float(ub) - b), math.hypot(float(ua) - a, b - float(lb)))
        return cls(value, math.sqrt(total), df, floor)

    def interval(self, level: float, sides: Literal["two", "upper", "lower"] = "two") -> Interval:
        """Limits with a t quantile."""
        t = float(stdtrit(self.df, 0.5 + level / 2 if sides == "two" else level))
        low = -1.0 if sides == "upper" else max(-1.0, self.value - max(t * self.se, self.floor[0]))
        high = 1.0 if sides == "lower" else min(1.0, self.value + max(t * self.se, self.floor[1]))
        return Interval(low, high, level, sides, "paired by record, hierarchical over retrained models")

    def estimate(self, level: float, sides: Literal["two", "upper", "lower"] = "two", n: int | None = None) -> Estimate:
        """The difference with its interval."""
        return Estimate(self.value, self.interval(level, sides), n=n)

    def p_above(self, bound: float) -> float:
        """One-sided p-value of difference <= bound."""
        se = max(self.se, self.floor[0] / 1.645)
        if se == 0.0:
            return 0.0 if self.value > bound else 1.0
        return float(stdtr(self.df, -(self.value - bound) / se))

    def p_beyond(self, margin: float) -> float:
        """p-value of |difference| <= margin, one-sided on the side where it lies."""
        return Difference(abs(self.value), self.se, self.df, (max(self.floor), max(self.floor))).p_above(margin)
