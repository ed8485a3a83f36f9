"""Efficacy by epistemic uncertainty."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from toy_models import N, mlp_subject, network_subject

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.models.training import train_model
from mnemoscope.unlearning.epistemic import epistemic_efficacy


@pytest.mark.parametrize("subject", [mlp_subject, lambda: network_subject("batchnorm")])
def test_the_information_is_the_mean_squared_gradient_norm(subject):
    s, ids = subject(), np.array([3, 1, 200, 260, 7])
    got = epistemic_efficacy(s.model, s.data, ids, runtime=s.runtime)
    positions = s.data.positions(ids)
    model, weights = s.model, list(s.model.parameters())
    x, y = s.data.inputs(positions), s.data.y[positions]
    squares = []
    for record, label in zip(x, y, strict=True):
        loss = nn.functional.cross_entropy(model(record[None]), label[None])
        squares.append(sum(float(g.square().sum()) for g in torch.autograd.grad(loss, weights)))
    np.testing.assert_allclose(np.exp(got.per_record), squares, rtol=1e-2)
    assert got.information == pytest.approx(np.mean(squares), rel=1e-3)
    assert got.efficacy == pytest.approx(1 / np.mean(squares), rel=1e-3)
    whole = torch.autograd.grad(nn.functional.cross_entropy(model(x), y), weights)
    assert math.exp(-got.log_upper_bound) == pytest.approx(sum(float(g.square().sum()) for g in whole), rel=1e-3)
    assert got.log_upper_bound >= got.log_efficacy


def test_what_is_known_by_heart_has_the_highest_efficacy_which_is_why_it_stands_beside_retraining():
    s, forget = mlp_subject(), np.arange(60)
    retrained = train_model(s.recipe, s.data, np.arange(60, N), seed=9, runtime=s.runtime).module
    before, after = (epistemic_efficacy(m, s.data, forget, runtime=s.runtime) for m in (s.model, retrained))
    assert before.log_efficacy > after.log_efficacy + 2
    assert before.relative(after) == before.log_efficacy - after.log_efficacy
    assert after.relative(after) == 0.0


def test_a_model_that_is_too_sure_for_floats_has_a_finite_logarithm():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.zeros_(model[1].weight)
    model[1].bias.data = torch.linspace(0, 4000, 10)
    s = mlp_subject()
    ids = np.flatnonzero(s.data.y.numpy() == 9)[:4]
    got = epistemic_efficacy(model.train(), s.data, ids, runtime=s.runtime)
    assert math.isfinite(got.log_information)
    assert got.log_information < -700
    assert got.efficacy == math.inf
    assert got.information < 1e-300
    assert model.training
    with pytest.raises(InvalidInput, match="no records|empty|expected"):
        epistemic_efficacy(model, s.data, np.empty(0, np.int64), runtime=s.runtime)
