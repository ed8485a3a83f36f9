"""One-model audits on worlds whose truth is known, and the rules on what each input bears."""

import dataclasses

import numpy as np
import pytest

from mnemoscope.attacks import ATTACKS
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.verdict.onemodel import audit_one_model, plan_one_model
from mnemoscope.audit.verdict.onemodel_input import (
    OneModelInput,
    leave_out_uncovered,
    needs_reference_models,
    runnable,
    score_models,
)
from mnemoscope.audit.verdict.onemodel_power import Counts, one_model_power
from mnemoscope.audit.verdict.onemodel_rates import Group
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.power import choose_alpha
from mnemoscope.audit.verdict.result import GateResult

LIRA = ATTACKS["lira_offline"]()
LOSS = ATTACKS["loss"]()


def world(
    seed: int, n: int = 600, *, retain: int = 0, r: int = 5, leak: float = 0.0,
    before: float | None = 2.5, drift: float = 0.0,
    kept: float = 1.0, kept_after: float | None = None,
) -> OneModelInput:  # fmt: skip
    """Gaussian margins: records differ, models differ, members are lifted; ``drift`` makes forget records easier."""
    rng = np.random.default_rng(seed)
    group = np.repeat([0, 1, 2], [n, n, retain]).astype(np.int8)
    labels = rng.integers(0, 4, group.size)
    hard = rng.normal(2.5, 1.0, group.size) + drift * (group == 0)

    def model(forget: float, stayed: float) -> np.ndarray:
        z = rng.normal(0, 0.3, (group.size, 1, 4)).astype(np.float32)
        lift = forget * (group == 0) + stayed * (group == 2)
        z[np.arange(group.size), 0, labels] += (hard + lift + rng.normal(0, 1, group.size)).astype(np.float32)
        return z

    after = model(leak, kept if kept_after is None else kept_after)
    return OneModelInput(
        np.arange(group.size), labels, group, after,
        before=None if before is None else model(before, kept),
        retrained=np.stack([model(0.0, kept) for _ in range(r)]) if r else None,
    )  # fmt: skip


def word(inputs: OneModelInput, **kw: object) -> tuple[str, str | None]:
    v = audit_one_model(inputs, [LIRA, LOSS] if inputs.n_retrained else [LOSS], **kw).subject.verdict  # type: ignore[arg-type]
    return v.word, v.tier


@pytest.mark.slow
def test_null_leak_and_over_forgetting() -> None:
    words = [word(world(s))[0] for s in range(8)]
    assert words.count("OUTSIDE BOUND") == 0
    assert words.count("WITHIN BOUND") >= 3
    for s in range(3):
        leaking = audit_one_model(world(s, leak=2.5), [LIRA]).subject
        assert (leaking.verdict.word, leaking.verdict.direction) == ("OUTSIDE BOUND", "residual")
        over = audit_one_model(world(s, leak=-2.5), [LIRA]).subject
        assert (over.verdict.word, over.verdict.direction) == ("OUTSIDE BOUND", "over-forgotten")


def test_without_retrained_models_tier_d_and_never_as_if_retrained() -> None:
    audit = audit_one_model(world(0, 1000, r=0, leak=0.0), [LOSS])
    assert audit.subject.verdict.word == "WITHIN BOUND"
    assert audit.subject.verdict.tier == audit.limits.highest_tier == "D"
    assert "as if retrained" in audit.limits.cannot_say
    assert not [e for e in audit.subject.endpoints if e.id in ("P2", "P4", "P5")]
    assert [e for e in audit.subject.endpoints if "beyond holdout drift" in e.part]


def test_an_attack_without_power_is_inconclusive() -> None:
    blind = audit_one_model(world(0, 1000, r=0, before=0.0), [LOSS]).subject
    assert next(g for g in blind.gates if g.id == "G1").status == "fail"
    assert blind.verdict.word == "INCONCLUSIVE"


def test_fewer_than_five_retrained_models_are_description() -> None:
    audit = audit_one_model(world(0, 1000, r=3), [LIRA]).subject
    described = [e for e in audit.endpoints if e.id in ("P2", "P3")]
    assert described
    assert all(e.bound is None and not e.required for e in described)
    assert audit.verdict.tier == "C"


def test_drift_lets_the_retrained_models_decide() -> None:
    """Forget records that are easier for every model: chance is the wrong zero, retrained models the right one."""
    drifted = world(1, 1000, drift=1.0)
    loss = [dataclasses.replace(LOSS)]
    policy = Policy(primary_attack="loss")
    plain = audit_one_model(drifted, loss, policy=policy).subject
    assert next(e for e in plain.endpoints if e.id == "P1").outcome == "beyond"
    failed = GateResult("drift", "drift", "rule", "fail", "AUC 0.7", "INCONCLUSIVE")
    v = audit_one_model(drifted, loss, policy=policy, drift=failed).subject.verdict
    assert v.word == "WITHIN BOUND"
    assert "drift: P1 and P3 are description" in v.flags
    alone = dataclasses.replace(drifted, retrained=None)
    assert audit_one_model(alone, loss, policy=policy, drift=failed).subject.verdict.word == "INCONCLUSIVE"


def test_labels_alone_show_drift_between_classes() -> None:
    inputs = world(0, 300, r=0)
    moved = inputs.labels.copy()
    moved[inputs.group == Group.FORGET] = 0
    audit = audit_one_model(dataclasses.replace(inputs, labels=moved), [LOSS], force=True)
    assert next(g for g in audit.subject.gates if g.id == "drift").status == "fail"


@pytest.mark.slow
def test_retained_records_more_exposed_than_in_retrained_models() -> None:
    inputs = world(2, 600, retain=2000, kept=0.5, kept_after=3.0)
    audit = audit_one_model(inputs, [LIRA, LOSS])
    p4 = next(e for e in audit.subject.endpoints if e.id == "P4")
    assert (p4.attack, p4.outcome) == ("loss", "beyond")
    assert audit.subject.verdict.word == "OUTSIDE BOUND"
    calm = audit_one_model(world(2, 600, retain=2000, kept=0.5), [LIRA, LOSS])
    assert next(e for e in calm.subject.endpoints if e.id == "P4").outcome == "within"
    none = audit_one_model(world(2, 600, retain=50), [LIRA])
    assert next(e for e in none.subject.endpoints if e.id == "P4").outcome == "not computed"
    assert any("retained" in x.what for x in none.not_run)


def test_sanity_line_stops_on_permuted_labels() -> None:
    inputs = world(0, 300)
    wrong = dataclasses.replace(inputs, labels=np.random.default_rng(1).permutation(inputs.labels))
    with pytest.raises(InvalidInput, match="labels or preprocessing are probably wrong"):
        audit_one_model(wrong, [LIRA])
    assert audit_one_model(wrong, [LIRA], force=True).checks[0].status == "fail"


@pytest.mark.parametrize("before", [None, 2.5])
def test_an_attack_that_flags_nobody_is_no_evidence(before: float | None) -> None:
    """A 0/1 score leaves no threshold near alpha: 0 hits at 0 false alarms must not pass for a bound that is kept."""
    subject = audit_one_model(world(0, 1000, r=0, before=before, leak=3.0), [ATTACKS["correctness"]()]).subject
    residual = next(e for e in subject.endpoints if e.id == "P1")
    assert (residual.estimate.k, residual.outcome) == (0, "within"), "what would have been believed"
    assert next(g for g in subject.gates if g.id == "G3").status == "fail"
    assert subject.verdict.word == "INCONCLUSIVE"
    finding = next(f for f in subject.findings if f.models == "after")
    assert "realised FPR far from its target: 0 of 1,000 at 10 % (residual)" in finding.note


def test_a_record_without_models_that_never_saw_it_does_not_take_p3_away() -> None:
    inputs = world(0, 600)
    side = np.zeros((8, inputs.ids.size), np.int8)
    side[:, 0] = 1
    assert inputs.retrained is not None
    shadow = np.concatenate([inputs.retrained, inputs.retrained[:3]])
    lone = dataclasses.replace(inputs, retrained=None, shadow=shadow, shadow_side=side)
    subject = audit_one_model(lone, [LOSS]).subject
    p3 = [e for e in subject.endpoints if e.id == "P3"]
    assert [e.outcome for e in p3] == ["not computed", "not computed"]
    assert all(e.required and "1 of 1200 records" in e.detail for e in p3)
    assert any("Not computed: P3" in reason for reason in subject.verdict.reasons)


def test_random_halves_say_that_they_cannot_show_two_sources() -> None:
    inputs = world(0, 1000, r=0)
    dealt = next(g for g in audit_one_model(inputs, [LOSS]).subject.gates if g.id == "G2")
    assert "give calibration records" in dealt.observed
    moved = inputs.after.copy()
    rows = np.arange(1500, 2000)
    moved[rows, 0, inputs.labels[rows]] -= 2
    group = inputs.group.copy()
    group[rows] = Group.CALIBRATION
    two = dataclasses.replace(inputs, after=moved, group=group)
    given = next(g for g in audit_one_model(two, [LOSS], force=True).subject.gates if g.id == "G2")
    assert given.status == "fail"
    assert "give calibration records" not in given.observed


def test_too_few_records_bear_no_rate_and_say_what_would() -> None:
    audit = audit_one_model(world(0, 40), [LIRA])
    v = audit.subject.verdict
    assert (audit.plan.alpha, v.word) == (None, "INCONCLUSIVE")
    assert "procedure mode" in v.next_step
    assert "forget and" in v.next_step


def test_row_19_an_attack_fitted_on_what_it_scores_fails_the_negative_control() -> None:
    """peer-defects row 19: a quantile attack fitted on the non-members it scores sees 1.8-3.7 % where nothing leaks."""

    class Overfitted:
        """Pushes down exactly the holdout records of one half: what fitting on them does, made visible."""

        name, needs = "overfitted", LOSS.needs

        def fit(self, reference: object, *, rng: np.random.Generator) -> "Overfitted":
            return self

        def score(self, view: object) -> np.ndarray:
            score = np.random.default_rng(0).normal(size=view.ids.size)  # type: ignore[attr-defined]
            score[(view.ids >= 1000) & (view.ids < 1400)] -= 1.0  # type: ignore[attr-defined]
            return score

    inputs = world(0, 1000, r=0)
    group = inputs.group.copy()
    group[1000:1400] = Group.CALIBRATION
    subject = audit_one_model(dataclasses.replace(inputs, group=group), [Overfitted()]).subject
    faulty_tpr = (np.random.default_rng(0).normal(size=2000)[:1000] > -1 + 1.645).mean()
    assert faulty_tpr > 0.1
    assert next(g for g in subject.gates if g.id == "G2").status == "fail"
    assert subject.verdict.word == "NOT ASSESSED"


def test_row_32_retrained_models_score_the_null_beside_every_figure() -> None:
    """peer-defects row 32: a metric of two identical ensembles is not zero; the retrained row stands beside ours."""
    audit = audit_one_model(world(3, 600), [LIRA]).subject
    retrained = next(f for f in audit.findings if f.models == "retrained")
    assert retrained.auc.low is not None
    assert retrained.auc.low < 0.5 < (retrained.auc.high or 0)


def test_row_25_a_failing_primary_attack_is_not_assessed() -> None:
    """peer-defects row 25: a failing attack returned 0.0 = LOW."""

    class Broken:
        name, needs = "broken", LOSS.needs

        def fit(self, reference: object, *, rng: np.random.Generator) -> "Broken":
            return self

        def score(self, view: object) -> np.ndarray:
            return np.full(view.ids.size, np.nan)  # type: ignore[attr-defined]

    audit = audit_one_model(world(0, 300, r=0), [Broken(), LOSS], policy=Policy(primary_attack="broken"))
    assert audit.subject.verdict.word == "NOT ASSESSED"
    assert any("not finite" in x.why for x in audit.not_run)


def test_each_retrained_model_is_scored_by_the_others_like_its_twin() -> None:
    """With itself among its references a retrained model looks closer to them than the audited one can."""
    inputs = world(0, 500)
    scores = score_models(inputs, LIRA, (Group.FORGET, Group.HOLDOUT), np.random.default_rng(0))
    spread = np.array([[a.std(), b.std()] for a, b in scores.pairs])
    assert spread[:, 0].mean() == pytest.approx(spread[:, 1].mean(), rel=0.05)
    reference = inputs.reference((Group.FORGET, Group.HOLDOUT))
    naive = LIRA.fit(reference, rng=np.random.default_rng(0)).score(reference.target(0))
    assert naive.std() < 0.9 * spread[:, 1].mean()


def test_a_changed_copy_answers_for_itself() -> None:
    """Views are kept once computed; a copy with other answers must not be given those of the original."""
    inputs = world(0, 50)
    groups = (Group.FORGET, Group.HOLDOUT)
    inputs.view("after", groups), inputs.reference(groups)  # noqa: B018
    copy = dataclasses.replace(inputs, after=inputs.after + 1, retrained=inputs.retrained[:3])  # type: ignore[index]
    assert np.array_equal(copy.view("after", groups).logits, inputs.after + 1)
    assert copy.reference(groups).n_models == 3


def test_runnable_names_what_lacks() -> None:
    able, unable = runnable(world(0, 50, r=0), [LIRA, LOSS, ATTACKS["population"]()], (Group.FORGET, Group.HOLDOUT))
    assert [a.name for a in able] == ["loss"]
    assert [a.name for a, _ in unable] == ["lira_offline", "population"]
    assert needs_reference_models(LIRA)
    assert not needs_reference_models(ATTACKS["modified_entropy_by_class"]())


def test_the_plan_depends_on_counts_only() -> None:
    a, b = (plan_one_model(world(s, leak=x), [LIRA]).summary() for s, x in ((0, 0.0), (1, 3.0)))
    assert a == b
    assert plan_one_model(world(0), [LIRA], policy=Policy(alpha=0.1)).summary().digest != a.digest


def test_same_seed_same_audit_and_inputs_untouched() -> None:
    inputs = world(5, 200)
    for array in (inputs.after, inputs.before, inputs.retrained, inputs.labels, inputs.group):
        array.flags.writeable = False  # type: ignore[union-attr]
    assert audit_one_model(inputs, [LIRA], seed=1).subject == audit_one_model(world(5, 200), [LIRA], seed=1).subject


@pytest.mark.parametrize(
    ("counts", "alpha", "low", "high"),
    [
        (Counts(600, 600, retrained=5, per_record=True, paired=True), 0.05, 0.70, 0.83),
        (Counts(600, 600, retrained=5, per_record=True, paired=True), 0.10, 0.79, 0.90),
        (Counts(1000, 1000, retrained=5, per_record=True, paired=True), 0.05, 0.93, 0.98),
        (Counts(600, 600), 0.05, 0.90, 0.98),
        (Counts(600, 600), 0.001, 0.0, 0.0),
        (Counts(500_000, 500_000), 0.001, 0.98, 0.98),
    ],
)
def test_whole_rule_power(counts: Counts, alpha: float, low: float, high: float) -> None:
    power = one_model_power(counts, Policy(), alphas=[alpha])[0]
    assert low <= power.value <= high


def test_alpha_is_the_smallest_with_enough_power() -> None:
    policy = Policy()
    assert choose_alpha(one_model_power(Counts(600, 600, retrained=5, paired=True), policy), policy) == 0.05
    assert choose_alpha(one_model_power(Counts(3000, 3000, retrained=5, paired=True), policy), policy) == 0.01
    assert choose_alpha(one_model_power(Counts(40, 40), policy), policy) is None
    assert one_model_power(Counts(600, 600), policy)[2].estimate().high <= 1  # type: ignore[operator]


def test_epsilon_of_one_model_stays_below_its_ceiling_and_is_zero_without_a_leak():
    leaky = audit_one_model(world(0, 600, r=2, leak=3.0), [LOSS]).subject
    assert {(e.game, e.models) for e in leaky.epsilons} >= {("forgetting", "after")}
    after = [e for e in leaky.epsilons if e.models == "after"]
    assert max(e.bound.value for e in after) > 0.2
    assert all(e.bound.value <= e.ceiling for e in leaky.epsilons)
    clean = audit_one_model(world(1, 600, r=2), [LOSS]).subject
    assert all(e.bound.value == 0 for e in clean.epsilons if e.models == "after")


def test_records_without_a_model_on_one_side_are_left_out_by_id_and_counted():
    whole = world(0, 100, r=0)
    rng = np.random.default_rng(3)
    side = rng.permuted(np.tile(np.repeat([0, 1], 4)[:, None], (1, whole.ids.size)), axis=0).astype(np.int8)
    side[:, 7], side[:, 150] = 1, 0
    shadow = np.stack([whole.after] * 8)
    inputs = dataclasses.replace(whole, shadow=shadow, shadow_side=side)
    left, said = leave_out_uncovered(inputs)
    assert left.ids.size == 198
    assert not np.isin([7, 150], left.ids).any()
    assert said == (
        "1 of 200 records have no model that did not hold them: ids 7; "
        "1 of 200 records have no model that held them: ids 150. They are left out of every attack"
    )
    lacking = runnable(inputs, [ATTACKS["lira"]()], (Group.FORGET, Group.HOLDOUT))[1]
    assert lacking
    assert not runnable(left, [ATTACKS["lira"]()], (Group.FORGET, Group.HOLDOUT))[1]


def test_nothing_is_left_out_where_the_models_do_not_fit_the_records():
    whole = world(0, 100, r=0)
    side = np.zeros((4, whole.ids.size), np.int8)
    inputs = dataclasses.replace(whole, shadow=np.stack([whole.after] * 4), shadow_side=side)
    assert leave_out_uncovered(inputs) == (inputs, "")
    assert leave_out_uncovered(whole) == (whole, "")
