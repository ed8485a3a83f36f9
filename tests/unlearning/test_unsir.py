"""UNSIR: the noise is the paper's, impair and repair are its two passes, and a class goes without its records."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from toy_models import mlp_subject, network_subject
from twins import accuracy, labels, mean_loss, spoil, state, tensors, unlearn, weights

from mnemoscope.audit.errors import AuditError, InvalidInput
from mnemoscope.unlearning import METHODS
from mnemoscope.unlearning.base import Deletion
from mnemoscope.unlearning.unsir import error_maximising_noise


def class_request(subject=None, place=0):
    return (mlp_subject() if subject is None else subject).others["class"][place]


def run_of(seed=0, subject=None):
    s = mlp_subject() if subject is None else subject
    frozen = copy.deepcopy(s.model).eval().requires_grad_(False)
    rng = np.random.default_rng(seed)
    return Deletion("unsir", frozen, class_request(s), s.recipe, s.data, s.runtime, rng)


def noise_of(seed=0, **changed):
    settings = {"number": 16, "steps": 40, "lr": 0.1, "penalty": 0.1, **changed}
    return error_maximising_noise(run_of(seed), 3, **settings)


def test_the_noise_is_learnt_by_the_papers_steps():
    exact = copy.deepcopy(mlp_subject().model).double().requires_grad_(False)
    noise = noise_of(steps=0).double().requires_grad_()
    adam = torch.optim.Adam([noise], lr=0.1)
    for _ in range(40):
        adam.zero_grad()
        truth = torch.full((16,), 3)
        (-nn.functional.cross_entropy(exact(noise), truth) + 0.1 * (noise**2).sum(dim=1).mean()).backward()
        adam.step()
    torch.testing.assert_close(noise_of().double(), noise.detach(), rtol=0, atol=2e-3)


def test_the_noise_starts_standard_normal_and_ends_where_the_class_is_least_likely():
    first, last = noise_of(steps=0, number=400), noise_of(number=400)
    assert float(first.mean()) == pytest.approx(0, abs=0.02)
    assert float(first.std()) == pytest.approx(1, abs=0.02)
    model = run_of().original
    truth = torch.full((400,), 3)
    losses = [float(nn.functional.cross_entropy(model(x), truth)) for x in (first, last)]
    assert losses[1] > losses[0]
    free = noise_of(number=400, penalty=0.0)
    assert float(nn.functional.cross_entropy(model(free), truth)) > losses[1]
    assert float(last.square().sum()) < 0.9 * float(free.square().sum())


def test_impair_and_repair_are_the_papers_passes():
    """With one batch a pass: noise under the class's label with all retained records, then these alone."""
    s, request = mlp_subject(), class_request()
    changed = {"batch_size": 1000, "weight_decay": 0.5}
    method = METHODS["unsir"](lr=0.02, repair_lr=0.005, noise_batch=8, copies=3, impair_epochs=2, repair_epochs=3)
    ours = unlearn(method, request, **changed)

    run = run_of()
    run.seed()
    kept = [run.rng.permutation(request.retain[labels(request.retain) == c]) for c in range(10) if c != 3]
    assert sum(map(len, kept)) == request.retain.size
    noise = error_maximising_noise(run, 3, number=8, steps=40, lr=0.1, penalty=0.1)
    x, y = tensors(request.retain)
    net = copy.deepcopy(s.model).train()
    for inputs, truth, rate, times in (
        (torch.cat([noise, noise, noise, x]), torch.cat([torch.full((24,), 3), y]), 0.02, 2),
        (x, y, 0.005, 3),
    ):
        sgd = torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9)
        for _ in range(times):
            sgd.zero_grad()
            nn.functional.cross_entropy(net(inputs), truth).backward()
            sgd.step()
    assert float((weights(net) - weights(s.model)).abs().max()) > 1e-3
    torch.testing.assert_close(weights(ours), weights(net), rtol=0, atol=1e-5)


def test_rates_and_copies_are_the_published_ones_in_the_users_terms():
    s, request = mlp_subject(), class_request()
    given = {"lr": 2 * s.recipe.lr, "repair_lr": s.recipe.lr, "noise_batch": 32, "copies": 1}
    assert round(request.forget.size / 32) == given["copies"]
    assert state(unlearn(METHODS["unsir"](), request)) == state(unlearn(METHODS["unsir"](**given), request))
    small = METHODS["unsir"](noise_batch=5)
    alike = dataclasses.replace(small, copies=round(request.forget.size / 5))
    assert state(unlearn(small, request)) == state(unlearn(alike, request))
    assert state(unlearn(small, request)) != state(unlearn(dataclasses.replace(small, copies=1), request))


@pytest.mark.slow
def test_no_record_of_the_class_is_read_and_of_the_others_only_so_many():
    request = class_request()
    plain = state(unlearn(METHODS["unsir"](), request))
    assert state(unlearn(METHODS["unsir"](), request, data=spoil(request.forget))) == plain
    few = METHODS["unsir"](records=2)
    run = run_of()
    run.seed()
    drawn = [run.rng.permutation(request.retain[labels(request.retain) == c])[:2] for c in range(10) if c != 3]
    read = np.concatenate(drawn)
    others = np.setdiff1d(request.retain, read)
    assert state(unlearn(few, request, data=spoil(others))) == state(unlearn(few, request))
    for one in drawn:
        assert state(unlearn(few, request, data=spoil(one[1:]))) != state(unlearn(few, request))


def test_nothing_is_left_to_do_without_passes():
    still = METHODS["unsir"](impair_epochs=0, repair_epochs=0)
    assert state(unlearn(still, class_request())) == state(mlp_subject().model)


@pytest.mark.parametrize("place", [0, 1])
def test_a_class_goes_by_the_noise_that_was_learnt_and_the_others_stay(place):
    """On a network with batch normalisation, as the paper's; without, noise as it was drawn may do as much."""
    s = network_subject("batchnorm")
    request = class_request(s, place)
    model = unlearn(METHODS["unsir"](), request, subject=s)
    drawn = unlearn(METHODS["unsir"](noise_steps=0), request, subject=s)
    tuned = unlearn(METHODS["unsir"](impair_epochs=0), request, subject=s)
    assert accuracy(s.model, request.forget, s) == 1.0
    assert accuracy(model, request.forget, s) <= 0.6
    assert accuracy(model, request.retain, s) >= 0.95
    assert mean_loss(model, request.forget, s) > 2.5 * mean_loss(drawn, request.forget, s)
    assert mean_loss(drawn, request.forget, s) > mean_loss(tuned, request.forget, s)


def test_repair_brings_the_others_back():
    request = class_request(place=1)
    broken, mended = (unlearn(METHODS["unsir"](repair_epochs=count), request) for count in (0, 5))
    assert mean_loss(mended, request.retain) < 0.5 * mean_loss(broken, request.retain)
    assert accuracy(mended, request.retain) >= 0.9
    assert accuracy(mended, request.forget) == 0.0


def test_statistics_of_the_given_model_do_not_shape_themselves_by_the_noise():
    """The noise is learnt in eval mode; in train mode it would be another, and the original would have moved."""
    s = network_subject("batchnorm")
    run = run_of(subject=s)
    before = {name: value.clone() for name, value in run.original.state_dict().items()}
    noise = error_maximising_noise(run, 3, number=8, steps=10, lr=0.1, penalty=0.1)
    assert noise.shape == (8, 1, 8, 8)
    assert all(torch.equal(value, before[name]) for name, value in run.original.state_dict().items())
    alone = error_maximising_noise(run_of(subject=s), 3, number=1, steps=10, lr=0.1, penalty=0.1)
    assert alone.isfinite().all()


def test_noise_that_runs_away_is_said_to():
    with pytest.raises(AuditError, match="noise_lr"):
        noise_of(lr=1e30, penalty=0.1, steps=5)


@pytest.mark.parametrize(
    "settings",
    [
        {"lr": 0.0},
        {"repair_lr": -1.0},
        {"impair_epochs": -1},
        {"repair_epochs": -1},
        {"records": 0},
        {"noise_steps": -1},
        {"noise_lr": float("inf")},
        {"penalty": -0.1},
        {"noise_batch": 0},
        {"copies": 0},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(InvalidInput, match=next(iter(settings))):
        METHODS["unsir"](**settings)
