"""Endpoints P1 to P5 and gates of a one-model audit, from scores to decisions."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtrit

from mnemoscope.audit.answers.views import Side
from mnemoscope.audit.statistics.delong import delong
from mnemoscope.audit.statistics.proportions import clopper_pearson, rate
from mnemoscope.audit.statistics.rate_differences import difference_of_rates, difference_score
from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.verdict.claims import claim_endpoint
from mnemoscope.audit.verdict.onemodel_rates import (
    Board,
    Difference,
    Group,
    Influence,
    TailRate,
    auc_influence,
    rate_influence,
    tail_rate,
)
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.result import Endpoint, GateResult, Outcome, Tail

__all__ = [
    "TAILS",
    "absolute_endpoints",
    "beside_own_models",
    "change_beyond_drift",
    "equivalence_endpoints",
    "exposure_endpoints",
    "negative_control",
    "positive_control",
    "precision_gate",
    "retained_endpoint",
    "utility_endpoint",
]

Floats = NDArray[np.float64]
Pairs = Sequence[tuple[Floats, Floats]]
TAILS: tuple[Tail, Tail] = ("residual", "over-forgotten")


def _both_limits(k: int, n: int, level: float) -> Estimate:
    """A rate whose two limits are each one-sided at ``level``."""
    return rate(k, n, 2 * level - 1)


def absolute_endpoints(
    attack: str, primary: bool, rates: dict[Tail, TailRate], policy: Policy, alpha: float
) -> list[Endpoint]:
    """P1: TPR at thresholds for alpha against ``tpr_ratio`` x alpha, each tail.

    WITHIN takes the exact upper limit of the TPR; OUTSIDE takes the p-value that includes the threshold's own noise, so
    that a threshold that came out low by chance is not taken for a signal.
    """
    endpoints = []
    bound = policy.tpr_bound(alpha)
    for tail, found in rates.items():
        estimate = _both_limits(found.k, found.n, policy.level)
        p = found.p_above(policy.tpr_ratio)
        assert estimate.high is not None
        outcome: Outcome = "within" if estimate.high <= bound else "undecided"
        if outcome == "undecided" and p <= 1 - policy.level:
            outcome = "beyond"
        detail = f"thresholds set on other records; realised FPR {found.fp} of {found.n_out}"
        endpoints.append(
            Endpoint(
                "P1", f"TPR at {alpha:.2g} FPR, {tail}", attack, primary, primary, estimate, bound, outcome, p, detail
            )
        )
        if policy.claimed_epsilon is not None:
            endpoints.append(_claim(attack, primary, tail, found, policy))
    return endpoints


def _claim(attack: str, primary: bool, tail: Tail, found: TailRate, policy: Policy) -> Endpoint:
    def tpr_low(level: float) -> float:
        return clopper_pearson(found.k, found.n, level, "lower").lower

    def fpr_high(level: float) -> float:
        return clopper_pearson(found.fp, found.n_out, level, "upper").upper

    return claim_endpoint(attack, primary, tail, tpr_low, fpr_high, policy)


def equivalence_endpoints(
    attack: str, primary: bool, pairs: Pairs, board: Board, policy: Policy, alpha: float
) -> list[Endpoint]:
    """P2: TPR at alpha in each tail and AUC against retrained models, two one-sided tests.

    With fewer than ``min_references`` retrained models it is description: no bound, no p-value, not required.
    """
    decides = len(pairs) >= policy.min_references
    parts: list[tuple[str, Difference, float]] = []
    for tail in TAILS:
        difference = _rate_difference(pairs, board, alpha, tail, Group.FORGET)
        parts.append((f"TPR at {alpha:.2g} FPR minus retrained, {tail}", difference, policy.tpr_margin_at(alpha)))
    areas = [(auc_influence(a, board), auc_influence(b, board)) for a, b in pairs]
    parts.append(("AUC minus retrained", Difference.of(areas), policy.auc_margin))
    endpoints = []
    for part, difference, margin in parts:
        estimate = difference.estimate(policy.equivalence_level, n=int(board.rows(Group.FORGET).sum()))
        assert estimate.low is not None
        assert estimate.high is not None
        outcome: Outcome = "undecided"
        if -margin < estimate.low and estimate.high < margin:
            outcome = "within"
        elif estimate.low > margin or estimate.high < -margin:
            outcome = "beyond"
        detail = f"against {len(pairs)} retrained models"
        if decides:
            p = difference.p_beyond(margin)
            endpoints.append(Endpoint("P2", part, attack, primary, primary, estimate, margin, outcome, p, detail))
        else:
            detail += f": description, a decision needs at least {policy.min_references}"
            endpoints.append(Endpoint("P2", part, attack, primary, False, estimate, None, "undecided", None, detail))
    return endpoints


def _rate_difference(pairs: Pairs, board: Board, alpha: float, tail: Tail, group: Group) -> Difference:
    found: list[tuple[Influence, Influence]] = []
    hits = [0.0, 0.0]
    n = 0
    for pair in pairs:
        rates = [tail_rate(score, board, alpha, tail, group) for score in pair]
        n = rates[0].n
        hits = [total + x.k / len(pairs) for total, x in zip(hits, rates, strict=True)]
        ours, theirs = (rate_influence(score, board, x, group) for score, x in zip(pair, rates, strict=True))
        found.append((ours, theirs))
    return Difference.of(found, (n, int(sum(hits))))


def exposure_endpoints(
    attack: str, margin: Floats, others: Floats, side: NDArray[np.int8], board: Board, policy: Policy, alpha: float
) -> list[Endpoint]:
    """P3: share of forget records beyond their own threshold minus that of holdout records, each tail.

    A record's threshold is the predictive t quantile of its own OUT models; its true rate need not be alpha, because
    never-seen records are judged by the same rule.

    Args:
        attack: name of the per-record scorer, for the reader.
        margin: (n,) float64 of the audited model.
        others: (m, n) float64 of the reference models.
        side: (m, n) int8 of ``Side``.
        board: groups of the n records.
        policy: bounds and levels.
        alpha: nominal rate of the thresholds.

    Returns:
        Two endpoints; description where a record has fewer than ``min_references`` OUT models, none below 2.
    """
    found = beside_own_models(margin, others, side)
    if found is None:
        return []
    distance, spread, count = found
    counts, place = np.unique(count, return_inverse=True)
    limit = stdtrit(counts - 1, 1 - alpha)[place] * spread
    decides = count.min() >= policy.min_references
    forget, holdout = board.rows(Group.FORGET), board.rows(Group.HOLDOUT)
    bound = policy.exposure_bound_at(alpha)
    endpoints = []
    for tail, sign in zip(TAILS, (1.0, -1.0), strict=True):
        above = sign * distance > limit
        k1, n1 = int(above[forget].sum()), int(forget.sum())
        k0, n0 = int(above[holdout].sum()), int(holdout.sum())
        estimate = difference_of_rates(k1, n1, k0, n0, policy.level, "upper")
        assert estimate.high is not None
        p = float(ndtr(-difference_score(k1, n1, k0, n0, bound)))
        outcome: Outcome = "within" if estimate.high <= bound else "undecided"
        if outcome == "undecided" and p <= 1 - policy.level:
            outcome = "beyond"
        part = f"share beyond own threshold minus never-seen, {tail}"
        detail = f"{k1} of {n1} forgotten, {k0} of {n0} never seen, {int(count.min())} or more OUT models each"
        if decides:
            endpoints.append(Endpoint("P3", part, attack, True, True, estimate, bound, outcome, p, detail))
        else:
            detail += f": description, a decision needs at least {policy.min_references}"
            endpoints.append(Endpoint("P3", part, attack, True, False, estimate, None, "undecided", None, detail))
    return endpoints


def beside_own_models(margin: Floats, others: Floats, side: NDArray[np.int8]) -> tuple[Floats, Floats, Floats] | None:
    """Each record's margin beside those of its own OUT models.

    Returns:
        (n,) distance from their mean, (n,) the predictive scale that a t quantile multiplies, (n,) their number; None
        where a record has fewer than two.
    """
    out = side == Side.OUT
    count = out.sum(axis=0).astype(np.float64)
    if not count.size or count.min() < 2:
        return None
    mean = np.where(out, others, 0.0).sum(axis=0) / count
    spread = np.sqrt(np.where(out, (others - mean) ** 2, 0.0).sum(axis=0) / (count - 1) * (1 + 1 / count))
    return margin - mean, spread, count


def retained_endpoint(attack: str, pairs: Pairs, board: Board, policy: Policy, alpha: float) -> Endpoint:
    """P4: TPR of the records that stayed, this model minus retrained models, one-sided upper limit.

    Exact retraining raises retained leakage by itself, so the retrained models are the reference, not the model before.
    """
    difference = _rate_difference(pairs, board, alpha, "residual", Group.RETAIN)
    bound = policy.retained_bound_at(alpha)
    estimate = difference.estimate(policy.level, "upper", n=int(board.rows(Group.RETAIN).sum()))
    assert estimate.high is not None
    part = f"retained TPR at {alpha:.2g} FPR minus retrained"
    if len(pairs) < policy.min_references:
        detail = f"{len(pairs)} retrained models: description, a decision needs {policy.min_references}"
        return Endpoint("P4", part, attack, True, False, estimate, None, "undecided", None, detail)
    p = difference.p_above(bound)
    outcome: Outcome = "within" if estimate.high <= bound else "undecided"
    if outcome == "undecided" and p <= 1 - policy.level:
        outcome = "beyond"
    detail = f"against {len(pairs)} retrained models that were trained on the same retained records"
    return Endpoint("P4", part, attack, True, True, estimate, bound, outcome, p, detail)


def utility_endpoint(correct: NDArray[np.bool_], retrained: NDArray[np.bool_], policy: Policy) -> Endpoint:
    """P5: accuracy on never-seen records not worse than retrained models' by more than the margin.

    Args:
        correct: (n,) bool of the audited model.
        retrained: (r, n) bool.
        policy: margin and level.
    """
    own = Influence(float(correct.mean()), (correct - correct.mean()) / correct.size)
    pairs = [(own, Influence(float(row.mean()), (row - row.mean()) / row.size)) for row in retrained]
    difference = Difference.of(pairs)
    estimate = difference.estimate(2 * policy.level - 1, n=int(correct.size))
    assert estimate.low is not None
    assert estimate.high is not None
    outcome: Outcome = "undecided"
    if estimate.low >= -policy.utility_margin:
        outcome = "within"
    elif estimate.high < -policy.utility_margin:
        outcome = "beyond"
    detail = f"against {len(pairs)} retrained models; no part of the word"
    return Endpoint(
        "P5", "accuracy on never-seen records minus retrained", "", False, False, estimate, -policy.utility_margin,
        outcome, None, detail,
    )  # fmt: skip


def change_beyond_drift(attack: str, after: Floats, before: Floats, board: Board, level: float) -> Endpoint:
    """Difference in differences of the score: change of forget records minus change of holdout records; description."""
    change = after - before
    ours, drift = change[board.rows(Group.FORGET)], change[board.rows(Group.HOLDOUT)]
    pairs = [
        (
            Influence(float(ours.mean()), np.concatenate([(ours - ours.mean()) / ours.size, np.zeros(drift.size)])),
            Influence(float(drift.mean()), np.concatenate([np.zeros(ours.size), (drift - drift.mean()) / drift.size])),
        )
    ]
    difference = Difference.of(pairs)
    half = float(ndtri(0.5 + level / 2)) * difference.se
    from mnemoscope.audit.statistics.trials import Interval

    interval = Interval(difference.value - half, difference.value + half, level, "two", "difference in differences")
    estimate = Estimate(difference.value, interval, n=int(ours.size + drift.size))
    detail = "in units of the attack's score: what the deletion moved beyond what it did to unseen records; description"
    return Endpoint(
        "P1", "mean score, after minus before, beyond holdout drift", attack, False, False, estimate, None, "undecided",
        None, detail,
    )  # fmt: skip


def precision_gate(rates: dict[Tail, TailRate], policy: Policy, alpha: float) -> GateResult:
    """G3: the realised FPR is known well enough in both tails.

    Its upper limit may not exceed ``tpr_ratio`` x alpha, nor lie below alpha / ``tpr_ratio``: where equal scores leave
    no threshold near alpha, an attack that flags nobody would pass for a model that leaks nothing.
    """
    bound, least = policy.tpr_bound(alpha), alpha / policy.tpr_ratio
    limits = {tail: clopper_pearson(x.fp, x.n_out, policy.level, "upper").upper for tail, x in rates.items()}
    observed = "; ".join(
        f"{tail} {rates[tail].fp} of {rates[tail].n_out}, at most {limits[tail]:.2%}" for tail in rates
    )
    passed = all(least <= limit <= bound for limit in limits.values())
    rule = f"upper limit of the realised FPR at most {bound:.2g} and not below {least:.2g}"
    return GateResult("G3", "precision", rule, "pass" if passed else "fail", observed, "INCONCLUSIVE")


def positive_control(attack: str, before: Floats, board: Board, policy: Policy, alpha: float) -> GateResult:
    """G1: the primary attack, with the same references, sees the forget records in the model before deletion."""
    found = tail_rate(before, board, alpha, "residual")
    estimate = rate(found.k, found.n, policy.level, "lower")
    bound = policy.tpr_bound(alpha)
    assert estimate.low is not None
    observed = f"{attack} on the model before: {found.k} of {found.n}, at least {estimate.low:.2%}"
    status = "pass" if estimate.low > bound else "fail"
    return GateResult(
        "G1", "positive control", f"lower limit of TPR at {alpha:.2g} FPR above {bound:.2g}", status, observed,  # type: ignore[arg-type]
        "INCONCLUSIVE",
    )  # fmt: skip


def negative_control(attack: str, after: Floats, board: Board, policy: Policy, alpha: float) -> GateResult:
    """G2: never-seen against never-seen records, AUC and both tails, Bonferroni over the three.

    The never-seen records are those that set thresholds against those that are judged; where the holdout is dealt into
    halves, the halves. It fails where an attack was fitted on some of the records it scores, or where records that
    count as never seen come from two sources. Random halves can show neither, because both would lie in both halves
    alike: dealt crosswise the gate checks the scores' arithmetic alone, and says so.
    """
    setters = np.flatnonzero(board.sets >= 0)
    dealt = bool((board.group[setters] == Group.HOLDOUT).all())
    if dealt:
        a, b = setters[board.sets[setters] == 0], setters[board.sets[setters] == 1]
    else:
        a, b = np.flatnonzero(board.rows(Group.HOLDOUT)), setters
    area = delong(after[a], after[b])
    z = abs(area.auc - 0.5) / np.sqrt((a.size + b.size + 1) / (12.0 * a.size * b.size))
    p_values = [2 * float(ndtr(-z))]
    shares = []
    pooled = np.concatenate([after[a], after[b]])
    for sign in (1.0, -1.0):
        # Flag the extreme share alpha of both halves together: given their number, how many fall into the first half?
        extreme = max(1, int(alpha * pooled.size))
        level = np.partition(sign * pooled, pooled.size - extreme)[pooled.size - extreme]
        k, total = int((sign * after[a] >= level).sum()), int((sign * pooled >= level).sum())
        p_values.append(_hypergeometric_p(k, total, int(a.size), int(pooled.size)))
        shares.append(f"{k} of {total} extreme scores in {a.size} of {pooled.size}")
    p = min(1.0, 3 * min(p_values))
    passed = p > policy.control_level
    observed = f"{attack}: AUC {area.auc:.3f}; high {shares[0]}; low {shares[1]}; p = {p:.3g}"
    if dealt:
        observed += "; random halves of the holdout, which two sources would not show in: give calibration records"
    return GateResult(
        "G2", "negative control", f"two sets of never-seen records do not differ (level {policy.control_level:g})",
        "pass" if passed else "fail", observed, "NOT ASSESSED",
    )  # fmt: skip


def _hypergeometric_p(k: int, drawn: int, marked: int, n: int) -> float:
    """Two-sided p-value: twice the smaller tail."""
    from scipy.stats import hypergeom

    law = hypergeom(n, marked, drawn)
    return float(min(1.0, 2 * min(law.cdf(k), law.sf(k - 1))))
