"""Findings, curves, distributions and accuracies of single models: description, not decision."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.statistics.proportions import rate
from mnemoscope.audit.statistics.roc import (
    auc_estimate,
    balanced_accuracy,
    roc_band,
    roc_counts,
    thin_curve,
    tpr_estimate,
)
from mnemoscope.audit.statistics.trials import Estimate, Trials
from mnemoscope.audit.verdict.onemodel_rates import Difference, Influence
from mnemoscope.audit.verdict.result import Curve, Distribution, Finding, ModelRole, Tail, TprAt, Utility

__all__ = ["FPR_LEVELS", "curve", "distributions", "finding", "pooled", "utilities"]

FPR_LEVELS = (0.1, 0.01, 0.001, 0.0001)
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
    note: str = "",
) -> Finding:
    """AUC, TPR at the four levels in both tails, and balanced accuracy where the scorer brings its own threshold."""
    tails: tuple[Tail, Tail] = ("residual", "over-forgotten")
    found = []
    for tail in tails:
        for fpr in FPR_LEVELS:
            x = tpr_estimate(trials, fpr, tail=tail, level=level)
            found.append(TprAt(fpr, tail, x.tpr, x.fpr, x.grey))
    if threshold is None:
        reason = "the attack ranks records and sets no threshold of its own without labelled answers of another model"
        accuracy = Estimate(None, n=int(trials.score.size), reason=reason)
    else:
        accuracy = balanced_accuracy(trials, threshold, level)
    n_in = int(trials.is_in.sum())
    return Finding(
        attack, game, models, primary, auc_estimate(trials, level), accuracy, tuple(found), n_in,
        int(trials.is_in.size) - n_in, note,
    )  # fmt: skip


def curve(attack: str, game: str, models: ModelRole, trials: Trials, *, level: float) -> Curve:
    """ROC with a pointwise band, thinned for drawing; the band of several models takes their trials as independent."""
    counts = roc_counts(trials.in_scores, trials.out_scores)
    low, high = roc_band(counts, level)
    keep = thin_curve(counts)

    def picked(values: NDArray[np.float64]) -> tuple[float, ...]:
        return tuple(float(v) for v in values[keep])

    return Curve(
        attack, game, models, picked(counts.fp / counts.n_out), picked(counts.tp / counts.n_in), picked(low), picked(high),
        counts.n_in, counts.n_out,
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
