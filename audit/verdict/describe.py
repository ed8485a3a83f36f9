"""Findings, curves and distributions of one fleet in one game: description, not decision."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.statistics.fleet import FleetRate, FleetScores
from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.verdict.result import Curve, Distribution, Finding, ModelRole, Tail, TprAt

__all__ = ["curve", "distributions", "finding", "fpr_levels", "realised_note"]

FPR_LEVELS = (0.1, 0.01, 0.001, 0.0001)
GREY_BELOW = 8
"""Rates below 8/n non-members are shown grey and are never an endpoint (verdict rules)."""
CURVE_POINTS = 32
FAR = 2.0
"""A realised FPR beyond this factor of its target, either way, makes the TPR beside it one at another FPR."""


def realised_note(rates: Sequence[TprAt], note: str = "") -> str:
    """Add to a finding's note each TPR whose realised FPR lies far from the FPR it is printed under.

    Equal scores, few never-seen trials or models of different scale leave no threshold near the target; the TPR is then
    that of another FPR, and no number to compare. Where no rate could be computed the reason stands in its place.

    Args:
        rates: the finding's rates.
        note: what the note says already.

    >>> far = Estimate(0.0, k=0, n=9000)
    >>> realised_note([TprAt(0.001, "residual", far, far, False)], "the control")
    'the control; realised FPR far from its target: 0 of 9,000 at 0.1 % (residual)'
    """
    far = []
    for x in rates:
        fpr = x.realised_fpr
        if fpr.value is not None and not x.fpr / FAR <= fpr.value <= x.fpr * FAR:
            seen = f"{fpr.value:.3g}" if fpr.k is None or fpr.n is None else f"{fpr.k:,} of {fpr.n:,}"
            far.append(f"{seen} at {100 * x.fpr:.3g} % ({x.tail})")
    said = [note] if note else []
    if far:
        said.append("realised FPR far from its target: " + ", ".join(far))
    return "; ".join(said)


def _tpr_at(rate: FleetRate, tail: Tail, level: float) -> TprAt:
    if rate.fpr_target * rate.n_out < 1 - 1e-9:
        reason = f"an FPR of {rate.fpr_target:g} needs at least {int(np.ceil(1 / rate.fpr_target)):,} never-seen trials"
        missing = Estimate(None, n=rate.n_out, reason=reason)
        return TprAt(rate.fpr_target, tail, missing, missing, False)
    return TprAt(
        rate.fpr_target,
        tail,
        rate.tpr_estimate(level),
        rate.fpr_estimate(level),
        rate.fpr_target * rate.n_out < GREY_BELOW - 1e-9,
    )


def fpr_levels(alpha: float | None) -> tuple[float, ...]:
    """Return the false positive rates that are described, the audit's own among them, from large to small.

    >>> fpr_levels(0.05)
    (0.1, 0.05, 0.01, 0.001, 0.0001)
    """
    return tuple(sorted({*FPR_LEVELS, *(() if alpha is None else (alpha,))}, reverse=True))


def finding(
    attack: str,
    game: str,
    models: ModelRole,
    primary: bool,
    scores: FleetScores,
    *,
    thresholds: NDArray[np.float64] | None = None,
    level: float = 0.95,
    alpha: float | None = None,
    note: str = "",
) -> Finding:
    """AUC, balanced accuracy and TPR at the four levels and at alpha in both tails, each with a clustered interval.

    The accuracy is that at the attack's own thresholds (m,), where it has any, else at those best on other models.
    """
    auc = scores.auc()
    tails: tuple[Tail, Tail] = ("residual", "over-forgotten")
    rates = tuple(_tpr_at(rate, tail, level) for tail in tails for rate in scores.rates(fpr_levels(alpha), tail))
    return Finding(
        attack=attack,
        game=game,
        models=models,
        primary=primary,
        auc=auc.estimate(level),
        balanced_accuracy=scores.best_accuracy(level) if thresholds is None else scores.accuracy_at(thresholds, level),
        tpr=rates,
        n_in=auc.n_in,
        n_out=auc.n_out,
        note=realised_note(rates, note),
    )


def curve(attack: str, game: str, models: ModelRole, scores: FleetScores, *, level: float = 0.95) -> Curve:
    """ROC points on a logarithmic grid of FPR down to 1/n, with a pointwise clustered band."""
    n_out = int((scores.side == 0).sum())
    grid = np.geomspace(1.0 / n_out, 0.999, CURVE_POINTS)
    rates = scores.rates([float(x) for x in grid])
    estimates = [rate.tpr_estimate(level) for rate in rates]
    return Curve(
        attack,
        game,
        models,
        fpr=(*(rate.fpr for rate in rates), 1.0),
        tpr=(*(rate.tpr for rate in rates), 1.0),
        low=(*(e.low or 0.0 for e in estimates), 1.0),
        high=(*(1.0 if e.high is None else e.high for e in estimates), 1.0),
        n_in=rates[0].n_in,
        n_out=n_out,
    )


def distributions(
    attack: str, game: str, models: ModelRole, scores: FleetScores, edges: NDArray[np.float64] | None = None
) -> tuple[Distribution, Distribution]:
    """Histograms of the in and out scores on common edges; what lies outside is counted in the end bins."""
    s1, s0 = scores.score[scores.side == 1], scores.score[scores.side == 0]
    if edges is None:
        low, high = np.quantile(np.concatenate([s1, s0]), [0.001, 0.999])
        edges = np.linspace(low, high if high > low else low + 1.0, 41)
    bounds = tuple(float(e) for e in edges)
    inside = [np.clip(s, edges[0], edges[-1]) for s in (s1, s0)]
    counts = [tuple(int(k) for k in np.histogram(s, edges)[0]) for s in inside]
    return (
        Distribution(attack, game, models, "in", bounds, counts[0]),
        Distribution(attack, game, models, "out", bounds, counts[1]),
    )
