"""Leakage class by class, at the threshold of all records: an average can hide one class that is remembered."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from mnemoscope.audit.statistics.clustered import rate_influence
from mnemoscope.audit.statistics.fleet import FleetScores
from mnemoscope.audit.statistics.fleet_groups import GroupRate, group_rates
from mnemoscope.audit.statistics.multiple import holm
from mnemoscope.audit.statistics.proportions import rate
from mnemoscope.audit.statistics.rate_differences import difference_score
from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.verdict.class_rows import LEAST_RECORDS, ClassRow
from mnemoscope.audit.verdict.onemodel_rates import Board, Group, TailRate, p_above_ratio, tail_rate
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.result import Tail

__all__ = ["class_label", "fleet_classes", "model_classes"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
TAILS: tuple[Tail, Tail] = ("residual", "over-forgotten")
NO_TWIN = Estimate(None, reason="there are no retrained models")
NO_OUT = Estimate(None, reason="no record of this class is among the never-seen ones")


def class_label(code: int, classes: Sequence[str]) -> str:
    """The class's name where it has one, else its number."""
    return classes[code] if 0 <= code < len(classes) else str(code)


def fleet_classes(
    labels: Ints, after: FleetScores, retrained: FleetScores, policy: Policy, alpha: float, classes: Sequence[str] = ()
) -> tuple[ClassRow, ...]:
    """Class rows of procedure mode.

    Args:
        labels: (n,) int64 classes of the audited records.
        after: the primary attack's scores in the forgetting game.
        retrained: the same on the retrained fleet.
        policy: bound and levels.
        alpha: the audit's FPR.
        classes: names, by code.

    Returns:
        A row for each class of the audited records, by code; one with fewer than ``LEAST_RECORDS`` is suppressed.
    """
    codes, counts = np.unique(labels, return_counts=True)
    shown = np.where(np.isin(labels, codes[counts >= LEAST_RECORDS]), labels, -1)
    bound, level = policy.tpr_bound(alpha), policy.interval_level
    mine = {tail: group_rates(after, shown, alpha, bound, tail=tail, level=level) for tail in TAILS}
    twin = group_rates(retrained, shown, alpha, bound, level=level)
    parts = {
        code: _Part(
            found.tpr, mine["over-forgotten"][code].tpr, twin[code].tpr if code in twin else NO_TWIN, found.fpr,
            _either(found, mine["over-forgotten"][code]),
        )
        for code, found in mine["residual"].items()
    }  # fmt: skip
    return _rows(codes, counts, parts, classes)


def _either(high: GroupRate, low: GroupRate) -> float:
    """One p-value for both tails, Bonferroni over the two."""
    return min(1.0, 2.0 * min(high.p_value, low.p_value))


def model_classes(
    labels: Ints,
    board: Board,
    after: Floats,
    pairs: Sequence[tuple[Floats, Floats]],
    policy: Policy,
    alpha: float,
    classes: Sequence[str] = (),
) -> tuple[ClassRow, ...]:
    """Class rows of one-model mode: counts of the model's own records at thresholds set on other records.

    Args:
        labels: (b,) int64 classes of the board's records.
        board: who is judged at which threshold.
        after: (b,) the primary attack's scores.
        pairs: for each retrained model (audited model, retrained model), (b,) each.
        policy: bound and levels.
        alpha: the audit's FPR.
        classes: names, by code.
    """
    forget, never = board.rows(Group.FORGET), board.rows(Group.HOLDOUT) & (board.judged >= 0)
    codes, counts = np.unique(labels[forget], return_counts=True)
    rates = {tail: tail_rate(after, board, alpha, tail) for tail in TAILS}
    twins = [tail_rate(theirs, board, alpha, "residual") for _, theirs in pairs]
    level = policy.interval_level
    parts = {}
    for code, count in zip(codes, counts, strict=True):
        own = labels == code
        if count < LEAST_RECORDS:
            continue
        rows, others = forget & own, never & own
        hit = {tail: found.hit[rows] for tail, found in rates.items()}
        n0 = int(others.sum())
        fp = {tail: int(found.hit[others].sum()) for tail, found in rates.items()}
        parts[int(code)] = _Part(
            rate(int(hit["residual"].sum()), int(count), level),
            rate(int(hit["over-forgotten"].sum()), int(count), level),
            _of_twins([twin.hit[rows] for twin in twins], level),
            rate(fp["residual"], n0, level) if n0 else NO_OUT,
            min(1.0, 2.0 * min(_p_model(rates[t], int(hit[t].sum()), int(count), fp[t], n0, policy) for t in TAILS)),
        )
    return _rows(codes, counts, parts, classes)


def _p_model(found: TailRate, k: int, n: int, fp: int, n0: int, policy: Policy) -> float:
    """As P1 decides, the threshold's noise included, and more than the class's own false alarms explain."""
    p = p_above_ratio(k, n, policy.tpr_ratio, found.shape)
    if n0 == 0:
        return p
    excess = found.alpha * (policy.tpr_ratio - 1.0)
    return max(p, float(ndtr(-difference_score(k, n, fp, n0, excess))))


def _of_twins(hits: Sequence[NDArray[np.bool_]], level: float) -> Estimate:
    """Pooled over retrained models, clustered by model and record."""
    if not hits:
        return NO_TWIN
    n, r = hits[0].size, len(hits)
    if r == 1:
        return rate(int(hits[0].sum()), n, level)
    record, model = np.tile(np.arange(n), r), np.repeat(np.arange(r), n)
    return rate_influence(np.concatenate(hits), model.astype(np.int64), record.astype(np.int64)).estimate(level)


@dataclass(frozen=True)
class _Part:
    after: Estimate
    over: Estimate
    retrained: Estimate
    fpr: Estimate
    p_value: float


def _rows(codes: Ints, counts: Ints, parts: dict[int, _Part], classes: Sequence[str]) -> tuple[ClassRow, ...]:
    order = sorted(parts)
    adjusted = dict(zip(order, holm(np.array([parts[c].p_value for c in order])) if order else (), strict=True))
    rows = []
    for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
        label = class_label(code, classes)
        if code not in parts:
            few = Estimate(None, reason=f"suppressed: fewer than {LEAST_RECORDS} audited records of this class")
            if count >= LEAST_RECORDS:
                few = Estimate(None, reason="no model forgot a record of this class")
            # How few there are speaks of a handful of people too.
            rows.append(ClassRow(label, count if count >= LEAST_RECORDS else 0, few, few, few, few))
            continue
        part = parts[code]
        rows.append(ClassRow(label, count, part.after, part.over, part.retrained, part.fpr, float(adjusted[code])))
    return tuple(rows)
