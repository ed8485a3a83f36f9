"""The fleet of real models that attacks on live models are tried on: what it remembers, and that it can convict."""

import dataclasses

import numpy as np
import pytest

from mnemoscope.audit.answers.protocols import offered_by
from mnemoscope.audit.answers.views import Need, Side
from mnemoscope.audit.errors import MissingNeed
from mnemoscope.audit.testing import ATTACK_CHECKS, ContractViolation, trained_fleet


def test_models_know_their_records_by_heart_and_no_other():
    fleet = trained_fleet(True)
    for part in (fleet, fleet.before):
        right = part.signal("correctness")[..., 0]
        assert right[part.side == Side.IN].min() == 1.0
        assert right[part.side == Side.OUT].mean() == pytest.approx(0.25, abs=0.06)
        assert right[part.side == Side.LEAVE_OUT].mean() == pytest.approx(0.25, abs=0.06)
    loss = [-part.signal("negative_loss")[..., 0][fleet.side == Side.IN].mean() for part in (fleet, fleet.before)]
    assert 0 < loss[1] < loss[0] < 0.1
    assert fleet.population.signal("correctness").mean() == pytest.approx(0.25, abs=0.06)
    quiet = trained_fleet(False)
    assert quiet.signal("correctness").mean() == pytest.approx(0.25, abs=0.06)


def test_recorded_answers_are_the_oracles():
    fleet = trained_fleet(True, queries=("identity", "identity"))
    for part in (fleet, fleet.before):
        for oracle, logits in zip(part.oracles, part.logits, strict=True):
            asked = oracle.logits(oracle.inputs(part.ids)).numpy()
            assert np.array_equal(asked, logits[:, 0])
            assert np.array_equal(asked, logits[:, 1])
    assert not np.array_equal(fleet.logits, fleet.before.logits)


def test_what_it_offers_and_that_calls_share_nothing_but_weights():
    assert Need.ORACLE | Need.GRADIENT in offered_by(trained_fleet(True))
    black = trained_fleet(True, white_box=False, labels_only=True)
    assert not offered_by(black) & (Need.GRADIENT | Need.SCORES)
    first, second = trained_fleet(True), trained_fleet(True)
    first.oracles[0].recall("a", lambda: np.ones(1))
    assert second.oracles[0].recall("a", lambda: np.zeros(1)).item() == 0
    assert first.oracles[0].module() is not second.oracles[0].module()
    assert np.array_equal(first.logits, second.logits)


@dataclasses.dataclass(frozen=True)
class Live:
    """Correctness asked live, with one fault."""

    fault: str = ""
    name = "live"
    needs = Need.ORACLE

    def fit(self, reference, *, rng):
        fault = self.fault

        class Scorer:
            def score(self, view):
                oracle = view.oracle
                right = (oracle.predict(oracle.inputs(view.ids)) == oracle.labels(view.ids)).double().numpy()
                if fault == "reads scores":
                    oracle.logits(oracle.inputs(view.ids))
                if fault == "opens the box":
                    oracle.module()
                if fault == "by position":
                    right = right + np.arange(right.size)
                if fault == "negated":
                    right = -right
                return right

        return Scorer()


@dataclasses.dataclass(frozen=True)
class Steps(Live):
    """A white-box attack that trains on the model it was lent."""

    needs = Need.ORACLE | Need.GRADIENT

    def fit(self, reference, *, rng):
        scorer = super().fit(reference, rng=rng)

        class Scorer:
            def score(self, view):
                import torch

                with torch.no_grad():
                    for weight in view.oracle.module().parameters():
                        weight.mul_(1.001)
                return scorer.score(view)

        return Scorer()


def broken_by(attack):
    broken = []
    for check in ATTACK_CHECKS:
        try:
            check(attack)
        except (ContractViolation, MissingNeed, ValueError):
            broken.append(check.__name__.removeprefix("attack_"))
    return broken


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attack", "check"),
    [
        (Live("negated"), "sees_a_leak"),
        (Live("by position"), "ignores_order"),
        (Live("reads scores"), "names_missing_needs"),
        (Live("opens the box"), "names_missing_needs"),
        (Steps(), "leaves_inputs_alone"),
    ],
    ids=["row 7: negated", "row 18: by position", "reads scores", "opens the box", "changes the model"],
)
def test_the_contract_catches_a_faulty_attack_on_live_models(attack, check):
    assert check in broken_by(attack)


@pytest.mark.slow
def test_a_sound_attack_on_live_models_passes():
    assert broken_by(Live()) == []
