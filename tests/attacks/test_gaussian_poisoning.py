import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from mnemoscope.attacks.gaussian_poisoning import GaussianPoisoning, _mean, canary_scores, margin_gradients, noise_of
from mnemoscope.audit.errors import InvalidInput, MissingNeed
from mnemoscope.audit.records.design import Role
from mnemoscope.audit.statistics.measures import Canaries
from mnemoscope.audit.testing_worlds import trained_worlds

RNG = np.random.default_rng(0)


def test_the_null_is_exactly_standard_normal_for_any_gradient():
    rng = np.random.default_rng(1)
    spread = np.array([[[0.3]], [[2.0]]])  # two channels in unequal units
    gradient = np.broadcast_to(rng.standard_cauchy((2, 5, 5)), (20000, 2, 5, 5))
    score, flat = canary_scores(gradient, rng.normal(size=gradient.shape) * spread, spread)
    assert not flat.any()
    assert abs(score.mean()) < 4 / 20000**0.5
    assert score.std() == pytest.approx(1.0, abs=0.02)
    assert (score >= 2.3263).mean() == pytest.approx(0.01, abs=0.003)


def test_closed_form_of_a_linear_model():
    """A model whose margin is <w, x> with w = sum of memorised xi: the score is |xi|^2 / (e |w|), about sqrt(d / c)."""
    rng = np.random.default_rng(2)
    d, c, e = 400, 25, 0.5
    noise = e * rng.normal(size=(c, d))
    w = noise.sum(axis=0)
    score, _ = canary_scores(np.broadcast_to(w, (c, d)), noise, np.array(e))
    np.testing.assert_allclose(score, noise @ w / (e * np.linalg.norm(w)))
    assert score.mean() == pytest.approx((d / c) ** 0.5, rel=0.05)
    fresh, _ = canary_scores(np.broadcast_to(w, (c, d)), e * rng.normal(size=(c, d)), np.array(e))
    assert abs(fresh.mean()) < 3 / c**0.5


@pytest.mark.slow
def test_gradients_of_margin_and_loss_give_one_statistic_with_opposite_signs():
    worlds = trained_worlds(False)
    oracle = worlds.before.oracles[0]
    ids = worlds.canaries.sources[:9]
    found = margin_gradients(oracle, ids)
    assert oracle.gradients == 9
    noise = noise_of(oracle, worlds.canaries)[:9]
    x = oracle.inputs(ids).double().requires_grad_()
    module = copy.deepcopy(oracle.module()).double()
    loss = nn.functional.cross_entropy(module(x), oracle.labels(ids), reduction="sum")
    plain = torch.autograd.grad(loss, x)[0].numpy()
    one, _ = canary_scores(found, noise, np.array(0.7))
    two, _ = canary_scores(plain, noise, np.array(0.7))
    np.testing.assert_allclose(one, -two, atol=2e-3)


def test_saturated_records_keep_their_direction():
    class Confident(nn.Module):
        def forward(self, x):
            return torch.stack([100.0 + x[:, 0], -100.0 - x[:, 0]], dim=1)

    class Oracle:
        def module(self):
            return Confident()

        def inputs(self, ids):
            return torch.zeros(ids.size, 3)

        def labels(self, ids):
            return torch.zeros(ids.size, dtype=torch.int64)

        def count_gradients(self, number):
            pass

    gradient = margin_gradients(Oracle(), np.arange(4))
    np.testing.assert_allclose(gradient, np.tile([2.0, 0.0, 0.0], (4, 1)))
    score, flat = canary_scores(np.zeros((2, 3)), np.ones((2, 3)), np.array(1.0))
    assert flat.all()
    assert (score == 0).all()


@pytest.mark.slow
def test_planted_noise_is_found_before_deletion_and_after_a_poor_one_and_not_after_retraining():
    clean = GaussianPoisoning().measure(trained_worlds(False), rng=RNG)
    for part in (clean.value, clean.floor, clean.excess):
        assert part.low < 0 < part.high
    assert clean.no_op.low > 0.5
    leaky = GaussianPoisoning().measure(trained_worlds(True), rng=RNG)
    assert leaky.excess.low > 0.2
    assert leaky.value.value < leaky.no_op.value
    assert leaky.per_record.shape == leaky.ids.shape == (48,)
    assert leaky.per_record.mean() == pytest.approx(leaky.value.value)
    assert "canaries never seen: mean -0.0" in leaky.note


def test_noise_that_was_cut_off_does_not_pass_for_a_signal():
    """Clipped noise points away from the record: without the never-seen canaries' mean every fleet would be off 0."""
    rng = np.random.default_rng(4)
    m, n = 24, 48
    role = rng.permuted(np.tile(np.repeat(np.array([Role.FORGOTTEN, Role.NEVER], np.int8), m // 2)[:, None], n), axis=0)
    forgotten, never = role == Role.FORGOTTEN, role == Role.NEVER
    off = [
        _mean(score, forgotten, cells)
        for score in -0.5 + 0.2 * rng.normal(size=(200, 1, n)) + rng.normal(size=(200, m, n))
        for cells in (never, np.zeros_like(never))
    ]
    misses = [[not e.low <= 0 <= e.high for e in off[k::2]] for k in range(2)]
    assert np.mean(misses[0]) <= 0.10  # nominally 5 %
    assert np.mean(misses[1]) > 0.9  # the rule that rests on the exact null rejects perfect forgetting


@pytest.mark.slow
def test_batches_change_nothing():
    worlds = trained_worlds(True)
    one, two = (GaussianPoisoning(batch=b).measure(worlds, rng=RNG) for b in (3, 1000))
    assert one.value.value == pytest.approx(two.value.value, rel=1e-5)


def test_what_is_missing_is_said():
    worlds = trained_worlds(False)
    with pytest.raises(MissingNeed, match="needs canaries"):
        GaussianPoisoning().measure(dataclasses.replace(worlds, canaries=None), rng=RNG)
    blind = dataclasses.replace(worlds, control=dataclasses.replace(worlds.control, oracles=None))
    with pytest.raises(MissingNeed, match="also of retrained"):
        GaussianPoisoning().measure(blind, rng=RNG)
    role = np.where(worlds.role == Role.FORGOTTEN, np.int8(Role.KEPT), worlds.role)
    with pytest.raises(InvalidInput, match="no canary"):
        GaussianPoisoning().measure(dataclasses.replace(worlds, role=role), rng=RNG)
    with pytest.raises(InvalidInput, match="its own source"):
        Canaries(np.arange(3), np.arange(3))
    with pytest.raises(InvalidInput, match="both be"):
        Canaries(np.arange(3), np.arange(2) + 7)
    with pytest.raises(InvalidInput, match="batch=0"):
        GaussianPoisoning(batch=0)
    with pytest.raises(InvalidInput, match="fpr=1"):
        GaussianPoisoning(fpr=1.0)
