"""Lower bounds on the epsilon of differential privacy from an attack's counts, valid at their stated confidence.

(eps, delta)-DP implies TPR <= e^eps FPR + delta and TNR <= e^eps FNR + delta for every test that is fixed before it
sees the trials (Kairouz, Oh and Viswanath 2015, arXiv 1311.0776; Jagielski, Ullman and Oprea 2020, arXiv 2006.07709).
Two one-sided Clopper-Pearson limits, on TPR from below and FPR from above, each at half of the error, hold together at
the stated level. They serve both inequalities: TNR = 1 - FPR and FNR = 1 - TPR, so no further split is due. Nothing is
maximised over thresholds, guess counts or kinds of interval on the counts that are reported.

``EpsilonBound`` is the one shape of all bounds; what a bound is worth depends on what its trials were (``TRIALS``).
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.delong import finite_scores
from mnemoscope.audit.statistics.proportions import check_counts, check_level, clopper_pearson_limits
from mnemoscope.audit.statistics.trials import Estimate, Interval

__all__ = [
    "LARGEST",
    "TRIALS",
    "EpsilonBound",
    "TrialKind",
    "check_trials",
    "clopper_pearson_bounds",
    "epsilon_ceiling",
    "epsilon_from_rates",
    "epsilon_lower_bound",
    "rectangle_worth",
    "split_sides",
]

Floats = NDArray[np.float64]
TrialKind = Literal["records", "runs", "coins"]

TRIALS: dict[str, str] = {
    "records": (
        "takes the records of one model for independent trials of one pair of data sets; differential privacy speaks "
        "of the training runs of one record, so this is a heuristic wherever records act on each other"
    ),
    "runs": "each trial is a training run of its own, with one record in or out: what differential privacy speaks of",
    "coins": "each record was included by a fair coin of its own; holds for one training run, over coins and training",
}
"""What a bound quantifies over, by kind of trial."""

LARGEST = 1e6
"""Stands for the missing upper limit of a one-sided bound: a result document holds no infinity."""


@dataclass(frozen=True, kw_only=True)
class EpsilonBound:
    """A lower bound on epsilon with what it rests on.

    Attributes:
        method: how it was computed, for the reader.
        bound: epsilon is at least this, at ``level``; 0 says that these counts show nothing.
        point: plug-in value of the same counts, for description; None where there is none or it is infinite.
        ceiling: the largest bound that this many trials could give, with a perfect attack; the audit cannot support
            "epsilon is at most" anything.
        level: confidence of ``bound`` (credibility, for the Bayesian one).
        delta: the delta it is for.
        tp: in trials flagged, or guessed in.
        n_in: in trials.
        fp: out trials flagged, or guessed in.
        n_out: out trials.
        choice: how threshold or guess counts were chosen.
        assumption: what the bound quantifies over, and under which model.
        tpr_low: lower limit of the TPR, where the method uses one.
        fpr_high: upper limit of the FPR, where the method uses one.
        threshold: where the trials were flagged, where it was chosen here.
        guesses: guesses made, where some trials were abstained from.
        correct: of these, the right ones.
        mu: lower bound on the mu of Gaussian differential privacy, where the method has one.
        upper: upper end of a two-sided interval: about this attack, never about the mechanism.
    """

    method: str
    bound: float
    point: float | None
    ceiling: float
    level: float
    delta: float
    tp: int
    n_in: int
    fp: int
    n_out: int
    choice: str = "threshold fixed beforehand"
    assumption: str = ""
    tpr_low: float | None = None
    fpr_high: float | None = None
    threshold: float | None = None
    guesses: int | None = None
    correct: int | None = None
    mu: float | None = None
    upper: float | None = None

    def estimate(self) -> Estimate:
        """The bound as a number with its one-sided interval and the number of trials."""
        n = self.n_in + self.n_out if self.guesses is None else self.guesses
        return Estimate(self.bound, Interval(self.bound, LARGEST, self.level, "lower", self.method), n=n)


def epsilon_from_rates(tpr_low: ArrayLike, fpr_high: ArrayLike, delta: float = 0.0) -> Floats:
    """Return the least epsilon that both inequalities allow, from a lower limit of TPR and an upper limit of FPR.

    Args:
        tpr_low: lower limits of the TPR, any shape.
        fpr_high: upper limits of the FPR, broadcast against them.
        delta: delta of the (epsilon, delta) claim.

    Returns:
        float64 of the broadcast shape, at least 0; inf where a rate of 0 rules every epsilon out.

    >>> float(epsilon_from_rates(0.0675, 0.0056).round(2))
    2.49
    """
    return np.maximum(0.0, _log_ratios(tpr_low, fpr_high, delta))


def _log_ratios(tpr_low: ArrayLike, fpr_high: ArrayLike, delta: float) -> Floats:
    """The larger of both inequalities' log ratios, which is negative where neither shows a leak."""
    tpr, fpr = np.broadcast_arrays(np.asarray(tpr_low, np.float64), np.asarray(fpr_high, np.float64))
    best = np.full(tpr.shape, -np.inf)
    for hit, miss in ((tpr, fpr), (1.0 - fpr, 1.0 - tpr)):
        room = np.maximum(hit - delta, 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            best = np.maximum(best, np.where(room > 0.0, np.log(room) - np.log(miss), -np.inf))
    return best


def clopper_pearson_bounds(
    tp: ArrayLike, n_in: int, fp: ArrayLike, n_out: int, level: float = 0.95, delta: float = 0.0
) -> Floats:
    """Return the bound of many pairs of counts at once, each at its own threshold fixed beforehand."""
    return np.maximum(0.0, rectangle_worth(tp, n_in, fp, n_out, level, delta))


def rectangle_worth(
    tp: ArrayLike, n_in: int, fp: ArrayLike, n_out: int, level: float = 0.95, delta: float = 0.0
) -> Floats:
    """Return the bounds before they are cut off at 0, by which thresholds are ranked also where none shows a leak."""
    half = (1.0 + level) / 2.0
    tpr_low, _ = clopper_pearson_limits(tp, n_in, half, "lower")
    _, fpr_high = clopper_pearson_limits(fp, n_out, half, "upper")
    return _log_ratios(tpr_low, fpr_high, delta)


def epsilon_ceiling(n_in: int, n_out: int, level: float = 0.95, delta: float = 0.0) -> float:
    """Return the bound of a perfect attack with these counts: the most this sample could show.

    >>> round(epsilon_ceiling(1000, 1000), 2)
    5.6
    """
    check_trials(n_in, n_out, level, delta)
    return float(clopper_pearson_bounds(n_in, n_in, 0, n_out, level, delta))


def check_trials(n_in: int, n_out: int, level: float, delta: float, trials: str = "records") -> None:
    """Raise ``InvalidInput`` unless there are trials on both sides and level, delta and kind of trial are possible."""
    check_level(level)
    if min(n_in, n_out) < 1:
        raise InvalidInput(f"an epsilon bound needs trials on both sides, given n_in={n_in}, n_out={n_out}")
    if not 0.0 <= delta < 1.0:
        raise InvalidInput(f"delta={delta!r} must lie in [0, 1)")
    if trials not in get_args(TrialKind):
        raise InvalidInput(f"trials={trials!r} is unknown; allowed: {', '.join(TRIALS)}")


def epsilon_lower_bound(
    tp: int,
    n_in: int,
    fp: int,
    n_out: int,
    level: float = 0.95,
    delta: float = 0.0,
    *,
    trials: TrialKind = "records",
) -> EpsilonBound:
    """Bound epsilon from below at a threshold fixed before these trials were seen.

    Args:
        tp: flagged in trials.
        n_in: in trials, independent given the mechanism.
        fp: flagged out trials.
        n_out: out trials.
        level: one-sided confidence of the bound.
        delta: delta of the (epsilon, delta) claim.
        trials: what a trial is, for the reader (``TRIALS``).

    Returns:
        The bound, its plug-in point value and the ceiling of this sample.

    Raises:
        InvalidInput: counts that cannot be, a level or delta out of range.

    >>> round(epsilon_lower_bound(84, 1000, 1, 1000).bound, 2)
    2.5
    """
    check_counts(tp, n_in)
    check_counts(fp, n_out)
    check_trials(n_in, n_out, level, delta, trials)
    half = (1.0 + level) / 2.0
    tpr_low = float(clopper_pearson_limits(tp, n_in, half, "lower")[0])
    fpr_high = float(clopper_pearson_limits(fp, n_out, half, "upper")[1])
    plugged = float(epsilon_from_rates(tp / n_in, fp / n_out, delta))
    return EpsilonBound(
        method="Clopper-Pearson",
        bound=float(epsilon_from_rates(tpr_low, fpr_high, delta)),
        point=plugged if fp > 0 and tp < n_in else None,
        ceiling=epsilon_ceiling(n_in, n_out, level, delta),
        level=level,
        delta=delta,
        tp=int(tp),
        n_in=int(n_in),
        fp=int(fp),
        n_out=int(n_out),
        assumption=TRIALS[trials],
        tpr_low=tpr_low,
        fpr_high=fpr_high,
    )


def split_sides(
    in_scores: NDArray[np.floating], out_scores: NDArray[np.floating], fraction: float, rng: np.random.Generator
) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """Split each side at random into a part to choose on and a part to hold: ((in, in), (out, out)).

    Raises:
        InvalidInput: fewer than 2 trials on a side, scores that are not finite, or a fraction outside (0, 1).
    """
    s1, s0 = finite_scores("in_scores", in_scores), finite_scores("out_scores", out_scores)
    if not 0.0 < fraction < 1.0 or min(s1.size, s0.size) < 2:
        raise InvalidInput(
            f"fraction={fraction!r} must lie in (0, 1) and both sides need 2 trials, given {s1.size} and {s0.size}"
        )
    cut1, cut0 = (min(s.size - 1, max(1, round(fraction * s.size))) for s in (s1, s0))
    s1, s0 = rng.permutation(s1), rng.permutation(s0)
    return (s1[:cut1], s1[cut1:]), (s0[:cut0], s0[cut0:])
