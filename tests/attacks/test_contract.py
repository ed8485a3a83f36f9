"""Every registered attack keeps every rule of the contract."""

import dataclasses

import numpy as np
import pytest

from mnemoscope.attacks import ATTACKS
from mnemoscope.attacks.population import Population
from mnemoscope.attacks.threshold import Threshold
from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.testing import ATTACK_CHECKS, ContractViolation, attack_contract

EXEMPT = {
    # It asks which of the records that the first model held are still in, and reads that model: records which it never
    # held have nothing to lose. Kept against forgotten records it is tried in test_iam.py.
    "iam": frozenset({"attack_sees_a_leak"}),
}
CASES = attack_contract(ATTACKS, exempt=EXEMPT)


SLOW = (
    "forest",
    "mlp",
    "samia",
    "ensemble",
    "boundary_distance",
    "loss_trajectory",
    "attack_d",
    "tree",
    "svm",
    "rotation",
    "quantile",
    "offline_tuned",
    "label_",
    "gradient_",
    "iam",
    "shokri",
)
"""Attacks that train or search for longer: their contract is kept in the slow stage."""


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(check, id=name, marks=[pytest.mark.slow] if any(word in name for word in SLOW) else [])
        for name, check in CASES
    ],
)
def test_contract(check):
    check()


def broken_by(attack):
    """Names of the checks that an attack breaks."""
    broken = []
    for check in ATTACK_CHECKS:
        try:
            check(attack)
        except (ContractViolation, AssertionError, ValueError):
            broken.append(check.__name__.removeprefix("attack_"))
    return broken


@dataclasses.dataclass(frozen=True)
class Faulty(Threshold):
    """A loss attack with one fault, to show that the contract can fail."""

    fault: str = ""

    @property
    def name(self):
        return "faulty"

    def fit(self, reference, *, rng):
        scorer, fault = Threshold("loss").fit(reference, rng=rng), self.fault

        class Scorer:
            calls = 0

            def score(self, view):
                score = scorer.score(view)
                Scorer.calls += 1
                if fault == "row 7: negated":
                    score = -score
                if fault == "row 18: by position":
                    score = score + np.arange(score.size)
                if fault == "global random state":
                    score = score + 1e-3 * np.random.rand(score.size)  # noqa: NPY002
                if fault == "writes":
                    view.logits[0] = 0
                if fault == "state":
                    score = score + Scorer.calls
                return score

        return Scorer()


@dataclasses.dataclass(frozen=True)
class InSample(Threshold):
    """A per-record mean difference that is scored on the models it was fitted on."""

    name = "in_sample"
    needs = Need.SCORES | Need.SHADOW_IN | Need.SHADOW_OUT

    def score_fleet(self, reference, *, rng):
        phi = reference.signal("margin")[..., 0]
        means = [np.where(reference.side == s, phi, 0).sum(0) / (reference.side == s).sum(0) for s in (0, 1)]
        return (phi - means[0]) ** 2 - (phi - means[1]) ** 2


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("row 7: negated", "sees_a_leak"),
        ("row 18: by position", "ignores_order"),
        ("global random state", "repeats_itself"),
        ("writes", "leaves_inputs_alone"),
        ("state", "fits_once_for_many"),
    ],
)
def test_the_contract_catches_a_faulty_attack(fault, check):
    assert broken_by(Faulty(rule="loss")) == []
    assert check in broken_by(Faulty(rule="loss", fault=fault))


def test_the_contract_catches_scores_fitted_on_their_own_model():
    broken = broken_by(InSample())
    assert {"is_silent_without_leak", "never_sees_the_truth", "leaves_one_out_exactly"} <= set(broken)


@dataclasses.dataclass(frozen=True)
class CountsModels(Threshold):
    """A calibrated loss that leaves the target out, and treats a side of a single model in a way of its own."""

    name = "counts_models"
    needs = Need.SCORES | Need.SHADOW_IN | Need.SHADOW_OUT

    def fit(self, reference, *, rng):
        phi = reference.signal("margin").mean(axis=-1)
        counts = [(reference.side == s).sum(axis=0) for s in (1, 0)]
        means = [np.where(reference.side == s, phi, 0).sum(axis=0) / n for s, n in zip((1, 0), counts, strict=True)]

        class Scorer:
            def score(self, view):
                at = reference.positions(view.ids)
                middle = (means[0] + means[1]) / 2 - np.where(counts[0] < 2, 1.0, 0.0)
                return view.signal("margin").mean(axis=-1) - middle[at]

        return Scorer()

    def score_fleet(self, reference, *, rng):
        models = range(reference.n_models)
        return np.stack([self.fit(reference.without([k]), rng=rng).score(reference.target(k)) for k in models])


def test_the_contract_catches_what_the_few_models_left_tell_of_the_target():
    assert broken_by(CountsModels()) == ["invents_no_leak_with_few_models"]


def test_the_contract_catches_a_need_that_is_not_declared():
    class Undeclared(Population):
        needs = Need.NOTHING

    assert "names_missing_needs" in [name for name in _broken_with_missing_needs(Undeclared())]


def _broken_with_missing_needs(attack):
    from mnemoscope.audit.errors import MissingNeed
    from mnemoscope.audit.testing import attack_names_missing_needs

    try:
        attack_names_missing_needs(attack)
    except (ContractViolation, MissingNeed):
        return ["names_missing_needs"]
    return []


def test_importing_the_registry_loads_neither_torch_nor_scipy_stats():
    import subprocess
    import sys

    code = (
        "import sys, mnemoscope.attacks as a; a.ATTACKS['lira'](); "
        "bad = [m for m in ('torch', 'scipy.stats', 'scipy') if m in sys.modules]; assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
