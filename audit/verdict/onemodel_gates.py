"""Gates of a one-model audit that are read from its answers, and the places of those that others fill."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.statistics.proportions import clopper_pearson
from mnemoscope.audit.verdict.onemodel_endpoints import utility_endpoint
from mnemoscope.audit.verdict.onemodel_input import OneModelInput
from mnemoscope.audit.verdict.onemodel_rates import Group
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.result import Check, GateResult

__all__ = [
    "OTHER_GATES",
    "PROBABLY_WRONG",
    "class_drift",
    "complete",
    "gate_result",
    "predicted_classes",
    "references_gate",
    "right_answers",
    "sanity_check",
]

PROBABLY_WRONG = "labels or preprocessing are probably wrong"
NOT_RUN_GATE = "not run: nothing was given to check it on"

OTHER_GATES: tuple[tuple[str, str, str, str], ...] = (
    ("G1", "positive control", "the primary attack sees the forget records in the model before", "INCONCLUSIVE"),
    ("G2", "negative control", "never-seen against never-seen records do not differ", "NOT ASSESSED"),
    ("G3", "precision", "the realised FPR is known well enough", "INCONCLUSIVE"),
    ("G4", "disjointness", "no duplicates between forget and retained or never-seen records", "INCONCLUSIVE"),
    (
        "G5",
        "identity",
        "the tested artefact is the one that is served; retrained data exclude the forget set",
        "NOT ASSESSED",
    ),
    ("G6", "use", "accuracy not worse than retrained (P5)", "flag"),
    ("G7", "references", "retrained models with different seeds, as good as the model before", "tier"),
)


def gate_result(
    id: str, title: str, rule: str, fails_to: str, status: str = "not run", observed: str = NOT_RUN_GATE
) -> GateResult:
    """Return a gate; by default one that nothing was given to check it on."""
    return GateResult(id, title, rule, status, observed, fails_to)  # type: ignore[arg-type]


def complete(gates: list[GateResult]) -> list[GateResult]:
    """One entry a gate, the computed one before the placeholder, in order of id."""
    last: dict[str, GateResult] = {}
    for gate in gates:
        last[gate.id] = gate
    return sorted(last.values(), key=lambda g: g.id)


def predicted_classes(logits: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the class predicted for each record, from its first query: (..., n, q, c) logits to (..., n)."""
    return np.asarray(logits[..., 0, :].argmax(axis=-1), np.int64)


def right_answers(inputs: OneModelInput) -> dict[str, NDArray[np.bool_]]:
    """Whether each model is right on each record, (models, n) bool for each kind of model; first query."""
    found = {"after": (predicted_classes(inputs.after) == inputs.labels)[None]}
    if inputs.before is not None:
        found["before"] = (predicted_classes(inputs.before) == inputs.labels)[None]
    if inputs.retrained is not None:
        found["retrained"] = np.stack([predicted_classes(model) == inputs.labels for model in inputs.retrained])
    return found


def sanity_check(
    correct: NDArray[np.bool_], labels: NDArray[np.int64], predicted: NDArray[np.int64], policy: Policy
) -> Check:
    """Is the holdout accuracy above what permuted labels would give? Cohen's kappa against ``policy.near_chance``.

    Args:
        correct: (n,) bool on never-seen records.
        labels: (n,) int64.
        predicted: (n,) int64.
        policy: the limit.
    """
    size = int(max(labels.max(), predicted.max())) + 1
    shares = np.bincount(labels, minlength=size) / labels.size, np.bincount(predicted, minlength=size) / labels.size
    chance = float(shares[0] @ shares[1])
    k, n = int(correct.sum()), int(correct.size)
    floor = chance + policy.near_chance * (1 - chance)
    passed = clopper_pearson(k, n, policy.level, "lower").lower > floor
    return Check(
        "sanity",
        "accuracy on never-seen records",
        "pass" if passed else "fail",
        f"{k} of {n} right ({k / n:.1%}); permuted labels would give about {chance:.1%}",
        "" if passed else f"{PROBABLY_WRONG}: check the order and coding of labels, and the model's preprocessing",
    )


def class_drift(inputs: OneModelInput, policy: Policy) -> GateResult:
    """The blind baseline that labels alone allow: do forget and holdout records have the same class shares?"""
    from scipy.stats import chi2_contingency

    labels = [inputs.labels[inputs.group == g] for g in (Group.FORGET, Group.HOLDOUT)]
    size = int(inputs.labels.max()) + 1
    table = np.array([np.bincount(x, minlength=size) for x in labels], np.float64)
    share = table.sum(axis=0) * min(x.size for x in labels) / table.sum()
    # Chi-square needs about 5 expected records a cell: rarer classes are counted together.
    table = np.concatenate([table[:, share >= 5], table[:, share < 5].sum(axis=1, keepdims=True)], axis=1)
    table = table[:, table.sum(axis=0) > 0]
    p = 1.0 if table.shape[1] < 2 else float(chi2_contingency(table, correction=False)[1])
    observed = f"class shares of forget and holdout records: p = {p:.3g}; the records themselves were not compared"
    rule = (
        f"a classifier without the model cannot separate forget from never-seen records (level {policy.drift_level:g})"
    )
    # Equal class shares alone show nothing about the records: that is not a pass.
    return gate_result(
        "drift", "drift", rule, "INCONCLUSIVE", "fail" if p < policy.drift_level else "not run", observed
    )


def references_gate(
    inputs: OneModelInput, right: dict[str, NDArray[np.bool_]], holdout: NDArray[np.int64], policy: Policy
) -> GateResult:
    """G7: retrained models that differ from each other and are as good as the model before."""
    assert inputs.retrained is not None
    distinct = len({hashlib.sha256(np.ascontiguousarray(model).data).hexdigest() for model in inputs.retrained})
    rule = f"retrained models differ from each other; accuracy at most {policy.utility_margin:g} below the model before"
    observed = f"{distinct} different of {inputs.n_retrained}"
    passed = distinct == inputs.n_retrained
    if "before" in right:
        against = utility_endpoint(right["before"][0][holdout], right["retrained"][:, holdout], policy)
        # The endpoint reads "before minus retrained": its lower limit shows whether retrained are worse for sure.
        assert against.estimate.low is not None
        observed += f"; accuracy of the model before minus retrained {against.estimate.value:+.3f}"
        passed = passed and against.estimate.low <= policy.utility_margin
    return gate_result("G7", "references", rule, "tier", "pass" if passed else "fail", observed)
