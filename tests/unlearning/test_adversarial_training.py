"""Robust training: one step written out plainly, the same start as plain training, and examples that are farther."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from toy_models import RUNTIME, digits, mlp_subject, network_subject

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.models.training import fresh_model
from mnemoscope.audit.rng import child_seed
from mnemoscope.unlearning.adversarial_examples import linf_examples, nearest_adversarial
from mnemoscope.unlearning.adversarial_training import train_robust

IDS = np.arange(120)


def recipe(**more):
    return dataclasses.replace(mlp_subject().recipe, **more)


@pytest.mark.parametrize("kind", ["trades", "pgd"])
def test_one_step_is_the_formula(kind):
    data, one = digits(), recipe(epochs=1, batch_size=1000, schedule="constant", lr=0.3)
    got = train_robust(one, data, IDS, seed=4, runtime=RUNTIME, kind=kind, bound=0.2, step=0.1, ascents=3, beta=2.0)
    model = fresh_model(one, data, seed=4)
    order = torch.randperm(120, generator=torch.Generator().manual_seed(child_seed(4, "order")))
    x, y = data.inputs(order), data.y[order]
    draw = torch.Generator().manual_seed(child_seed(4, "starts"))
    noise = (
        0.001 * torch.randn(x.shape, generator=draw)
        if kind == "trades"
        else 0.2 * (2 * torch.rand(x.shape, generator=draw) - 1)
    )
    point, p = x + noise, model(x).softmax(dim=1).detach()

    def kl(p, logits):
        return (p * (p.log() - logits.log_softmax(dim=1))).sum()

    for _ in range(3):
        point = point.detach().requires_grad_()
        worse = kl(p, model(point)) if kind == "trades" else nn.functional.cross_entropy(model(point), y)
        (g,) = torch.autograd.grad(worse, point)
        point = x + (point.detach() + 0.1 * g.sign() - x).clamp(-0.2, 0.2)
    if kind == "trades":
        loss = nn.functional.cross_entropy(model(x), y) + 2.0 * kl(model(x).softmax(dim=1), model(point)) / 120
    else:
        loss = nn.functional.cross_entropy(model(point), y)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    for now, before, g in zip(got.module.parameters(), model.parameters(), gradients, strict=True):
        np.testing.assert_allclose(now.detach(), (before - 0.3 * g).detach(), atol=3e-4)
    assert got.seen_ids.tolist() == IDS.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["trades", "pgd"])
def test_a_robust_model_holds_in_the_ball_and_its_adversarial_examples_are_farther(kind):
    """In a ball that the data leave room for: in a wider one "pgd" gives records up, which then have no distance."""
    s, rows = network_subject("batchnorm"), torch.arange(60)
    settings = {"bound": 0.1, "step": 0.04, "ascents": 5, "kind": kind}
    robust = train_robust(s.recipe, s.data, np.arange(240), seed=1, runtime=RUNTIME, **settings)
    assert robust.loss[-1] < robust.loss[0]
    held, distance, right = [], [], []
    for model in (robust.module, s.model):
        frozen = copy.deepcopy(model).eval().requires_grad_(False)
        for bound in (0.1, 0.15):
            ((_, logits),) = linf_examples(frozen, s.data, rows, bound=bound, step=bound / 3, steps=10)
            held.append(float((logits.argmax(dim=1) == s.data.y[rows]).double().mean()))
        right.append(float((frozen(s.data.inputs(rows)).argmax(dim=1) == s.data.y[rows]).double().mean()))
        near = nearest_adversarial(frozen, s.data, rows, radius=0.02, search="continue", steps=15)
        distance.append(float(near.distance.mean()))
    assert min(right) > 0.95
    assert held[0] > held[2] + 0.1
    assert held[1] > held[3] + 0.3
    assert distance[0] > 1.2 * distance[1]


@pytest.mark.parametrize("kind", ["trades", "pgd"])
def test_the_seed_decides_the_bits(kind):
    short = recipe(epochs=2)
    one, two, three = (
        train_robust(short, digits(), IDS, seed=seed, runtime=RUNTIME, kind=kind, ascents=2).module
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(next(one.parameters()), next(three.parameters()))


def test_impossible_settings_are_refused():
    for field, value in (("kind", "free"), ("bound", 0.0), ("step", -1.0), ("ascents", 0), ("beta", -1.0)):
        with pytest.raises(InvalidInput, match=field):
            train_robust(recipe(), digits(), IDS, seed=0, runtime=RUNTIME, **{field: value})
    with pytest.raises(InvalidInput, match="fp32"):
        train_robust(recipe(precision="bf16"), digits(), IDS, seed=0, runtime=RUNTIME)
