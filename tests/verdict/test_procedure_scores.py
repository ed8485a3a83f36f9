"""Scores of fleets are computed once for all who ask, and so are the fits that decision thresholds come from."""

from dataclasses import dataclass

import numpy as np
import pytest

from mnemoscope.audit.answers import protocols
from mnemoscope.audit.answers.games import GAMES
from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.records.design import Design, Role
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.procedure import FleetAnswers, ProcedureInput
from mnemoscope.audit.verdict.procedure_scores import ScoredFleets

M, N, T = 12, 30, 8
FITS: list[int] = []


@dataclass(frozen=True)
class Learner:
    """Learns the midpoint of both sides' mean margins; its seed moves the scores and never the threshold."""

    name: str = "learner"
    needs: Need = Need.SCORES | Need.SHADOW_IN | Need.SHADOW_OUT
    decides: bool = True

    def fit(self, reference, *, rng):
        FITS.append(reference.n_models)
        phi = reference.averaged("margin")
        middle = (phi[reference.side == 1].mean() + phi[reference.side == 0].mean()) / 2
        return Midpoint(rng.normal(), float(middle) if self.decides else None)


@dataclass(frozen=True)
class Midpoint:
    noise: float
    threshold: float | None

    def score(self, view):
        return view.averaged("margin") + 1e-3 * self.noise


@dataclass(frozen=True)
class Closed(Learner):
    name: str = "closed"

    def score_fleet(self, reference, *, rng):
        return reference.averaged("margin").copy()


@pytest.fixture
def fleets():
    rng = np.random.default_rng(0)
    role = np.full((M, N + T), Role.TEST, np.int8)
    thirds = np.repeat([Role.KEPT, Role.FORGOTTEN, Role.NEVER], M // 6).astype(np.int8)
    for j in range(N):
        for half in (slice(0, M // 2), slice(M // 2, M)):
            role[half, j] = rng.permutation(thirds)
    design = Design(np.arange(N + T), role, np.repeat([0, 1], M // 2).astype(np.int8), 0)

    def answers():
        logits = rng.normal(0, 2, (M, N + T, 1, 3)).astype(np.float32)
        return FleetAnswers(logits[:, :N], None, logits[:, N:])

    nothing = np.zeros(0, np.int64)
    inputs = ProcedureInput(
        design, [f"r{k}" for k in range(N)], np.zeros(N, np.int64), nothing, nothing, np.zeros(T, np.int64),
        answers(), answers(), answers(),
    )  # fmt: skip
    attacks = [Learner(), Closed(), Learner("undecided", decides=False)]
    FITS.clear()
    return ScoredFleets(inputs, attacks, primary="closed", policy=Policy(), alpha=None, seed=0)


def expected(fleets, attack, reference):
    given = reference.with_side(GAMES["forgetting"].side(fleets.inputs.role))
    return protocols.fleet_thresholds(attack, given, rng=np.random.default_rng(5))


def test_a_learner_is_fitted_once_a_fold_for_scores_and_thresholds(fleets):
    attack, reference = fleets.attacks["learner"], fleets.reference("retrained")
    scores = fleets.shared(attack, "forgetting", "retrained")
    assert FITS == [M // 2, M // 2]
    found = fleets.thresholds(attack, reference)
    assert fleets.shared(attack, "forgetting", "retrained") is scores
    assert FITS == [M // 2, M // 2]
    np.testing.assert_array_equal(found, expected(fleets, attack, reference))
    assert np.unique(found).size == 2  # one a fold


def test_thresholds_of_a_closed_form_are_fitted_once(fleets):
    attack, reference = fleets.attacks["closed"], fleets.reference("before")
    fleets.shared(attack, "forgetting", "before")
    assert FITS == []
    found = [fleets.thresholds(attack, reference) for _ in range(3)]
    assert FITS == [M // 2, M // 2]
    np.testing.assert_array_equal(found[2], expected(fleets, attack, reference))


def test_each_fleet_and_game_has_its_own(fleets):
    attack = fleets.attacks["learner"]
    fleets.shared(attack, "retention", "retrained")
    fleets.shared(attack, "forgetting", "before")
    assert len(FITS) == 4
    before = fleets.thresholds(attack, fleets.reference("before"))
    assert len(FITS) == 4
    retrained = fleets.thresholds(attack, fleets.reference("retrained"))  # other roles: retention's fits do not serve
    assert len(FITS) == 6
    assert not np.array_equal(before, retrained)
    np.testing.assert_array_equal(retrained, expected(fleets, attack, fleets.reference("retrained")))


def test_an_attack_that_names_no_threshold_is_not_asked_again(fleets):
    attack = fleets.attacks["undecided"]
    fleets.shared(attack, "forgetting", "retrained")
    assert fleets.thresholds(attack, fleets.reference("retrained")) is None
    assert len(FITS) == 2


def test_a_subject_that_is_done_with_is_forgotten(fleets):
    attack = fleets.attacks["learner"]
    subject = fleets.inputs.reference(fleets.inputs.control)
    fleets.score(attack, "forgetting", subject)
    fleets.thresholds(attack, fleets.reference("before"))
    fleets.forget_others()
    kept = len(FITS)
    fleets.thresholds(attack, fleets.reference("before"))
    assert len(FITS) == kept
    fleets.thresholds(attack, subject)
    assert len(FITS) == kept + 2
