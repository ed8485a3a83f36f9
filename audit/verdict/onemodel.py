"""One-model mode: from recorded answers of a model before and after deletion to an audited subject. Arrays only."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mnemoscope.audit.answers.protocols import Attack
from mnemoscope.audit.answers.views import Side
from mnemoscope.audit.errors import AuditError, InvalidInput
from mnemoscope.audit.rng import generator
from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.verdict.basis import Basis
from mnemoscope.audit.verdict.onemodel_decision import Exposure, ModelScores, OneModelScores, Retained, decide_model
from mnemoscope.audit.verdict.onemodel_document import (
    answers_digest,
    describe_epsilons,
    describe_findings,
    describe_utility,
    model_groups,
    record_sets,
)
from mnemoscope.audit.verdict.onemodel_endpoints import TAILS
from mnemoscope.audit.verdict.onemodel_gates import (
    OTHER_GATES,
    PROBABLY_WRONG,
    class_drift,
    complete,
    gate_result,
    predicted_classes,
    references_gate,
    right_answers,
    sanity_check,
)
from mnemoscope.audit.verdict.onemodel_inner import one_model_rows
from mnemoscope.audit.verdict.onemodel_input import (
    OneModelInput,
    Scores,
    needs_reference_models,
    runnable,
    score_models,
)
from mnemoscope.audit.verdict.onemodel_plan import (
    TESTED,
    WITH_RETAINED,
    OneModelPlan,
    plan_counts,
    plan_one_model,
)
from mnemoscope.audit.verdict.onemodel_power import Counts, one_model_power
from mnemoscope.audit.verdict.onemodel_rates import Group, deal
from mnemoscope.audit.verdict.onemodel_versions import describe_versions
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.power import choose_alpha
from mnemoscope.audit.verdict.result import Check, Endpoint, GateResult, Limits, NotRun, PlanSummary, Subject

__all__ = [
    "TESTED",
    "PROBABLY_WRONG",
    "OneModelAudit",
    "OneModelPlan",
    "answers_digest",
    "audit_one_model",
    "model_groups",
    "plan_one_model",
    "record_sets",
    "sanity_check",
]


@dataclass(frozen=True, eq=False)
class OneModelAudit:
    """The audited subject with what the result document needs beside it, and what its word can be computed from."""

    subject: Subject
    plan: PlanSummary
    limits: Limits
    checks: tuple[Check, ...]
    not_run: tuple[NotRun, ...]
    scores: OneModelScores
    basis: Basis


def audit_one_model(
    inputs: OneModelInput,
    attacks: Sequence[Attack],
    *,
    policy: Policy | None = None,
    plan: OneModelPlan | None = None,
    seed: int = 0,
    name: str = "audited model",
    method: str = "",
    duplicates: GateResult | None = None,
    identity: GateResult | None = None,
    drift: GateResult | None = None,
    process_evidence: bool = False,
    exploratory: bool = False,
    force: bool = False,
    hint: str = "",
    structure: Endpoint | None = None,
    version_attacks: Sequence[Attack] = (),
) -> OneModelAudit:
    """Audit one model after deletion.

    Args:
        inputs: recorded answers.
        attacks: all attacks that could run; those that lack something are named in ``not_run``.
        policy: bounds and levels; ignored where a plan is given.
        plan: fixed beforehand by ``plan_one_model``; made here when None.
        seed: root seed when the plan is made here.
        name: of the subject, for the reader.
        method: the deletion method, where it is known.
        duplicates: gate G4, from whoever has the records themselves.
        identity: gate G5.
        drift: the blind baseline. Without it the class shares of forget and holdout records are compared.
        process_evidence: process records were provided and checked (tier A).
        exploratory: the plan's digest was not fixed before the first score.
        force: go on although the holdout accuracy is near chance.
        hint: what would decide it and at what cost, when the word is INCONCLUSIVE.
        structure: P6, from whoever holds the model itself.
        version_attacks: what who holds both versions could run; described beside the verdict, never part of it.

    Returns:
        The subject, its plan, limits, checks and what was not run.

    Raises:
        InvalidInput: holdout accuracy near chance ("labels or preprocessing are probably wrong"), unless forced.
    """
    plan = plan_one_model(inputs, attacks, policy=policy, seed=seed) if plan is None else plan
    policy = plan.policy
    holdout = inputs.rows(Group.HOLDOUT, Group.CALIBRATION)
    right = right_answers(inputs)
    sanity = sanity_check(
        right["after"][0][holdout], inputs.labels[holdout], predicted_classes(inputs.after)[holdout], policy
    )
    if sanity.status == "fail" and not force:
        raise InvalidInput(f"{PROBABLY_WRONG}: on holdout records {sanity.observed}. Check both, or force the audit")

    rows = inputs.rows(*TESTED)
    board = deal(inputs.group[rows], inputs.labels[rows], generator(plan.seed, "deal"))
    results: dict[str, Scores] = {}
    failures: list[str] = []
    not_run = [NotRun(f"attack {attack}", f"it lacks: {lacks}", f"provide {lacks}") for attack, lacks in plan.unable]
    for attack in plan.attacks:
        try:
            results[attack.name] = score_models(inputs, attack, TESTED, generator(plan.seed, "attack", attack.name))
        except (AuditError, ArithmeticError, ValueError) as error:
            not_run.append(NotRun(f"attack {attack.name}", f"it failed: {error}", "see the reason"))
            if attack.name == plan.primary:
                failures.append(f"the primary attack {attack.name} failed: {error}")

    drift = class_drift(inputs, policy) if drift is None else drift
    alpha, main = plan.alpha, results.get(plan.primary)
    exposed, unexposed = (None, []) if alpha is None or main is None else _exposure(inputs, policy, alpha)
    retained, open_retained = _retained(inputs, plan, results, not_run)
    scores = OneModelScores(
        primary=plan.primary,
        alpha=alpha,
        board=board,
        attacks={name: ModelScores(found.after, found.before, found.pairs) for name, found in results.items()},
        exposure=exposed,
        retained=None if retained is None else _dealt(inputs, plan, *retained),
        correct=right["after"][0][holdout],
        correct_retrained=right["retrained"][:, holdout] if "retrained" in right else None,
    )
    found = decide_model(scores, policy)
    endpoints = [
        *(() if structure is None else (structure,)),
        *((_no_alpha(plan, inputs),) if alpha is None else ()),
        *found.rates,
        *unexposed,
        *found.exposure,
        *found.change,
        *open_retained,
        *found.retained,
        *found.use,
    ]
    gates = [gate_result(g, t, r, f) for g, t, r, f in OTHER_GATES]
    gates += found.gates
    if inputs.retrained is not None:
        gates.append(references_gate(inputs, right, holdout, policy))
    gates += [g for g in (duplicates, identity, drift) if g is not None]
    gates.append(
        gate_result(
            "G8",
            "plan",
            "digest fixed before the first score",
            "flag",
            "fail" if exploratory else "pass",
            plan.summary().digest[:19],
        )
    )
    gates = complete(gates)
    not_run += [
        NotRun(f"gate {g.id} ({g.title})", g.observed, f"rule: {g.rule}") for g in gates if g.status == "not run"
    ]

    basis = Basis(
        "one-model",
        n_retrained=inputs.n_retrained,
        process_evidence=process_evidence,
        has_before=inputs.before is not None,
        per_record=any(needs_reference_models(a) for a in plan.attacks if a.name in results),
        alpha=alpha,
        failures=tuple(failures),
        hint=hint or _hint(plan, inputs),
    )
    verdict = basis.decide(endpoints, gates, policy)
    findings, curves, shapes = describe_findings(inputs, plan, results, retained, board)
    both = describe_versions(inputs, version_attacks, level=policy.interval_level, seed=plan.seed)
    given = (*(() if structure is None else (structure,)), *unexposed, *open_retained)
    inner = one_model_rows(
        scores, basis, policy, keys=inputs.keys_of(rows), labels=inputs.labels[rows], classes=inputs.classes,
        fixed=given, gates=gates,
    )  # fmt: skip
    subject = Subject(
        name, method, {}, verdict, tuple(endpoints), tuple(gates), (*findings, *both), curves, shapes,
        describe_utility(inputs, right, policy), model_groups(inputs, method),
        epsilons=describe_epsilons(plan, results, board), **inner,
    )  # fmt: skip
    checks = (
        sanity,
        Check("drift", "forget against never-seen records without the model", drift.status, drift.observed),
    )
    summary = plan.summary()
    summary = replace(summary, attacks=tuple(dict.fromkeys((*summary.attacks, *(row.attack for row in both)))))
    return OneModelAudit(subject, summary, basis.limits(policy), checks, tuple(not_run), scores, basis)


def _no_alpha(plan: OneModelPlan, inputs: OneModelInput) -> Endpoint:
    best = max(plan.powers, key=lambda p: p.value)
    detail = (
        f"{inputs.count(Group.FORGET)} forget and {inputs.count(Group.HOLDOUT)} holdout records bear no rate: the best "
        f"candidate, {best.alpha:g}, would end WITHIN BOUND in {best.value:.0%} of audits where nothing leaks "
        f"(at least {plan.policy.min_power:.0%} are needed)"
    )
    return Endpoint(
        "P1", "TPR, residual", plan.primary, True, True, Estimate(None, reason=detail), plan.policy.tpr_ratio,
        "undecided",         None, detail,
    )  # fmt: skip


def _hint(plan: OneModelPlan, inputs: OneModelInput) -> str:
    if plan.alpha is not None:
        return ""
    parts = []
    for factor in (2, 4, 8, 16):
        chosen = next(a for a in plan.attacks if a.name == plan.primary)
        now = plan_counts(inputs, chosen, plan.attacks, plan.policy)
        more = Counts(
            now.forget * factor, now.holdout * factor, now.calibration * factor, now.retain * factor, now.retrained,
            now.per_record, now.paired,
        )  # fmt: skip
        alpha = choose_alpha(one_model_power(more, plan.policy), plan.policy)
        if alpha is not None:
            parts.append(f"{more.forget} forget and {more.holdout} holdout records (then alpha = {alpha:g})")
            break
    parts.append("procedure mode: many simulated requests of this size on a fleet of 72 models and its retrained twins")
    return "What would decide it: " + ", or ".join(parts) + "."


def _exposure(inputs: OneModelInput, policy: Policy, alpha: float) -> tuple[Exposure | None, list[Endpoint]]:
    """Margins for P3; named as not computed where there are reference models enough, but not for some records.

    Left out without a word, a single such record would take P3 away from what WITHIN BOUND requires.
    """
    side = inputs.side(inputs.rows(*TESTED))
    count = (side == Side.OUT).sum(axis=0)
    if side.shape[0] >= policy.min_references > count.min():
        few = f"{int((count < policy.min_references).sum())} of {count.size} records"
        why = f"{few} have fewer than {policy.min_references} reference models that never saw them; leave them out"
        missing = Estimate(None, reason=why)
        bound = policy.exposure_bound_at(alpha)
        return None, [
            Endpoint(
                "P3", f"share beyond own threshold minus never-seen, {tail}", "margin, predictive t", True, True,
                missing, bound, "not computed", None, why,
            )
            for tail in TAILS
        ]  # fmt: skip
    if count.min() < 2:
        return None, []
    reference = inputs.reference(TESTED)
    margin = inputs.view("after", TESTED).signal("margin").mean(axis=-1)
    return Exposure(margin, reference.signal("margin").mean(axis=-1), reference.side), []


def _retained(
    inputs: OneModelInput, plan: OneModelPlan, results: dict[str, Scores], not_run: list[NotRun]
) -> tuple[tuple[str, Scores] | None, list[Endpoint]]:
    """P4 by the first attack, primary first, that can score retained records.

    Retrained models were trained on them, so an attack that needs OUT models of every record cannot.
    """
    if not inputs.count(Group.RETAIN):
        return None, []
    able, _ = runnable(inputs, plan.attacks, WITH_RETAINED)
    order = sorted(
        (a for a in able if a.name in results),
        key=lambda a: (
            a.name != plan.primary,
            plan.policy.primary_order.index(a.name) if a.name in plan.policy.primary_order else 99,
        ),
    )
    if not order:
        why = "no attack that ran can score retained records: retrained models were trained on them"
        not_run.append(NotRun("retained records (P4)", why, "add an attack that needs no reference models"))
        if inputs.retrained is None or plan.alpha is None:
            return None, []
        bound = plan.policy.retained_bound_at(plan.alpha)
        missing = Estimate(None, reason=why)
        return None, [
            Endpoint("P4", "retained TPR", plan.primary, True, True, missing, bound, "not computed", None, why)
        ]
    attack = order[0]
    return (attack.name, score_models(inputs, attack, WITH_RETAINED, generator(plan.seed, "retained", attack.name))), []


def _dealt(inputs: OneModelInput, plan: OneModelPlan, attack: str, scores: Scores) -> Retained:
    """The deal of the retained records, drawn anew: they are judged beside the others."""
    rows = scores.rows
    return Retained(
        attack, scores.pairs, deal(inputs.group[rows], inputs.labels[rows], generator(plan.seed, "deal retained"))
    )
