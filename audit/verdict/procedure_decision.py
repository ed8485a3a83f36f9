"""What a procedure audit decides, as a function of scores alone: endpoints, G1 and G3.

A live audit and a recomputation from stored scores both call it, so that no rule is written twice. Nothing here asks a
model or draws a random number.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.games import GAMES
from mnemoscope.audit.statistics.fleet import FleetRate, FleetScores
from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.verdict.claims import claim_endpoint
from mnemoscope.audit.verdict.endpoints import (
    TAILS,
    equivalence_endpoints,
    exposure_endpoints,
    precision_gate,
    rate_endpoints,
    retained_endpoint,
    utility_endpoint,
)
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.result import Endpoint, GateResult, Tail

__all__ = ["SharedScores", "SubjectScores", "decide_endpoints", "positive_control", "precision"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SharedScores:
    """Scores that all subjects of one way of training are held against; m models, n audited records, t test records.

    Attributes:
        role: (m, n) int8 of ``Role``, of the audited records.
        fold: (m,) folds of models.
        primary: name of the attack that decides WITHIN.
        alpha: the endpoints' FPR; None where the counts bear none.
        retrained: each attack on the retrained fleet, forgotten against never-seen; empty without an alpha.
        no_op: the primary attack on the models before deletion, forgotten against never-seen; None without an alpha.
        before: the same, trained on against never-seen; None without an alpha.
        retained: the primary attack on the retrained fleet, kept against never-seen; None where nobody stays.
        correct: (m, t) bool, test records that retrained models get right; None without test records.
    """

    role: NDArray[np.int8]
    fold: NDArray[np.integer]
    primary: str
    alpha: float | None
    retrained: Mapping[str, FleetScores]
    no_op: FleetScores | None
    before: FleetScores | None
    retained: FleetScores | None
    correct: NDArray[np.bool_] | None


@dataclass(frozen=True, eq=False)
class SubjectScores:
    """Scores of one deletion procedure.

    Attributes:
        shared: what it is held against.
        after: each attack on the models after deletion, forgotten against never-seen.
        margin: (m, n) float64, mean margin over queries; None without an alpha.
        retained: the primary attack after deletion, kept against never-seen; None where nobody stays.
        correct: (m, t) bool, test records that models get right after deletion; None without test records.
        trained_against: attacks the method trained against; they are no evidence for it.
    """

    shared: SharedScores
    after: Mapping[str, FleetScores]
    margin: Floats | None
    retained: FleetScores | None
    correct: NDArray[np.bool_] | None
    trained_against: tuple[str, ...] = ()


def decide_endpoints(scores: SubjectScores, policy: Policy) -> list[Endpoint]:
    """Return P1 to P5 and P7 of one subject, in the order in which they are printed."""
    shared = scores.shared
    primary, alpha = shared.primary, shared.alpha
    endpoints: list[Endpoint] = []
    if alpha is None:
        endpoints.append(_no_alpha(primary, shared.role.shape, policy))
    else:
        for attack, after in scores.after.items():
            if attack not in scores.trained_against:
                endpoints += _pair_endpoints(attack, attack == primary, after, shared.retrained[attack], policy, alpha)
        assert scores.margin is not None
        side = GAMES["forgetting"].side(shared.role)
        endpoints += exposure_endpoints("per-record margin", scores.margin, side, policy, alpha)
        if scores.retained is not None and shared.retained is not None:
            kept, twin = scores.retained.rates([alpha])[0], shared.retained.rates([alpha])[0]
            endpoints.append(retained_endpoint(primary, kept, twin, policy, alpha))
    if scores.correct is not None and shared.correct is not None:
        endpoints.append(utility_endpoint(scores.correct, shared.correct, policy))
    return endpoints


def positive_control(shared: SharedScores, policy: Policy) -> GateResult:
    """G1: the primary attack must see no-op unlearning, with the endpoint's own reference budget."""
    title, alpha = "positive control", shared.alpha
    if alpha is None:
        return GateResult("G1", title, "no alpha", "not run", "the counts bear no rate", "INCONCLUSIVE")
    assert shared.no_op is not None
    assert shared.before is not None
    bound = policy.tpr_bound(alpha)
    parts, passed = [], False
    for name, scores in (("no-op", shared.no_op), ("before model", shared.before)):
        rate = scores.rates([alpha])[0]
        lower = rate.tpr_estimate(policy.level, "lower")
        parts.append(f"{name} {rate.tp} of {rate.n_in} ({rate.tpr:.1%}, at least {lower.low:.1%})")
        if name == "no-op":
            passed = lower.low is not None and lower.low > bound
    rule = f"lower limit of TPR at {alpha:.1%} FPR above {bound:.1%} on no-op unlearning"
    return GateResult("G1", title, rule, "pass" if passed else "fail", "; ".join(parts), "INCONCLUSIVE")


def precision(scores: SubjectScores, policy: Policy) -> GateResult:
    """G3: the realised FPR of the primary attack is known well enough."""
    shared = scores.shared
    if shared.alpha is None:
        return GateResult("G3", "precision", "an alpha that the counts bear", "fail", "none", "INCONCLUSIVE")
    own, alpha = scores.after[shared.primary], shared.alpha
    return precision_gate({tail: own.rates([alpha], tail)[0] for tail in TAILS}, policy, alpha)


def _no_alpha(primary: str, shape: tuple[int, ...], policy: Policy) -> Endpoint:
    """P1 left open, not lost: the counts bear no decision, which is INCONCLUSIVE and no failure of the audit."""
    m, n = shape
    detail = (
        f"{m} models and {n} audited records bear no rate: at none of the candidates would the rule say WITHIN "
        f"BOUND in {policy.min_power:.0%} of audits where nothing leaks"
    )
    return Endpoint(
        "P1", "TPR, residual", primary, True, True, Estimate(None, reason=detail),
        policy.tpr_ratio, "undecided", None, detail,
    )  # fmt: skip


def _pair_endpoints(
    attack: str, primary: bool, after: FleetScores, twin: FleetScores, policy: Policy, alpha: float
) -> list[Endpoint]:
    at: dict[Tail, FleetRate] = {tail: after.rates([alpha], tail)[0] for tail in TAILS}
    at_twin: dict[Tail, FleetRate] = {tail: twin.rates([alpha], tail)[0] for tail in TAILS}
    claims = [] if policy.claimed_epsilon is None else [_claim(attack, primary, t, r, policy) for t, r in at.items()]
    return [
        *claims,
        *rate_endpoints(attack, primary, at, policy, alpha),
        *equivalence_endpoints(attack, primary, at, at_twin, after.auc(), twin.auc(), policy, alpha),
    ]


def _claim(attack: str, primary: bool, tail: Tail, rate: FleetRate, policy: Policy) -> Endpoint:
    def tpr_low(level: float) -> float:
        return rate.tpr_estimate(level, "lower").low or 0.0

    def fpr_high(level: float) -> float:
        high = rate.fpr_estimate(level, "upper").high
        return 1.0 if high is None else high

    return claim_endpoint(attack, primary, tail, tpr_low, fpr_high, policy)
