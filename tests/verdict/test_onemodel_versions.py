"""Both versions of one model: what they give away where it can be computed, beside the verdict and never part of it."""

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from mnemoscope.attacks import ATTACKS, DEFAULT_VERSION_ATTACKS_ALONE
from mnemoscope.audit.verdict.onemodel import audit_one_model
from mnemoscope.audit.verdict.onemodel_rates import Group
from mnemoscope.audit.verdict.onemodel_versions import describe_versions, plays_alone

spec = importlib.util.spec_from_file_location("worlds", Path(__file__).with_name("test_onemodel.py"))
worlds = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worlds)

MARGIN, BY_CLASS = (ATTACKS[name]() for name in DEFAULT_VERSION_ATTACKS_ALONE)
LIFT = 2.5
EXPECTED = norm.cdf(LIFT / np.sqrt(2 * 2 * 1.12))
"""AUC of a fall by the lift, whose noise is that of four margins: 1 + 0.3^2 of the true logit, 0.03 of the others."""


def rows(inputs, attacks=(MARGIN, BY_CLASS)):
    return {(f.attack, f.game, f.models): f for f in describe_versions(inputs, attacks, level=0.95, seed=0)}  # one each


def test_deletion_shows_as_much_as_retraining_and_no_deletion_shows_nothing():
    deleted = rows(worlds.world(0, 600, retain=600))
    for game in ("difference-never", "difference-kept"):
        for models in ("after", "retrained"):
            found = deleted["difference_margin_uncalibrated", game, models]
            low, high = found.auc.low, found.auc.high
            assert low - 0.005 < EXPECTED < high + 0.005, (game, models, low, high)
            assert (found.primary, found.n_in) == (False, 600 * (5 if models == "retrained" else 1))
    kept = rows(worlds.world(0, 600, retain=600, leak=LIFT))
    for game in ("difference-never", "difference-kept"):
        nothing = kept["difference_margin_uncalibrated", game, "after"].auc
        assert nothing.low < 0.5 < nothing.high
        # What exact retraining would have given away does not depend on what was done instead.
        assert kept["difference_margin_uncalibrated", game, "retrained"].auc.value > 0.85


def test_it_is_no_part_of_the_verdict():
    inputs = worlds.world(1, 600, retain=300)
    plain = audit_one_model(inputs, [worlds.LIRA])
    both = audit_one_model(inputs, [worlds.LIRA], version_attacks=[MARGIN])
    for part in ("verdict", "endpoints", "gates", "curves", "distributions", "epsilons"):
        assert getattr(both.subject, part) == getattr(plain.subject, part), part
    new = [f for f in both.subject.findings if f not in plain.subject.findings]
    assert {(f.game, f.models) for f in new} == {
        (game, models) for game in ("difference-never", "difference-kept") for models in ("after", "retrained")
    }
    assert both.plan.attacks == (*plain.plan.attacks, "difference_margin_uncalibrated")
    assert both.plan.digest == plain.plan.digest


def test_what_is_missing_is_left_out_or_said():
    inputs = worlds.world(2, 300, r=0)
    found = rows(inputs, [MARGIN])
    assert list(found) == [("difference_margin_uncalibrated", "difference-never", "after")]
    assert "no retrained model stands beside it" in next(iter(found.values())).note
    assert rows(worlds.world(2, 300, before=None)) == {}


def test_a_null_from_the_targets_own_records_needs_most_of_them_not_deleted():
    half = worlds.world(3, 300)  # as many to be forgotten as never seen
    assert {name for name, _, _ in rows(half)} == {"difference_margin_uncalibrated"}
    few = worlds.world(3, 300, retain=300)
    assert {name for name, _, _ in rows(few)} == set(DEFAULT_VERSION_ATTACKS_ALONE)


@pytest.mark.parametrize("name", ["lira", "loss", "difference", "difference_margin", "gradient_alignment_deletion"])
def test_attacks_with_models_of_their_own_do_not_play(name):
    assert not plays_alone(ATTACKS[name]())
    assert describe_versions(worlds.world(0, 50), [ATTACKS[name]()], level=0.95, seed=0) == ()


def test_population_and_calibration_records_take_no_part():
    inputs = worlds.world(4, 300)
    moved = inputs.group.copy()
    moved[-100:] = Group.CALIBRATION
    (one,) = (f for key, f in rows(dataclasses.replace(inputs, group=moved), [MARGIN]).items() if key[2] == "after")
    assert (one.n_in, one.n_out) == (300, 200)
