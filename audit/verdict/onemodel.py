"""One-model mode: from recorded answers of a model before and after deletion to an audited subject. Arrays only."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import rfc8785
from numpy.typing import NDArray

from mnemoscope.audit.answers.protocols import NEED_REMEDIES, Attack
from mnemoscope.audit.answers.views import Need, Side
from mnemoscope.audit.errors import AuditError, InvalidInput
from mnemoscope.audit.rng import generator
from mnemoscope.audit.statistics.proportions import clopper_pearson
from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.verdict.limits import limits_of
from mnemoscope.audit.verdict.onemodel_describe import curve, distributions, finding, pooled, utilities
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
from mnemoscope.audit.verdict.onemodel_input import (
    OneModelInput,
    Scores,
    needs_reference_models,
    runnable,
    score_models,
)
from mnemoscope.audit.verdict.onemodel_power import Counts, OneModelPower, choose_alpha, one_model_power
from mnemoscope.audit.verdict.onemodel_rates import Board, Group, deal, tail_rate
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.result import (
    Check,
    Curve,
    Distribution,
    Endpoint,
    Finding,
    GateResult,
    Limits,
    ModelGroup,
    ModelRole,
    NotRun,
    PlanSummary,
    RecordSet,
    Subject,
    Utility,
)
from mnemoscope.audit.verdict.rules import decide

__all__ = [
    "TESTED",
    "OneModelAudit",
    "OneModelPlan",
    "answers_digest",
    "audit_one_model",
    "model_groups",
    "plan_one_model",
    "record_sets",
    "sanity_check",
]

Floats = NDArray[np.float64]
TESTED = (Group.FORGET, Group.HOLDOUT, Group.CALIBRATION)
WITH_RETAINED = (*TESTED, Group.RETAIN)
PROBABLY_WRONG = "labels or preprocessing are probably wrong"
NOT_RUN_GATE = "not run: nothing was given to check it on"


@dataclass(frozen=True, eq=False)
class OneModelPlan:
    """What is fixed from counts and policy, before the first score.

    Attributes:
        policy: bounds and levels.
        attacks: those that can run, in the order given.
        primary: name of the attack that decides WITHIN.
        unable: attacks that cannot run with what they lack.
        alpha: the endpoints' FPR; None where the counts bear none.
        powers: whole-rule power at each candidate.
        seed: root seed of the deal and of the attacks.
        n_classes: classes of the model.
    """

    policy: Policy
    attacks: tuple[Attack, ...]
    primary: str
    unable: tuple[tuple[str, str], ...]
    alpha: float | None
    powers: tuple[OneModelPower, ...]
    seed: int

    def summary(self) -> PlanSummary:
        """The plan as it is printed; its digest covers policy, attacks with settings, alpha and seed."""
        used = next((p for p in self.powers if p.alpha == self.alpha), None)
        reason = "no alpha: the counts bear none of the candidates"
        power = Estimate(None, reason=reason) if used is None else used.estimate()
        names = tuple(attack.name for attack in self.attacks)
        content = {
            "policy": self.policy.digest,
            "attacks": [repr(attack) for attack in self.attacks],
            "primary": self.primary,
            "alpha": self.alpha,
            "seed": str(self.seed),
        }
        return PlanSummary(
            digest="sha256:" + hashlib.sha256(rfc8785.dumps(content)).hexdigest(),
            policy=self.policy.as_dict(),
            primary_attack=self.primary,
            attacks=names,
            alpha=self.alpha,
            alpha_source="given" if self.policy.alpha is not None else "chosen from counts",
            power=power,
            power_by_alpha={f"{p.alpha:g}": p.value for p in self.powers},
            committed_before_scores=True,
            seed=self.seed,
        )


@dataclass(frozen=True, eq=False)
class OneModelAudit:
    """The audited subject with what the result document needs beside it."""

    subject: Subject
    plan: PlanSummary
    limits: Limits
    checks: tuple[Check, ...]
    not_run: tuple[NotRun, ...]


def plan_one_model(
    inputs: OneModelInput, attacks: Sequence[Attack], *, policy: Policy | None = None, seed: int = 0
) -> OneModelPlan:
    """Choose the primary attack and alpha from what is there, without looking at a score.

    A given ``policy.alpha`` is kept whatever its power; otherwise the smallest candidate with enough power is taken.

    Raises:
        InvalidInput: no attack can run.
    """
    policy = Policy() if policy is None else policy
    able, unable = runnable(inputs, attacks, TESTED)
    primary = policy.choose_primary([attack.name for attack in able])
    chosen = next(attack for attack in able if attack.name == primary)
    powers = tuple(one_model_power(_counts(inputs, chosen, able, policy), policy))
    return OneModelPlan(
        policy,
        tuple(able),
        primary,
        tuple((attack.name, _lacks(missing)) for attack, missing in unable),
        policy.alpha if policy.alpha is not None else choose_alpha(powers, policy),
        powers,
        seed,
    )


def _lacks(missing: Need) -> str:
    return "; ".join(text for need, text in NEED_REMEDIES.items() if need in missing)


def _counts(inputs: OneModelInput, primary: Attack, attacks: Sequence[Attack], policy: Policy) -> Counts:
    # P4 asks something of the power only where an attack can score retained records.
    retained = bool(runnable(inputs, attacks, WITH_RETAINED)[0])
    side = inputs.side(inputs.rows(*TESTED))
    return Counts(
        inputs.count(Group.FORGET),
        inputs.count(Group.HOLDOUT),
        inputs.count(Group.CALIBRATION),
        inputs.count(Group.RETAIN) if retained else 0,
        inputs.n_retrained,
        per_record=bool(side.shape[0]) and int((side == 0).sum(axis=0).min()) >= policy.min_references,
        paired=needs_reference_models(primary) and inputs.n_retrained > 1,
    )


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

    Returns:
        The subject, its plan, limits, checks and what was not run.

    Raises:
        InvalidInput: holdout accuracy near chance ("labels or preprocessing are probably wrong"), unless forced.
    """
    plan = plan_one_model(inputs, attacks, policy=policy, seed=seed) if plan is None else plan
    policy = plan.policy
    holdout = inputs.rows(Group.HOLDOUT, Group.CALIBRATION)
    right = _right(inputs)
    sanity = sanity_check(right["after"][0][holdout], inputs.labels[holdout], _predicted(inputs.after)[holdout], policy)
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

    drift = _class_drift(inputs, policy) if drift is None else drift
    endpoints: list[Endpoint] = [] if structure is None else [structure]
    gates = [_gate(g, t, r, f) for g, t, r, f in OTHER_GATES]
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
        gates.append(_references_gate(inputs, right, holdout, policy))
        p5 = endpoints[-1]
        gates.append(
            _gate(
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
        _gate(
            "G8",
            "plan",
            "digest fixed before the first score",
            "flag",
            "fail" if exploratory else "pass",
            plan.summary().digest[:19],
        )
    )
    gates = _complete(gates)
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
    findings, curves, shapes = _describe(inputs, plan, results, retained, board)
    subject = Subject(
        name, method, {}, verdict, tuple(endpoints), tuple(gates), findings, curves, shapes,
        _utility(inputs, right, policy), model_groups(inputs, method),
    )  # fmt: skip
    checks = (
        sanity,
        Check("drift", "forget against never-seen records without the model", drift.status, drift.observed),
    )
    return OneModelAudit(subject, plan.summary(), limits, checks, tuple(not_run))


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


def _gate(
    id: str, title: str, rule: str, fails_to: str, status: str = "not run", observed: str = NOT_RUN_GATE
) -> GateResult:
    return GateResult(id, title, rule, status, observed, fails_to)  # type: ignore[arg-type]


def _complete(gates: list[GateResult]) -> list[GateResult]:
    """One entry a gate, the computed one before the placeholder, in order of id."""
    last: dict[str, GateResult] = {}
    for gate in gates:
        last[gate.id] = gate
    return sorted(last.values(), key=lambda g: g.id)


def _predicted(logits: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.asarray(logits[..., 0, :].argmax(axis=-1), np.int64)


def _right(inputs: OneModelInput) -> dict[str, NDArray[np.bool_]]:
    """Whether each model is right on each record, (models, n) bool for each kind of model; first query."""
    found = {"after": (_predicted(inputs.after) == inputs.labels)[None]}
    if inputs.before is not None:
        found["before"] = (_predicted(inputs.before) == inputs.labels)[None]
    if inputs.retrained is not None:
        found["retrained"] = np.stack([_predicted(model) == inputs.labels for model in inputs.retrained])
    return found


def _class_drift(inputs: OneModelInput, policy: Policy) -> GateResult:
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
    return _gate("drift", "drift", rule, "INCONCLUSIVE", "fail" if p < policy.drift_level else "not run", observed)


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
        now = _counts(inputs, chosen, plan.attacks, plan.policy)
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


def _references_gate(
    inputs: OneModelInput, right: dict[str, NDArray[np.bool_]], holdout: NDArray[np.int64], policy: Policy
) -> GateResult:
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
    return _gate("G7", "references", rule, "tier", "pass" if passed else "fail", observed)


def _describe(
    inputs: OneModelInput,
    plan: OneModelPlan,
    results: dict[str, Scores],
    retained: tuple[str, Scores] | None,
    board: Board,
) -> tuple[tuple[Finding, ...], tuple[Curve, ...], tuple[Distribution, ...]]:
    level = plan.policy.interval_level
    findings: list[Finding] = []
    curves: list[Curve] = []
    shapes: list[Distribution] = []

    def add(
        name: str, game: str, role: ModelRole, scores: list[Floats], is_in: NDArray[np.bool_], ids: NDArray[np.int64],
        threshold: float | None, note: str = "",
    ) -> None:  # fmt: skip
        trials = pooled(scores, is_in, ids)
        primary = name == plan.primary
        findings.append(finding(name, game, role, primary, trials, level=level, threshold=threshold, note=note))
        curves.append(curve(name, game, role, trials, level=level))
        shapes.extend(distributions(name, game, role, trials))

    take = board.rows(Group.FORGET) | board.rows(Group.HOLDOUT)
    is_in = board.rows(Group.FORGET)[take]
    for name, scores in results.items():
        ids = inputs.ids[scores.rows][take]
        if scores.before is not None:
            add(name, "membership", "before", [scores.before[take]], is_in, ids, scores.threshold)
        add(name, "forgetting", "after", [scores.after[take]], is_in, ids, scores.threshold)
        if scores.pairs:
            theirs = [b[take] for _, b in scores.pairs]
            add(name, "forgetting", "retrained", theirs, is_in, ids, None, "each scored by the others as references")
    if retained is not None:
        name, scores = retained
        group = inputs.group[scores.rows]
        both = (group == Group.RETAIN) | (group == Group.HOLDOUT)
        kept = (group == Group.RETAIN)[both]
        ids = inputs.ids[scores.rows][both]
        if scores.before is not None:
            add(name, "retention", "before", [scores.before[both]], kept, ids, scores.threshold)
        add(name, "retention", "after", [scores.after[both]], kept, ids, scores.threshold)
        if scores.pairs:
            add(name, "retention", "retrained", [b[both] for _, b in scores.pairs], kept, ids, None)
    return tuple(findings), tuple(curves), tuple(shapes)


def _utility(inputs: OneModelInput, right: dict[str, NDArray[np.bool_]], policy: Policy) -> tuple[Utility, ...]:
    found: list[Utility] = []
    names: tuple[tuple[Literal["forget", "retain", "holdout", "test"], tuple[Group, ...]], ...] = (
        ("forget", (Group.FORGET,)),
        ("retain", (Group.RETAIN,)),
        ("holdout", (Group.HOLDOUT, Group.CALIBRATION)),
    )
    roles: tuple[Literal["before", "after"], ...] = ("before", "after")
    for name, groups in names:
        rows = inputs.rows(*groups)
        if rows.size:
            single: dict[ModelRole, NDArray[np.bool_]] = {role: right[role][0][rows] for role in roles if role in right}
            retrained = right["retrained"][:, rows] if "retrained" in right else None
            found += utilities(name, single, retrained, policy.interval_level)
    return tuple(found)


def model_groups(
    inputs: OneModelInput, method: str, *, only: Literal["before"] | None = None
) -> tuple[ModelGroup, ...]:
    """Models behind the answers, told apart by digests of what they answered.

    Args:
        inputs: recorded answers.
        method: the deletion method, where it is known.
        only: "before" where there is a single model and no deletion.
    """
    groups: list[ModelGroup] = []
    what = "digest of the recorded answers"
    if inputs.before is not None:
        groups.append(ModelGroup("before", "before", 1, answers_digest(inputs.before), what))
    name: ModelRole = only or "after"
    groups.append(ModelGroup(name, name, 1, answers_digest(inputs.after), what, method))
    if inputs.retrained is not None:
        digest = answers_digest(inputs.retrained)
        groups.append(ModelGroup("retrained", "retrained", inputs.n_retrained, digest, what))
    if inputs.shadow is not None:
        digest = answers_digest(inputs.shadow)
        groups.append(ModelGroup("shadow", "shadow", int(inputs.shadow.shape[0]), digest, what))
    return tuple(groups)


def record_sets(inputs: OneModelInput, *, membership: bool = False) -> tuple[tuple[RecordSet, ...], str]:
    """Records of each role with the digest of their ids and labels, and the digest of them all."""
    names = {group: group.name.lower() for group in Group}
    if membership:
        names |= {Group.FORGET: "member", Group.HOLDOUT: "non-member"}
    sets = []
    for group, name in names.items():
        rows = inputs.rows(group)
        if rows.size:
            sets.append(RecordSet(name, int(rows.size), _ids_digest(inputs.ids[rows], inputs.labels[rows])))
    return tuple(sets), _ids_digest(inputs.ids, inputs.labels)


def _ids_digest(ids: NDArray[np.int64], labels: NDArray[np.int64]) -> str:
    state = hashlib.sha256(np.ascontiguousarray(ids, "<i8").data)
    state.update(np.ascontiguousarray(labels, "<i8").data)
    return "sha256:" + state.hexdigest()


def answers_digest(array: NDArray[np.float32]) -> str:
    """sha256 of type, shape and values of recorded answers."""
    state = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    for part in array if array.ndim > 3 else (array,):
        state.update(np.ascontiguousarray(part).data)
    return "sha256:" + state.hexdigest()
