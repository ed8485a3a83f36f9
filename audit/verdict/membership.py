"""One model and who is a member: leakage estimates with intervals, no deletion verdict."""

from dataclasses import replace

import numpy as np

from mnemoscope.audit.errors import AuditError, InvalidInput
from mnemoscope.audit.rng import generator
from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.verdict.basis import Basis
from mnemoscope.audit.verdict.epsilons import model_epsilons
from mnemoscope.audit.verdict.onemodel import (
    PROBABLY_WRONG,
    TESTED,
    OneModelAudit,
    OneModelPlan,
    model_groups,
    sanity_check,
)
from mnemoscope.audit.verdict.onemodel_decision import ModelScores, OneModelScores
from mnemoscope.audit.verdict.onemodel_describe import curve, distributions, finding, pooled, utilities
from mnemoscope.audit.verdict.onemodel_input import OneModelInput, score_models
from mnemoscope.audit.verdict.onemodel_rates import Board, Group
from mnemoscope.audit.verdict.result import (
    Curve,
    Distribution,
    EpsilonRow,
    Finding,
    ModelRole,
    NotRun,
    Subject,
    Utility,
)

__all__ = ["audit_membership"]


def audit_membership(
    inputs: OneModelInput, plan: OneModelPlan, *, name: str = "audited model", force: bool = False
) -> OneModelAudit:
    """Estimate what one model reveals about who was trained on.

    Args:
        inputs: members as forget records and non-members as holdout records.
        plan: fixed beforehand by ``plan_one_model``.
        name: of the model, for the reader.
        force: go on although the accuracy on non-members is near chance.

    Returns:
        A subject whose verdict is NOT ASSESSED without a tier: leakage is estimated, deletion is not judged.

    Raises:
        InvalidInput: accuracy on non-members near chance ("labels or preprocessing are probably wrong").
    """
    policy = plan.policy
    level = policy.interval_level
    predicted = inputs.after[:, 0, :].argmax(axis=-1).astype(np.int64)
    right = predicted == inputs.labels
    outside = inputs.rows(Group.HOLDOUT)
    sanity = sanity_check(right[outside], inputs.labels[outside], predicted[outside], policy)
    if sanity.status == "fail" and not force:
        raise InvalidInput(f"{PROBABLY_WRONG}: on non-members {sanity.observed}. Check both, or force the audit")
    rows = inputs.rows(*TESTED)
    is_in = inputs.group[rows] == Group.FORGET
    findings: list[Finding] = []
    curves: list[Curve] = []
    shapes: list[Distribution] = []
    not_run = [NotRun(f"attack {attack}", f"it lacks: {lacks}", f"provide {lacks}") for attack, lacks in plan.unable]
    not_run.append(
        NotRun("deletion verdict", "one model and a list of members bear none", "answers before and after deletion")
    )
    failures = []
    epsilons: tuple[EpsilonRow, ...] = ()
    kept: dict[str, ModelScores] = {}
    for attack in plan.attacks:
        try:
            scores = score_models(inputs, attack, TESTED, generator(plan.seed, "attack", attack.name))
        except (AuditError, ArithmeticError, ValueError) as error:
            not_run.append(NotRun(f"attack {attack.name}", f"it failed: {error}", "see the reason"))
            failures.append(f"{attack.name} failed: {error}")
            continue
        kept[attack.name] = ModelScores(scores.after, None, ())
        trials = pooled([scores.after], is_in, inputs.ids[rows])
        primary = attack.name == plan.primary
        findings.append(
            finding(
                attack.name,
                "membership",
                "before",
                primary,
                trials,
                level=level,
                threshold=scores.threshold,
                note="; ".join(scores.flags),
            )
        )
        curves.append(curve(attack.name, "membership", "before", trials, level=level))
        shapes += distributions(attack.name, "membership", "before", trials)
        if primary:
            rng = generator(plan.seed, "epsilon", attack.name)
            own = (scores.after[is_in], scores.after[~is_in])
            epsilons = model_epsilons(attack.name, "membership", "before", *own, policy.level, rng=rng)
    utility: list[Utility] = []
    for label, group in (("forget", Group.FORGET), ("holdout", Group.HOLDOUT)):
        single: dict[ModelRole, np.ndarray[tuple[int, ...], np.dtype[np.bool_]]] = {
            "before": right[inputs.group == group]
        }
        utility += utilities(label, single, None, level)  # type: ignore[arg-type]
    basis = Basis("membership", failures=tuple(failures))
    verdict = basis.decide([], [], policy)
    subject = Subject(
        name, "", {}, verdict, (), (), tuple(findings), tuple(curves), tuple(shapes), tuple(utility),
        model_groups(inputs, "", only="before"), epsilons=epsilons,
    )  # fmt: skip
    reason = "no deletion verdict in this mode, so no rule has a power"
    summary = replace(plan.summary(), alpha=None, power=Estimate(None, reason=reason), power_by_alpha={})
    nobody = np.full(rows.size, -1, np.int8)  # no threshold is set: nothing is decided
    board = Board(inputs.group[rows], nobody, nobody)
    stored = OneModelScores(plan.primary, None, board, kept, None, None, right[outside], None)
    return OneModelAudit(subject, summary, basis.limits(policy), (sanity,), tuple(not_run), stored, basis)
