import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from mnemoscope.attacks.relearn_time import RelearnTime, _mean, forget_loss, relearn
from mnemoscope.audit.errors import InvalidInput, MissingNeed
from mnemoscope.audit.records.design import Role
from mnemoscope.audit.testing_worlds import trained_worlds

FAST = RelearnTime("forget", lr=0.1, tolerance=0.1, cap=30)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


class OneWeight:
    """Two classes, one record x = 1, margin w: the loss is log(1 + exp(-w)) and its gradient -1 / (1 + exp(w))."""

    def __init__(self, weight):
        self.weight, self.gradients = weight, 0

    def module(self):
        linear = nn.Linear(1, 2, bias=False)
        linear.weight.data = torch.tensor([[self.weight], [0.0]])
        return linear

    def inputs(self, ids):
        return torch.ones(ids.size, 1)

    def labels(self, ids):
        return torch.zeros(ids.size, dtype=torch.int64)

    def count_gradients(self, number):
        self.gradients += number


def by_hand(weight: float, target: float, lr: float, steps: int, cap: int) -> int:
    a, b = weight, 0.0
    for epoch in range(cap + 1):
        if np.log1p(np.exp(b - a)) <= target:
            return epoch
        for _ in range(steps):
            push = lr / (1 + np.exp(a - b))
            a, b = a + push, b - push
    return cap + 1


@pytest.mark.parametrize(("weight", "target"), [(-2.0, 0.3), (0.0, 0.3), (1.0, 0.5), (-2.0, 0.01)])
def test_one_weight_is_relearned_as_computed_by_hand(weight, target):
    settings = RelearnTime(lr=0.05, records=8, batch=2, cap=60)
    oracle = OneWeight(weight)
    found = relearn(oracle, np.arange(1), np.arange(3), target, settings, rng=rng())
    assert found == by_hand(weight, target, 0.05, 4, 60)
    assert oracle.gradients == 8 * min(found, 60)


def test_the_loss_is_the_mean_cross_entropy():
    oracle = OneWeight(0.7)
    assert forget_loss(oracle.module(), oracle, np.arange(5)) == pytest.approx(np.log1p(np.exp(-0.7)), rel=1e-6)


@pytest.mark.slow
def test_a_poor_deletion_is_relearned_sooner_than_retrained_models_and_retraining_is_not():
    leaky = FAST.measure(trained_worlds(True), rng=rng())
    assert leaky.excess.high < -2
    assert leaky.value.value < 3 < leaky.floor.value
    clean = FAST.measure(trained_worlds(False), rng=rng())
    assert clean.excess.low <= 0 <= clean.excess.high
    assert clean.floor.value == leaky.floor.value  # the same batches for the same retrained models
    assert "0 of 12 models, 0 of 12 retrained" in clean.note


def test_models_that_never_get_there_are_said_and_not_hidden():
    found = RelearnTime("forget", lr=1e-6, cap=2, models=3).measure(trained_worlds(False), rng=rng())
    assert found.value.value == 2.0
    assert "3 of 3 models" in found.note
    assert "restricted" in found.note
    assert "3 of 3 models are not there" in found.value.reason
    assert found.excess.value is None
    assert "raise lr" in found.excess.reason


def test_models_that_are_all_alike_have_no_interval_of_no_width():
    """Eighteen models at the cap say nothing certain of the nineteenth."""
    alike = _mean(np.full(18, 100.0), 0.0, 100.0, 18)
    assert alike.ci is None
    assert "all 18 models alike" in alike.reason
    assert _mean(np.arange(18.0), 0.0, 100.0, 0).low < 8.5 < _mean(np.arange(18.0), 0.0, 100.0, 0).high


def test_models_that_diverge_count_as_not_there():
    oracle = OneWeight(float("nan"))
    assert relearn(oracle, np.arange(1), np.arange(1), 1.0, RelearnTime(cap=3), rng=rng()) == 4
    assert oracle.gradients == 0


def test_the_models_are_left_as_they_are():
    worlds = trained_worlds(True)
    module = worlds.after.oracles[0].module()
    before = copy.deepcopy(module.state_dict())
    RelearnTime(lr=0.1, cap=2, models=1).measure(worlds, rng=rng())
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())
    assert not module.training


def test_full_training_set_is_what_the_model_was_trained_on():
    worlds = trained_worlds(True)
    forget, train = RelearnTime()._sets(worlds, 0)
    trained = np.isin(worlds.role[0], (Role.KEPT, Role.FORGOTTEN))
    assert set(train) == set(worlds.after.ids[trained]) | set(worlds.background)
    assert set(forget) == set(worlds.after.ids[worlds.role[0] == Role.FORGOTTEN])
    alone = RelearnTime(cap=1, models=1).measure(dataclasses.replace(worlds, background=None), rng=rng())
    assert "audited records alone" in alone.note


def test_what_is_missing_is_said():
    worlds = trained_worlds(False)
    blind = dataclasses.replace(worlds, control=dataclasses.replace(worlds.control, oracles=None))
    with pytest.raises(MissingNeed, match="also of retrained"):
        FAST.measure(blind, rng=rng())
    role = np.where(worlds.role == Role.FORGOTTEN, np.int8(Role.KEPT), worlds.role)
    with pytest.raises(InvalidInput, match="no model was to forget"):
        FAST.measure(dataclasses.replace(worlds, role=role), rng=rng())


@pytest.mark.parametrize(
    "settings", [{"train_on": "retain"}, {"lr": 0.0}, {"cap": 0}, {"models": -1}, {"tolerance": -1}]
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(InvalidInput, match="allowed|must be"):
        RelearnTime(**settings)
