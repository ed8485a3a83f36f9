"""What an audit prints beside its verdict: difference games with their controls, defences, measures with floors."""

import dataclasses
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mnemoscope.attacks.threshold import Threshold
from mnemoscope.audit.answers.defences import parse_defence
from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.fleet import FleetScores
from mnemoscope.audit.statistics.measures import Measurement
from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.verdict.defended import defended_row
from mnemoscope.audit.verdict.epsilons import fleet_epsilons, refutations
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.procedure import Alternative, ProcedureAudit

spec = importlib.util.spec_from_file_location("worlds", Path(__file__).with_name("test_procedure.py"))
worlds = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worlds)

NOTHING_NEW = {worlds.KEPT: 2.0, worlds.FORGOTTEN: 2.0}


@dataclass(frozen=True)
class Drop:
    """How far the margin fell from the first version to the second."""

    name: str = "drop"
    needs: Need = Need.SCORES | Need.BEFORE

    def fit(self, reference, *, rng):
        return self

    def score(self, view):
        return (view.before.signal("margin") - view.signal("margin")).mean(axis=1)


@dataclass(frozen=True)
class Shift:
    """Mean margin of forgotten records, to see which fleet is given as which."""

    name: str = "shift"
    needs: Need = Need.SCORES

    def measure(self, given, *, rng):
        forgotten = given.role == worlds.FORGOTTEN

        def mean(reference):
            return Estimate(float(reference.signal("margin")[..., 0][forgotten].mean()))

        return Measurement(self.name, mean(given.after), mean(given.control), "logits", "more remembered")


def audited(attacks=(), after=worlds.RETRAINED, reseeded=True, **more):
    base, design, rng = worlds.make_audit(permutations=99)
    inputs = dataclasses.replace(
        base.inputs, reseeded=worlds.fleet(design, np.random.default_rng(7), NOTHING_NEW) if reseeded else None
    )
    primary = worlds.MeanDifference()
    audit = ProcedureAudit(
        inputs, [primary, *attacks], primary=primary.name, policy=Policy(control_permutations=99),
        alpha=worlds.ALPHA, seed=0, **more,
    )  # fmt: skip
    return worlds.judge(audit, worlds.fleet(design, rng, after))


def auc(subject, game, models):
    found = [f for f in subject.findings if (f.attack, f.game, f.models) == ("drop", game, models)]
    assert len(found) == 1
    return found[0].auc


@pytest.mark.slow
def test_publishing_both_versions_gives_away_what_retraining_forgot():
    subject = audited([Drop()])
    for game in ("difference-never", "difference-kept"):
        for models in ("after", "retrained"):
            assert auc(subject, game, models).low > 0.5
    # Nothing was deleted: a new seed moves all records alike.
    assert abs(auc(subject, "difference-kept", "reseeded").value - 0.5) < 0.02
    assert abs(auc(subject, "difference-kept", "no-op").value - 0.5) < 1e-12
    assert subject.verdict.word == audited().verdict.word == "WITHIN BOUND"


@pytest.mark.slow
def test_the_control_is_left_out_where_nobody_trained_it():
    subject = audited([Drop()], reseeded=False)
    assert not [f for f in subject.findings if f.models == "reseeded"]


@pytest.mark.slow
def test_an_attack_on_both_versions_decides_nothing_about_deletion():
    base, _, _ = worlds.make_audit(permutations=99)
    with pytest.raises(InvalidInput, match="one version"):
        ProcedureAudit(base.inputs, [Drop()], primary="drop", policy=Policy(), alpha=0.05, seed=0)
    subject = audited([Drop()])
    assert not [e for e in subject.endpoints if e.attack == "drop"]


@pytest.mark.slow
def test_defences_meet_the_first_attack_that_they_leave():
    defences = tuple(parse_defence(text) for text in ("label-only", "temperature:5"))
    correctness = Threshold("correctness")
    subject = audited([correctness], after=worlds.NO_OP, defences=defences)
    rows = {(d.defence, d.game, d.models): d for d in subject.defended}
    assert {key[1:] for key in rows} == {("forgetting", "after"), ("membership", "before")}
    assert ("none", "membership", "before") in rows
    assert rows["label-only", "forgetting", "after"].attack == "correctness"
    assert rows["temperature:5", "forgetting", "after"].attack == "mean-difference"
    assert rows["temperature:5", "forgetting", "after"].auc.value > 0.55
    # A temperature moves every margin alike: against an attack that refits, it changes nothing that ranks records.
    assert rows["none", "membership", "before"].auc.value > 0.55


@pytest.mark.slow
def test_the_primary_attack_stands_for_a_defence_wherever_it_is_in_the_plan():
    """A weak attack that happens to be listed first says nothing about a defence."""
    base, design, rng = worlds.make_audit(permutations=99)
    primary = worlds.MeanDifference()
    audit = ProcedureAudit(
        base.inputs, [Threshold("correctness"), primary], primary=primary.name,
        policy=Policy(control_permutations=99), alpha=worlds.ALPHA, seed=0,
        defences=(parse_defence("temperature:5"), parse_defence("label-only")),
    )  # fmt: skip
    subject = worlds.judge(audit, worlds.fleet(design, rng, worlds.NO_OP))
    attacks = {d.defence: d.attack for d in subject.defended if d.models == "after"}
    assert attacks == {"temperature:5": "mean-difference", "label-only": "correctness"}


@pytest.mark.slow
def test_an_attack_with_questions_of_its_own_is_left_by_a_defence():
    """Label-only attacks name queries; leaving them out would praise label-only answers."""

    @dataclass(frozen=True)
    class Asking(Threshold):
        queries: tuple[str, ...] = ("identity",)

    subject = audited([Asking("correctness")], after=worlds.NO_OP, defences=(parse_defence("label-only"),))
    assert {d.attack for d in subject.defended if d.defence == "label-only"} == {"correctness"}


def test_equal_scores_are_no_perfect_defence():
    """0 % found at a realised FPR of 0 % would read as protection, although the scores do tell the sides apart."""
    rng = np.random.default_rng(0)
    side = rng.permuted(np.tile(np.array([0, 1], np.int8), (8, 50)), axis=1)
    right = rng.random(side.shape) < np.where(side == 1, 0.99, 0.90)
    scores = FleetScores(right.astype(np.float64), side, np.arange(8) % 2)
    args = ("label-only", Threshold("correctness"), "forgetting", "after", scores)
    row = defended_row(*args, 0.05, Policy(), Estimate(0.9))
    assert row.tpr.value is None
    assert "read the AUC" in row.tpr.reason
    assert row.auc.low > 0.5
    assert defended_row(*args, 0.2, Policy(), Estimate(0.9)).tpr.value is None  # 90 % of never-seen ones are right too


@pytest.mark.slow
def test_a_fleet_trained_under_a_defence_stands_beside_the_models_before():
    _, design, rng = worlds.make_audit(permutations=99)
    quiet = worlds.fleet(design, rng, {}, accuracy=0.6)
    rows = {(d.defence, d.models): d for d in audited(alternatives=[Alternative("dp", quiet)]).defended}
    assert abs(rows["dp", "before"].auc.value - 0.5) < 0.03
    assert rows["none", "before"].auc.value > 0.55
    assert rows["dp", "before"].test_accuracy.value < rows["none", "before"].test_accuracy.value


@pytest.mark.slow
def test_a_claimed_epsilon_stands_beside_what_the_attack_shows_and_is_refuted_by_more():
    _, design, rng = worlds.make_audit(permutations=99)
    loud, quiet = (worlds.fleet(design, rng, leak) for leak in (worlds.NO_OP, {}))
    claims = [
        Alternative("loud, modest claim", loud, 0.1, 1e-5),
        Alternative("loud, wide claim", loud, 8.0, 1e-3),
        Alternative("quiet", quiet, 0.1, 1e-5),
        Alternative("nobody claims", loud),
    ]
    rows = [row for row in audited(alternatives=claims).epsilons if row.fleet]
    assert [row.fleet for row in rows] == [a.name for a in claims[:3] for _ in range(2)]
    modest, wide, silent = rows[::2]
    assert modest.bound.value > 0.3
    assert (modest.claimed, modest.refuted) == (0.1, True)
    assert (wide.claimed, wide.refuted, wide.delta) == (8.0, False, 1e-3)
    assert (silent.bound.value, silent.refuted) == (0.0, False)
    # Extrapolated under an assumption that nobody claimed, a bound refutes nothing.
    assert all(row.claimed is None and not row.refuted for row in rows[1::2])
    assert rows[1].bound.value > 0.1
    (said,) = refutations(rows)
    assert said.startswith("A privacy claim is refuted. loud, modest claim: epsilon 0.10 at delta 1e-05 is claimed")
    assert f"at least {modest.bound.value:.2f} at the same delta (confidence 95%)" in said


def test_a_true_claim_is_refuted_as_rarely_as_its_confidence_says():
    """Scores that are one bit of randomised response: (epsilon, 0)-private exactly, for every record and run."""
    epsilon, refuted = 1.0, 0
    rng = np.random.default_rng(5)
    side = rng.permuted(np.tile(np.array([0, 1], np.int8), (12, 100)), axis=1)
    for _ in range(200):
        true = rng.random(side.shape) < np.exp(epsilon) / (1 + np.exp(epsilon))
        scores = FleetScores(np.where(true, side, 1 - side) + 1e-3 * rng.random(side.shape), side, np.arange(12) % 2)
        rate = scores.rates([0.2])[0]
        row = fleet_epsilons("a", "membership", "before", rate, 0.95, delta=1e-9, fleet="f", claimed=epsilon)[0]
        refuted += row.refuted
        assert row.bound.value > 0.3
    assert refuted <= 15  # 10 expected at the most


@pytest.mark.slow
def test_measures_stand_beside_their_floor():
    subject = audited(after=worlds.NO_OP, measures=(Shift(),))
    (row,) = subject.measured
    assert row.value.value - row.floor.value > 0.5
    (row,) = audited(measures=(Shift(),)).measured
    assert abs(row.value.value - row.floor.value) < 0.1


@pytest.mark.slow
def test_epsilon_follows_from_the_rates_and_never_passes_its_ceiling():
    leaky, clean = audited(after=worlds.NO_OP), audited()
    for subject in (leaky, clean):
        assert [(e.game, e.models) for e in subject.epsilons] == [
            pair
            for pair in (("forgetting", "after"), ("forgetting", "retrained"), ("membership", "before"))
            for _ in range(2)
        ]
        for row in subject.epsilons:
            assert 0 <= row.bound.value <= row.ceiling
    pure, gaussian = leaky.epsilons[:2]
    # The leak is Gaussian in the margin: the bound from one threshold is below what the whole curve would give.
    assert 0.5 < pure.bound.value < gaussian.bound.value
    assert clean.epsilons[0].bound.value == 0
    assert clean.epsilons[2].bound.value == 0


def test_the_gaussian_ceiling_is_what_a_perfect_attack_would_reach():
    """1,000 of 1,000 against 0 of 1,000: each limit at 97.5 %, .9963 and .0037, mu 5.36."""
    from mnemoscope.audit.statistics.epsilon_gdp import gdp_lower_bound
    from mnemoscope.audit.verdict.epsilons import _gaussian

    assert _gaussian(0.025 ** (1 / 1000), 1 - 0.025 ** (1 / 1000), 1e-5) == pytest.approx(
        gdp_lower_bound(1000, 1000, 0, 1000, 0.95, 1e-5).bound, rel=1e-6
    )


@pytest.mark.slow
def test_where_a_fit_falls_back_its_finding_says_so():
    @dataclass(frozen=True)
    class Falls(worlds.MeanDifference):
        name: str = "falls"

        def flags(self, reference, *, left_out=False):
            assert left_out
            return (f"shared variance for {reference.n_models} models",)

    subject = audited([Falls()])
    notes = {f.models: f.note for f in subject.findings if (f.attack, f.game) == ("falls", "forgetting")}
    assert "shared variance for 48 models" in notes["after"]
