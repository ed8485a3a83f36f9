"""Endpoints P1 to P5 of procedure mode and the precision gate, from scores of fleets to decisions.

The same functions decide on real fleets and on the simulated null fleets behind the printed power, so that the power is
that of the rule as it runs.
"""

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.statistics.fleet import FleetAuc, FleetRate
from mnemoscope.audit.statistics.fleet_differences import difference, mean_difference, p_greater
from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.verdict.individuals import RecordScorer
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.result import Endpoint, GateResult, Outcome, Tail

__all__ = [
    "TAILS",
    "equivalence_endpoints",
    "exposure_endpoints",
    "precision_gate",
    "rate_endpoints",
    "retained_endpoint",
    "structure_endpoint",
    "utility_endpoint",
]

Floats = NDArray[np.float64]
TAILS: tuple[Tail, Tail] = ("residual", "over-forgotten")


def _degrees(shape: tuple[int, ...]) -> int:
    return max(1, min(shape) - 1)


def rate_endpoints(
    attack: str, primary: bool, rates: dict[Tail, FleetRate], policy: Policy, alpha: float
) -> list[Endpoint]:
    """P1: the absolute signal, one-sided upper limit of TPR at alpha against ``tpr_ratio`` x alpha, in each tail."""
    endpoints = []
    bound = policy.tpr_bound(alpha)
    for tail, rate in rates.items():
        upper = rate.tpr_estimate(policy.level, "upper")
        lower = rate.tpr_estimate(policy.level, "lower")
        assert upper.high is not None
        assert lower.low is not None
        p = rate.p_above(bound)
        # Beyond needs the p-value too: it allows for a threshold that realised a higher FPR than its target.
        beyond = lower.low > bound and p <= 1 - policy.level
        outcome: Outcome = "within" if upper.high <= bound else "beyond" if beyond else "undecided"
        endpoints.append(
            Endpoint(
                "P1",
                f"TPR at {alpha:.1%} FPR, {tail}",
                attack,
                primary,
                primary,
                upper if outcome != "beyond" else lower,
                bound,
                outcome,
                p,
                f"threshold from other models; realised FPR {rate.fp} of {rate.n_out}",
            )
        )
    return endpoints


def equivalence_endpoints(
    attack: str,
    primary: bool,
    after: dict[Tail, FleetRate],
    reference: dict[Tail, FleetRate],
    auc_after: FleetAuc,
    auc_reference: FleetAuc,
    policy: Policy,
    alpha: float,
) -> list[Endpoint]:
    """P2: two one-sided tests against the retrained fleet, TPR at alpha in each tail and AUC, on the same cells."""
    parts: list[tuple[str, FleetRate | FleetAuc, FleetRate | FleetAuc, float]] = [
        (f"TPR difference to retrained, {tail}", after[tail], reference[tail], policy.tpr_margin_at(alpha))
        for tail in after
    ]
    parts.append(("AUC difference to retrained", auc_after, auc_reference, policy.auc_margin))
    endpoints = []
    for part, a, b, margin in parts:
        estimate = difference(a, b, policy.equivalence_level)
        assert estimate.ci is not None
        assert estimate.value is not None
        low, high = estimate.ci.lower, estimate.ci.upper
        inside = -margin < low and high < margin
        beyond = low > margin or high < -margin
        # The rejection "beyond" is one-sided, on the side where the difference lies.
        upwards = estimate if estimate.value >= 0 else difference(b, a, policy.equivalence_level)
        endpoints.append(
            Endpoint(
                "P2",
                part,
                attack,
                primary,
                primary,
                estimate,
                margin,
                "within" if inside else "beyond" if beyond else "undecided",
                p_greater(upwards, margin, _degrees(a.influence.shape)),
                "",
            )
        )
    return endpoints


def exposure_endpoints(
    attack: str, values: Floats, side: NDArray[np.int8], policy: Policy, alpha: float
) -> list[Endpoint]:
    """P3: exceedance share of forgotten minus never-seen cells over their own records' thresholds, in each tail."""
    signs: dict[Tail, int] = {"residual": 1, "over-forgotten": -1}
    return [
        _exposure(attack, tail, RecordScorer.of(sign * values, side), policy, alpha) for tail, sign in signs.items()
    ]


def _exposure(attack: str, tail: Tail, scorer: RecordScorer, policy: Policy, alpha: float) -> Endpoint:
    estimate = scorer.difference(alpha, policy.level)
    bound = policy.exposure_bound_at(alpha)
    part = f"share above own record's threshold, {tail}"
    if estimate.value is None or estimate.high is None:
        return Endpoint("P3", part, attack, True, True, estimate, bound, "not computed", None, estimate.reason or "")
    p = p_greater(scorer.difference(alpha, policy.level, "lower"), bound, _degrees(scorer.z.shape))
    outcome: Outcome = "within" if estimate.high <= bound else "undecided"
    if p is not None and p <= 1 - policy.level:
        outcome = "beyond"
    hit, tested = scorer.hits(alpha), scorer.tested
    ours, others = (scorer.side == 1) & tested, (scorer.side == 0) & tested
    detail = (
        f"{int((hit & ours).sum())} of {int(ours.sum())} forgotten and {int((hit & others).sum())} of "
        f"{int(others.sum())} never-seen trials are above it; t quantile, Gaussian over training seeds assumed"
    )
    return Endpoint("P3", part, attack, True, True, estimate, bound, outcome, p, detail)


def retained_endpoint(attack: str, after: FleetRate, reference: FleetRate, policy: Policy, alpha: float) -> Endpoint:
    """P4: are those who stayed more exposed than in retrained models (which themselves expose them more)?"""
    bound = policy.retained_bound_at(alpha)
    estimate = difference(after, reference, policy.level, "upper")
    assert estimate.high is not None
    p = p_greater(difference(after, reference, policy.level, "lower"), bound, _degrees(after.influence.shape))
    outcome: Outcome = "within" if estimate.high <= bound else "undecided"
    if p is not None and p <= 1 - policy.level:
        outcome = "beyond"
    detail = f"TPR of retained records {after.tp} of {after.n_in}, retrained {reference.tp} of {reference.n_in}"
    return Endpoint(
        "P4",
        f"retained TPR at {alpha:.1%} FPR minus retrained",
        attack,
        True,
        True,
        estimate,
        bound,
        outcome,
        p,
        detail,
    )


def utility_endpoint(
    correct_after: NDArray[np.bool_], correct_retrained: NDArray[np.bool_], policy: Policy
) -> Endpoint:
    """P5: accuracy on test records not worse than the retrained fleet's by more than the margin."""
    estimate = mean_difference(correct_after, correct_retrained, policy.level, "lower")
    upper = mean_difference(correct_after, correct_retrained, policy.level, "upper")
    assert estimate.low is not None
    assert upper.high is not None
    outcome: Outcome = "within" if estimate.low >= -policy.utility_margin else "undecided"
    if upper.high < -policy.utility_margin:
        outcome = "beyond"
    return Endpoint(
        "P5", "accuracy minus retrained", "", False, False, estimate, -policy.utility_margin, outcome, None, ""
    )


def structure_endpoint(found: int, n: int) -> Endpoint:
    """P6: forgotten rows that are stored inside the artefact, exactly; none may be.

    Args:
        found: (model, record) pairs whose forgotten record is a row of one of the model's tensors.
        n: pairs searched.
    """
    return Endpoint(
        "P6",
        "forgotten rows inside the artefact",
        "",
        False,
        False,
        Estimate(found / n if n else None, None, found, n, None if n else "no artefact was searched"),
        0.0,
        "not computed" if n == 0 else "beyond" if found else "within",
        None,
        "exact copies in the model's tensors, raw or as inputs",
    )


def precision_gate(rates: dict[Tail, FleetRate], policy: Policy, alpha: float) -> GateResult:
    """G3: is the realised FPR known well enough, in either tail?

    Its upper limit may not exceed ``tpr_ratio`` x alpha. Nor may it lie below alpha / ``tpr_ratio``: where a block of
    equal scores leaves no threshold near alpha, hardly anybody is flagged on either side, and a TPR of nothing would
    pass for a bound that is kept. The second half is stricter than the rule "upper limit at most 2 alpha" alone.
    """
    bound, least = policy.tpr_bound(alpha), alpha / policy.tpr_ratio
    uppers = {tail: rate.fpr_estimate(policy.level, "upper") for tail, rate in rates.items()}
    passed = all(u.high is not None and least <= u.high <= bound for u in uppers.values())
    observed = "; ".join(f"{tail} {u.k} of {u.n}, at most {u.high:.2%}" for tail, u in uppers.items())
    return GateResult(
        "G3",
        "precision",
        f"upper limit of the realised FPR at most {bound:.1%} and not below {least:.2%}",
        "pass" if passed else "fail",
        observed,
        "INCONCLUSIVE",
    )
