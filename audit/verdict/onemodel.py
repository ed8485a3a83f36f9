"""One-model mode: from recorded answers of a model before and after deletion to an audited subject. Arrays only."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mnemoscope.audit.answers.protocols import Attack
from mnemoscope.audit.answers.views import Side
from mnemoscope.audit.errors import AuditError, InvalidInput
from mnemoscope.audit.rng import generator
from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.verdict.limits import limits_of
from mnemoscope.audit.verdict.onemodel_document import (
    answers_digest,
    describe_epsilons,
    describe_findings,
    describe_utility,
    model_groups,
    record_sets,
)
from mnemoscope.audit.verdict.onemodel_endpoints import (
    TAILS,
    absolute_endpoints,
    change_beyond_drift,
    equivalence_endpoints,
    exposure_endpoints,
    negative_control,
    positive_control,
    precision_gate,
    retained_endpoint,
    utility_endpoint,
)
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
from mnemoscope.audit.verdict.onemodel_rates import Board, Group, deal, tail_rate
from mnemoscope.audit.verdict.onemodel_versions import describe_versions
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.power import choose_alpha
from mnemoscope.audit.verdict.result import Check, Endpoint, GateResult, Limits, NotRun, PlanSummary, Subject
from mnemoscope.audit.verdict.rules import decide

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
    """The audited subject with what the result document needs beside it."""

    subject: Subject
    plan: PlanSummary
    limits: Limits
    checks: tuple[Check, ...]
    not_run: tuple[NotRun, ...]


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
    endpoints: list[Endpoint] = [] if structure is None else [structure]
    gates = [gate_result(g, t, r, f) for g, t, r, f in OTHER_GATES]
    main = results.get(plan.primary)
    alpha = plan.alpha
    if alpha is None:
        endpoints.append(_no_alpha(plan, inputs))
    else:
        for label, scores in results.items():
            rates = {tail: tail_rate(scores.after, board, alpha, tail) for tail in TAILS}
            primary = label == plan.primary
            endpoints += absolute_endpoints(label, primary, rates, policy, alpha)
            if scores.pairs:
                endpoints += equivalence_endpoints(label, primary, scores.pairs, board, policy, alpha)
            if primary:
                gates.append(precision_gate(rates, policy, alpha))
        if main is not None:
            endpoints += _exposure(inputs, board, policy, alpha)
            gates.append(negative_control(plan.primary, main.after, board, policy, alpha))
            if main.before is not None:
                gates.append(positive_control(plan.primary, main.before, board, policy, alpha))
    if main is not None and main.before is not None:
        endpoints.append(change_beyond_drift(plan.primary, main.after, main.before, board, policy.interval_level))
    retained = _retained(inputs, plan, alpha, results, endpoints, not_run)
    if inputs.retrained is not None:
        endpoints.append(utility_endpoint(right["after"][0][holdout], right["retrained"][:, holdout], policy))
        gates.append(references_gate(inputs, right, holdout, policy))
        p5 = endpoints[-1]
        gates.append(
            gate_result(
                "G6",
                "use",
                "accuracy not worse than retrained (P5)",
                "flag",
                {"within": "pass", "beyond": "fail"}.get(p5.outcome, "pass"),
                f"{p5.outcome}",
            )
        )
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

    per_record = any(needs_reference_models(a) for a in plan.attacks if a.name in results)
    limits = limits_of(
        "one-model", n_retrained=inputs.n_retrained, process_evidence=process_evidence,
        has_before=inputs.before is not None, per_record=per_record, policy=policy,
    )  # fmt: skip
    verdict = decide(
        endpoints, gates, policy=policy, limits=limits, alpha=alpha, failures=failures, hint=hint or _hint(plan, inputs)
    )
    findings, curves, shapes = describe_findings(inputs, plan, results, retained, board)
    both = describe_versions(inputs, version_attacks, level=policy.interval_level, seed=plan.seed)
    subject = Subject(
        name, method, {}, verdict, tuple(endpoints), tuple(gates), (*findings, *both), curves, shapes,
        describe_utility(inputs, right, policy), model_groups(inputs, method),
        epsilons=describe_epsilons(plan, results, board),
    )  # fmt: skip
    checks = (
        sanity,
        Check("drift", "forget against never-seen records without the model", drift.status, drift.observed),
    )
    summary = plan.summary()
    summary = replace(summary, attacks=tuple(dict.fromkeys((*summary.attacks, *(row.attack for row in both)))))
    return OneModelAudit(subject, summary, limits, checks, tuple(not_run))


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


def _exposure(inputs: OneModelInput, board: Board, policy: Policy, alpha: float) -> list[Endpoint]:
    """P3; named as not computed where there are reference models enough, but some records were in nearly all of them.

    Left out without a word, a single such record would take P3 away from what WITHIN BOUND requires.
    """
    side = inputs.side(inputs.rows(*TESTED))
    count = (side == Side.OUT).sum(axis=0)
    if side.shape[0] >= policy.min_references > count.min():
        few = f"{int((count < policy.min_references).sum())} of {count.size} records"
        why = f"{few} have fewer than {policy.min_references} reference models that never saw them; leave them out"
        missing = Estimate(None, reason=why)
        bound = policy.exposure_bound_at(alpha)
        return [
            Endpoint(
                "P3", f"share beyond own threshold minus never-seen, {tail}", "margin, predictive t", True, True,
                missing, bound, "not computed", None, why,
            )
            for tail in TAILS
        ]  # fmt: skip
    if count.min() < 2:
        return []
    reference = inputs.reference(TESTED)
    margin = inputs.view("after", TESTED).signal("margin").mean(axis=-1)
    others = reference.signal("margin").mean(axis=-1)
    return exposure_endpoints("margin, predictive t", margin, others, reference.side, board, policy, alpha)


def _retained(
    inputs: OneModelInput,
    plan: OneModelPlan,
    alpha: float | None,
    results: dict[str, Scores],
    endpoints: list[Endpoint],
    not_run: list[NotRun],
) -> tuple[str, Scores] | None:
    """P4 by the first attack, primary first, that can score retained records.

    Retrained models were trained on them, so an attack that needs OUT models of every record cannot.
    """
    if not inputs.count(Group.RETAIN):
        return None
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
        if inputs.retrained is not None and alpha is not None:
            endpoints.append(
                Endpoint(
                    "P4",
                    "retained TPR",
                    plan.primary,
                    True,
                    True,
                    Estimate(None, reason=why),
                    plan.policy.retained_bound_at(alpha),
                    "not computed",
                    None,
                    why,
                )
            )
        return None
    attack = order[0]
    scores = score_models(inputs, attack, WITH_RETAINED, generator(plan.seed, "retained", attack.name))
    if scores.pairs and alpha is not None:
        rows = scores.rows
        board = deal(inputs.group[rows], inputs.labels[rows], generator(plan.seed, "deal retained"))
        endpoints.append(retained_endpoint(attack.name, scores.pairs, board, plan.policy, alpha))
    return attack.name, scores
