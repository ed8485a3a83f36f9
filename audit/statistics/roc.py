"""Estimates from scores and truth: AUC, TPR at a low FPR in both tails, balanced accuracy at a fixed threshold.

The counts behind them are in ``counts``, the curves for drawing in ``curves``; their names are offered here too.
"""

import math
from typing import Literal, NamedTuple

import numpy as np

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.clustered import (
    Influence,
    auc_influence,
    density_ratio,
    rate_influence,
    tpr_influence,
)
from mnemoscope.audit.statistics.counts import (
    RocCounts,
    allowed_false_positives,
    auc,
    roc_counts,
    threshold_at,
    tpr_at_fpr,
)
from mnemoscope.audit.statistics.curves import roc_band, thin_curve
from mnemoscope.audit.statistics.delong import auc_interval, delong
from mnemoscope.audit.statistics.proportions import rate, wilson
from mnemoscope.audit.statistics.trials import Estimate, Interval, Trials

__all__ = [
    "GREY_BELOW",
    "RocCounts",
    "TprEstimate",
    "auc",
    "auc_estimate",
    "balanced_accuracy",
    "roc_band",
    "roc_counts",
    "thin_curve",
    "threshold_at",
    "tpr_at_fpr",
    "tpr_estimate",
]

Tail = Literal["residual", "over-forgotten"]

GREY_BELOW = 8
"""Fewer expected false positives than this: a TPR is shown grey and is never an endpoint."""


class TprEstimate(NamedTuple):
    """TPR at a target FPR with the realised FPR; ``grey`` marks counts too small for an endpoint."""

    tpr: Estimate
    fpr: Estimate
    grey: bool


def auc_estimate(trials: Trials, level: float = 0.95) -> Estimate:
    """AUC with an interval on the logit scale.

    One model: DeLong's standard error. Several models: the same placement values clustered by model and record, with
    a t quantile. No value, but a reason, where a side is empty; a value without interval where a side has one record.
    """
    s1, s0 = trials.in_scores, trials.out_scores
    n = int(trials.score.size)
    if s1.size == 0 or s0.size == 0:
        return Estimate(None, n=n, reason=f"an AUC needs both sides, given {s1.size} in and {s0.size} out")
    if min(s1.size, s0.size) < 2:
        reason = f"a variance needs 2 records on each side, given {s1.size} in and {s0.size} out"
        return Estimate(auc(s1, s0), n=n, reason=reason)
    if _clustered(trials):
        return auc_influence(trials).estimate(level)
    result = delong(s1, s0)
    return Estimate(result.auc, auc_interval(result.auc, result.se, int(s1.size), int(s0.size), level), n=n)


def _clustered(trials: Trials) -> bool:
    return bool((trials.model_id != trials.model_id[0]).any())


def _signed(trials: Trials, tail: Tail) -> Trials:
    if tail not in ("residual", "over-forgotten"):
        raise InvalidInput(f"tail={tail!r} must be 'residual' (high scores) or 'over-forgotten' (low scores)")
    if tail == "residual":
        return trials
    return Trials(-trials.score, trials.is_in, trials.record_id, trials.model_id)


def tpr_estimate(
    trials: Trials, fpr: float, *, tail: Tail = "residual", level: float = 0.95, threshold: float | None = None
) -> TprEstimate:
    """TPR at a target FPR in one tail, with the realised FPR.

    Args:
        trials: scores with truth, of one model or of a fleet.
        fpr: target false-positive rate.
        tail: "residual" flags high scores, "over-forgotten" flags low ones (a score that fell below what the model
            gives records it never saw is a trace too).
        level: confidence of the two-sided intervals.
        threshold: fixed on records outside these trials, on the scale of ``score`` (residual) or of ``-score``
            (over-forgotten), e.g. ``threshold_at(-calibration, fpr)``. None finds it on these trials, and the
            interval then includes the threshold's own noise.

    Returns:
        (tpr, fpr, grey). Where fpr x n_out < 1 both are without value and say why; between 1 and 8 ``grey`` is set.
        With a fixed threshold and one model the intervals are Clopper-Pearson's; with several models they are
        clustered by model and record and never tighter.
    """
    signed = _signed(trials, tail)
    s1, s0 = signed.in_scores, signed.out_scores
    if s1.size == 0 or s0.size == 0:
        missing = Estimate(None, reason=f"a TPR needs both sides, given {s1.size} in and {s0.size} out")
        return TprEstimate(missing, missing, False)
    expected = fpr * s0.size
    allowed_false_positives(fpr, s0.size)
    if expected < 1.0 - 1e-9:
        reason = f"FPR {fpr:.3g} is below 1/n of {s0.size} out trials: not one false positive could be expected"
        missing_in, missing_out = (Estimate(None, n=int(side.size), reason=reason) for side in (s1, s0))
        return TprEstimate(missing_in, missing_out, False)
    grey = expected < GREY_BELOW - 1e-9
    caution = f"{expected:.3g} expected false positives, fewer than {GREY_BELOW}: description only" if grey else None
    if threshold is None:
        tp, fp, cut = tpr_at_fpr(s1, s0, fpr)
        ratio = density_ratio(s1, s0, fpr) if fpr < 1.0 else 0.0
    else:
        cut, ratio = threshold, 0.0
        tp, fp = int(np.count_nonzero(s1 >= cut)), int(np.count_nonzero(s0 >= cut))
    n_in, n_out = int(s1.size), int(s0.size)
    if threshold is not None and not _clustered(trials):
        return TprEstimate(_because(rate(tp, n_in, level), caution), _because(rate(fp, n_out, level), caution), grey)
    flagged = signed.score >= cut
    tpr = tpr_influence(signed, flagged, ratio=ratio).estimate(level)
    out = ~signed.is_in
    realised = rate_influence(flagged[out], signed.model_id[out], signed.record_id[out]).estimate(level)
    return TprEstimate(_because(tpr, caution), _because(realised, caution), grey)


def _because(estimate: Estimate, reason: str | None) -> Estimate:
    return Estimate(estimate.value, estimate.ci, estimate.k, estimate.n, reason)


def balanced_accuracy(trials: Trials, threshold: float, level: float = 0.95) -> Estimate:
    """Mean of TPR and TNR at a threshold fixed outside these trials (on shadow or calibration records).

    The best threshold of the evaluated scores themselves is optimistic: 0.557 on average at 50 records a side where
    nothing leaks.

    Args:
        trials: scores with truth.
        threshold: flag score >= threshold.
        level: confidence; one model: the mean of two rates by the square-and-add method on Wilson's limits (Newcombe
            1998), clustered by model and record otherwise.
    """
    is_in, n = trials.is_in, int(trials.score.size)
    n_in = int(np.count_nonzero(is_in))
    n_out = n - n_in
    if min(n_in, n_out) == 0:
        return Estimate(None, n=n, reason=f"balanced accuracy needs both sides, given {n_in} in and {n_out} out")
    right = (trials.score >= threshold) == is_in
    k1, k0 = int(np.count_nonzero(right & is_in)), int(np.count_nonzero(right & ~is_in))
    value = (k1 / n_in + k0 / n_out) / 2
    if not _clustered(trials):
        first, second = wilson(k1, n_in, level), wilson(k0, n_out, level)
        low = value - math.hypot(k1 / n_in - first.lower, k0 / n_out - second.lower) / 2
        high = value + math.hypot(first.upper - k1 / n_in, second.upper - k0 / n_out) / 2
        return Estimate(value, Interval(low, high, level, "two", "mean of two rates, Newcombe"), n=n)
    contribution = np.where(is_in, (right - k1 / n_in) / n_in, (right - k0 / n_out) / n_out) / 2
    influence = Influence(value, contribution, trials.model_id, trials.record_id, "difference", None, n_in, n_out)
    ci = influence.interval(level)
    clipped = Interval(max(0.0, ci.lower), ci.upper, level, "two", "clustered by model and record")
    return Estimate(value, clipped, n=n)
