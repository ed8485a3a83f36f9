"""Findings, curves, distributions and accuracies of single models: description, not decision."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.statistics.clustered import clustered_limits, density_ratio
from mnemoscope.audit.statistics.counts import allowed_false_positives
from mnemoscope.audit.statistics.proportions import clopper_pearson_limits, rate
from mnemoscope.audit.statistics.roc import (
    GREY_BELOW,
    TprEstimate,
    auc_estimate,
    balanced_accuracy,
    roc_counts,
    thin_curve,
    tpr_estimate,
)
from mnemoscope.audit.statistics.trials import Estimate, Trials
from mnemoscope.audit.verdict.describe import fpr_levels, realised_note
from mnemoscope.audit.verdict.onemodel_rates import Difference, Influence
from mnemoscope.audit.verdict.result import Curve, Distribution, Finding, ModelRole, Tail, TprAt, Utility

__all__ = ["curve", "distributions", "finding", "pooled", "utilities"]

Floats = NDArray[np.float64]
BINS = 40
Records = Literal["forget", "retain", "holdout", "test"]


def pooled(scores: Sequence[NDArray[np.float64]], is_in: NDArray[np.bool_], record_ids: NDArray[np.int64]) -> Trials:
    """Trials of one or several models on the same records; several are clustered by model and record."""
    m, n = len(scores), is_in.size
    return Trials(
        np.concatenate(scores), np.tile(is_in, m), np.tile(record_ids, m), np.repeat(np.arange(m), n).astype(np.int64)
    )


def finding(
    attack: str,
    game: str,
    models: ModelRole,
    primary: bool,
    trials: Trials,
    *,
    level: float,
    threshold: float | None = None,
    alpha: float | None = None,
    note: str = "",
) -> Finding:
    """AUC, TPR at the four levels and at alpha in both tails, balanced accuracy where the scorer has its threshold."""
    tails: tuple[Tail, Tail] = ("residual", "over-forgotten")
    single = bool((trials.model_id == trials.model_id[0]).all())
    s1, s0 = np.sort(trials.in_scores), np.sort(trials.out_scores)
    signed = {"residual": (s1, s0), "over-forgotten": (-s1[::-1], -s0[::-1])}
    found = []
    for tail in tails:
        for fpr in fpr_levels(alpha):
            x = (
                one_model_tpr(*signed[tail], fpr, level)
                if single
                else tpr_estimate(trials, fpr, tail=tail, level=level)
            )
            found.append(TprAt(fpr, tail, x.tpr, x.fpr, x.grey))
    if threshold is None:
        reason = "the attack ranks records and sets no threshold of its own without labelled answers of another model"
        accuracy = Estimate(None, n=int(trials.score.size), reason=reason)
    else:
        accuracy = balanced_accuracy(trials, threshold, level)
    n_in = int(trials.is_in.sum())
    return Finding(
        attack, game, models, primary, auc_estimate(trials, level), accuracy, tuple(found), n_in,
        int(trials.is_in.size) - n_in, realised_note(found, note),
    )  # fmt: skip


def one_model_tpr(s1: Floats, s0: Floats, fpr: float, level: float) -> TprEstimate:
    """What ``tpr_estimate`` gives for one model with its own threshold, from counts: no array for each record.

    With one model the influence values' variance is T(1 - T)/n_in + R^2 F(1 - F)/n_out in closed form; on a million
    records that saves most of an audit's time.

    Args:
        s1: (n_in,) ascending.
        s0: (n_out,) ascending.
        fpr: target.
        level: confidence.
    """
    n1, n0 = int(s1.size), int(s0.size)
    expected = fpr * n0
    if expected < 1.0 - 1e-9 or n1 == 0:
        reason = f"FPR {fpr:.3g} is below 1/n of {n0} out trials: not one false positive could be expected"
        return TprEstimate(Estimate(None, n=n1, reason=reason), Estimate(None, n=n0, reason=reason), False)
    grey = expected < GREY_BELOW - 1e-9
    caution = f"{expected:.3g} expected false positives, fewer than {GREY_BELOW}: description only" if grey else None
    cut = s0[n0 - 1 - allowed_false_positives(fpr, n0)]
    tp = n1 - int(np.searchsorted(s1, cut, "right"))
    fp = n0 - int(np.searchsorted(s0, cut, "right"))
    t, f, n = tp / n1, fp / n0, n1 + n0
    ratio = density_ratio(s1, s0, fpr)
    tpr_variance = (t * (1 - t) / n1 + ratio**2 * f * (1 - f) / n0) * n / (n - 1)
    fpr_variance = f * (1 - f) / max(1, n0 - 1)
    return TprEstimate(
        Estimate(t, clustered_limits(t, tpr_variance, tp, n1, level, "two", n - 1), tp, n1, caution),
        Estimate(f, clustered_limits(f, fpr_variance, fp, n0, level, "two", max(1, n0 - 1)), fp, n0, caution),
        grey,
    )


def curve(attack: str, game: str, models: ModelRole, trials: Trials, *, level: float) -> Curve:
    """ROC with a pointwise band, thinned for drawing; the band of several models takes their trials as independent."""
    counts = roc_counts(trials.in_scores, trials.out_scores)
    keep = thin_curve(counts)
    # Limits for the points that are drawn: a curve of a million points keeps some hundreds.
    low, high = clopper_pearson_limits(counts.tp[keep], np.full(keep.size, counts.n_in), level)

    def listed(values: Floats) -> tuple[float, ...]:
        return tuple(float(v) for v in values)

    return Curve(
        attack, game, models, listed(counts.fp[keep] / counts.n_out), listed(counts.tp[keep] / counts.n_in),
        listed(low), listed(high), counts.n_in, counts.n_out,
    )  # fmt: skip


def distributions(attack: str, game: str, models: ModelRole, trials: Trials) -> tuple[Distribution, Distribution]:
    """Histograms on common edges; what lies beyond the outer 0.1 % is counted in the end bins."""
    low, high = (float(x) for x in np.quantile(trials.score, [0.001, 0.999]))
    edges = np.linspace(low, high if high > low else low + 1.0, BINS + 1)

    def counted(group: Literal["in", "out"], scores: NDArray[np.float64]) -> Distribution:
        counts = np.histogram(np.clip(scores, edges[0], edges[-1]), edges)[0]
        return Distribution(attack, game, models, group, tuple(float(e) for e in edges), tuple(int(k) for k in counts))

    return counted("in", trials.in_scores), counted("out", trials.out_scores)


def utilities(
    records: Records,
    correct: dict[ModelRole, NDArray[np.bool_]],
    retrained: NDArray[np.bool_] | None,
    level: float,
) -> list[Utility]:
    """Accuracies on one set of records, with the gap to retrained models.

    Args:
        records: which set.
        correct: (n,) bool of single models.
        retrained: (r, n) bool.
        level: confidence of the intervals.
    """
    found = []
    for role, hits in correct.items():
        gap = None
        if retrained is not None:
            own = Influence(float(hits.mean()), (hits - hits.mean()) / hits.size)
            others = [Influence(float(row.mean()), (row - row.mean()) / row.size) for row in retrained]
            gap = Difference.of([(own, other) for other in others]).estimate(level, n=int(hits.size))
        found.append(Utility(records, role, rate(int(hits.sum()), int(hits.size), level), gap))
    if retrained is not None:
        pooled_rate = rate(int(retrained.sum()), int(retrained.size), level)
        found.append(Utility(records, "retrained", pooled_rate))
    return found
