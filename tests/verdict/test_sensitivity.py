"""Other rules, the same scores: the row that equals the audit gives its word, and each row follows its own rule."""

import dataclasses
from functools import cache

import numpy as np
import pytest

from mnemoscope.attacks import ATTACKS
from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.records.design import Design, Role
from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.verdict.basis import Basis
from mnemoscope.audit.verdict.controls import negative_control, negative_controls
from mnemoscope.audit.verdict.onemodel import audit_one_model
from mnemoscope.audit.verdict.onemodel_input import OneModelInput
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.procedure import FleetAnswers, ProcedureAudit, ProcedureInput
from mnemoscope.audit.verdict.result import Endpoint, GateResult
from mnemoscope.audit.verdict.sensitivity import Choice, alternative_alphas, sensitivity_rows

M, N = 24, 160
KEPT, FORGOTTEN, NEVER = Role.KEPT, Role.FORGOTTEN, Role.NEVER


@dataclasses.dataclass(frozen=True)
class Margin:
    """The answer itself, rounded or not; closed form, needs nothing."""

    name: str = "margin"
    needs: Need = Need.SCORES
    digits: int = 6

    def fit(self, reference, *, rng):
        return self

    def score(self, view):
        return np.round(view.signal("margin").mean(axis=1), self.digits)


def design():
    rng = np.random.default_rng(0)
    role = np.full((M, N), NEVER, np.int8)
    thirds = np.repeat([KEPT, FORGOTTEN, NEVER], M // 6).astype(np.int8)
    for j in range(N):
        for half in (slice(0, M // 2), slice(M // 2, M)):
            role[half, j] = rng.permutation(thirds)
    return Design(np.arange(N), role, np.repeat([0, 1], M // 2).astype(np.int8), 0)


def fleet(made, rng, leak):
    role = made.roles_of(made.audited)
    margin = rng.normal(size=role.shape)
    for which, amount in leak.items():
        margin[role == which] += amount
    return FleetAnswers(np.stack([margin, np.zeros_like(margin)], -1)[:, :, None, :].astype(np.float32))


FEW = Policy(control_permutations=39)
GIVEN = Policy(alpha=0.1)


@cache
def procedure(leak, policy=FEW, alpha=0.05, primary="margin", control=0.0, before=2.0):
    made, rng = design(), np.random.default_rng(1)
    kept = {KEPT: 1.5}
    inputs = ProcedureInput(
        made, [f"r{j}" for j in range(N)], np.zeros(N, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64),
        np.zeros(0, np.int64), fleet(made, rng, {**kept, FORGOTTEN: before}), fleet(made, rng, kept),
        fleet(made, rng, {**kept, FORGOTTEN: control}),
    )  # fmt: skip
    attacks = [Margin(), Margin("coarse", digits=1)]
    audit = ProcedureAudit(inputs, attacks, primary=primary, policy=policy, alpha=alpha, seed=0)
    gates = [GateResult(g, g, "", "pass", "", "INCONCLUSIVE") for g in ("G4", "G5", "G7", "G8", "drift")]
    return audit.subject("s", fleet(made, rng, {**kept, FORGOTTEN: leak}), method="m", settings={}, gates=gates)


@cache
def one_model(leak, policy=GIVEN, r=5):
    rng = np.random.default_rng(2)
    group = np.repeat([0, 1, 2], [500, 500, 300]).astype(np.int8)
    labels = rng.integers(0, 3, group.size)
    hard = rng.normal(2.5, 1.0, group.size)

    def model(lift):
        z = rng.normal(0, 0.3, (group.size, 1, 3)).astype(np.float32)
        z[np.arange(group.size), 0, labels] += (
            hard + lift * (group == 0) + (group == 2) + rng.normal(size=group.size)
        ).astype(np.float32)
        return z

    retrained = np.stack([model(0.0) for _ in range(r)]) if r else None
    inputs = OneModelInput(np.arange(group.size), labels, group, model(leak), before=model(2.5), retrained=retrained)
    attacks = [ATTACKS["loss"](), ATTACKS["modified_entropy"]()] + ([ATTACKS["lira_offline"]()] if r else [])
    return audit_one_model(inputs, attacks, policy=policy).subject


WORLDS = {
    "nothing leaks": lambda: procedure(0.0),
    "leaks": lambda: procedure(1.5),
    "over-forgotten": lambda: procedure(-1.5),
    "no power": lambda: procedure(0.0, before=0.0),
    "broken control": lambda: procedure(0.0, control=2.0),
    "odd bound": lambda: procedure(0.0, policy=Policy(control_permutations=39, tpr_ratio=2.5)),
    "no alpha": lambda: procedure(0.0, alpha=None),
    "one model, nothing": lambda: one_model(0.0),
    "one model, leaks": lambda: one_model(2.5),
    "one model, alone": lambda: one_model(0.0, r=0),
    "smoke": lambda: one_model(0.0, policy=Policy(alpha=0.1, profile="smoke"), r=0),
}


QUICK = ("nothing leaks", "one model, alone", "smoke")


@pytest.mark.parametrize(
    "world", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in WORLDS]
)
def test_the_row_that_equals_the_audit_gives_its_word(world):
    subject = WORLDS[world]()
    actual = [row for row in subject.sensitivity if row.actual]
    assert all((row.word, row.tier) == (subject.verdict.word, subject.verdict.tier) for row in actual)
    groups = {row.varied for row in subject.sensitivity}
    assert {row.varied for row in actual} == groups
    assert len(actual) == len(groups)  # one a group
    assert bool(groups) == (world != "no alpha")


@pytest.mark.slow
def test_a_row_is_what_an_audit_planned_so_would_have_found():
    """Not a shortcut: at another bound, alpha or primary attack the audit itself gives the word of that row."""
    subject = procedure(0.35)
    found = {(row.varied, row.value): row for row in subject.sensitivity}
    loose = procedure(0.35, policy=Policy(control_permutations=39, tpr_ratio=3.0))
    tight = procedure(0.35, policy=Policy(control_permutations=39, tpr_ratio=1.5))
    assert found["bound", "3 x FPR"].word == loose.verdict.word
    assert found["bound", "1.5 x FPR"].word == tight.verdict.word
    for alpha in (0.01, 0.1):
        other = procedure(0.35, alpha=alpha)
        row = found["alpha", f"{100 * alpha:g} %"]
        assert (row.word, row.tier) == (other.verdict.word, other.verdict.tier)
    assert len({row.word for row in subject.sensitivity}) > 1, "a world in which some rule turns the word"


def test_another_primary_attack_says_what_is_not_known_of_it():
    found = {(row.varied, row.value): row for row in procedure(0.0).sensitivity}
    row = found["primary", "coarse"]
    assert "G2" in row.note
    assert "P4" in row.note  # an attack that no policy would choose is not asked of those who stayed
    assert row.tier == "C"  # a control that was not run
    assert found["primary", "margin"].note == ""


@pytest.mark.slow
def test_left_out_endpoints_and_attacks_are_left_out():
    leaking = {(row.varied, row.value): row for row in procedure(1.5).sensitivity}
    assert {value for varied, value in leaking if varied == "endpoints"} == {
        "all", "without P2", "without P3", "without P4",
    }  # fmt: skip
    assert {value for varied, value in leaking if varied == "attacks"} == {"all", "without coarse"}
    assert all(row.word == "OUTSIDE BOUND" for row in leaking.values())


class Written:
    """Rules that are written down: one attack and one question carry the finding."""

    def __init__(self, *beyond):
        self.beyond = beyond

    def endpoints(self, choice):
        bound = choice.policy.tpr_bound(choice.alpha)
        rows = [("P1", choice.primary), ("P1", "other"), ("P2", choice.primary), ("P3", "margins")]
        return [
            Endpoint(
                name, "residual", attack, attack != "other", attack != "other", Estimate(0.01), bound,
                "beyond" if (name, attack) in self.beyond else "within",
                1e-9 if (name, attack) in self.beyond else 1.0,
            )
            for name, attack in rows
        ]  # fmt: skip

    def gates(self, choice):
        return [GateResult(g, g, "", "pass", "", "INCONCLUSIVE") for g in ("G1", "G2", "G3", "G4", "drift")]

    def note(self, choice):
        return f"note on {choice.primary}"


def decided(*beyond):
    rows = sensitivity_rows(
        Written(*beyond), Choice(Policy(), 0.05, "first"), Basis("procedure", alpha=0.05),
        alphas=(0.05, 0.1), attacks=("first", "other"),
    )  # fmt: skip
    return {(row.varied, row.value): row for row in rows}


def test_a_finding_that_one_endpoint_or_attack_carries_goes_with_it():
    exposed = decided(("P3", "margins"))
    assert exposed["endpoints", "all"].word == "OUTSIDE BOUND"
    assert exposed["endpoints", "without P3"].word == "WITHIN BOUND"
    assert exposed["endpoints", "without P2"].word == "OUTSIDE BOUND"
    other = decided(("P1", "other"))
    assert other["attacks", "all"].word == "OUTSIDE BOUND"
    assert other["attacks", "without other"].word == "WITHIN BOUND"
    assert ("attacks", "without first") not in other  # without it there would be no verdict at all
    assert ("endpoints", "without P1") not in other
    assert ("endpoints", "without P4") not in other  # nobody asked


def test_notes_stand_at_other_choices_alone():
    rows = decided().values()
    assert {row.note for row in rows if row.actual} == {""}
    assert decided()["primary", "other"].note == "note on other"


def test_joint_controls_are_those_of_each_alpha_alone():
    rng = np.random.default_rng(0)
    side = rng.integers(-1, 2, (20, 40)).astype(np.int8)
    fold, score = np.repeat([0, 1], 10), rng.normal(size=side.shape)

    def alone(alpha):
        return negative_control(lambda _: score, side, fold, alpha, permutations=59, rng=np.random.default_rng(5))

    together = negative_controls(
        lambda _: score, side, fold, (0.01, 0.05, 0.2), permutations=59, rng=np.random.default_rng(5)
    )
    assert together == {alpha: alone(alpha) for alpha in (0.01, 0.05, 0.2)}


def test_alphas_are_those_that_the_counts_bear():
    assert alternative_alphas(Policy(), 0.05, 100) == (0.05, 0.1)
    assert alternative_alphas(Policy(), 0.02, 100_000) == (0.001, 0.01, 0.02, 0.05, 0.1)
    assert alternative_alphas(Policy(alpha_candidates=(0.2,)), 0.05, 10) == (0.05,)
