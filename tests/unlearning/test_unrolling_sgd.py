"""Unrolling SGD: the coefficients are those of the training, and the step takes back what the records added."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from toy_models import RUNTIME, N, digits, mlp_subject, network_subject
from toy_models import request as deletion

from mnemoscope.audit.errors import InvalidInput, UnsupportedModel
from mnemoscope.audit.models.history import History
from mnemoscope.audit.models.recipes import Recipe
from mnemoscope.audit.models.training import train_model
from mnemoscope.unlearning import METHODS
from mnemoscope.unlearning.unrolling_sgd import deviation_loss, rate_of_records, unlearning_error

IDS = np.arange(N)


def flat(model):
    return torch.cat([w.detach().flatten() for w in model.parameters()])


def unlearn(model, recipe, request, *, scale=1.0, seed=5, ids=IDS, data=None):
    return METHODS["unrolling_sgd"](scale=scale).unlearn(
        model,
        request,
        recipe=recipe,
        data=digits() if data is None else data,
        runtime=RUNTIME,
        rng=np.random.default_rng(0),
        history=History(ids, seed),
    )


class Steps:
    """Notes rate and records of every step."""

    def __init__(self, data):
        self.data, self.noted = data, []

    def before_step(self, module, batch, inputs, rate):
        self.noted.append((rate, self.data.ids[batch.positions.numpy()]))

    def after_step(self, module, batch):
        pass


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_rates_of_records_are_those_of_the_training(nesterov):
    """A constant gradient moves the weights by the sum of rates: heavy-ball SGD on a linear loss says what that is."""
    recipe = Recipe("mlp:8", lr=0.1, momentum=0.8, nesterov=nesterov, epochs=3, batch_size=50, warmup=0.2)
    watcher = Steps(digits())
    train_model(recipe, digits(), IDS, seed=5, runtime=RUNTIME, watcher=watcher)
    rates = rate_of_records(History(IDS, 5), recipe, digits())
    assert rates.shape == (N,)
    for record in (0, 17, 239):
        weight = torch.zeros((), dtype=torch.float64, requires_grad=True)
        solver = torch.optim.SGD([weight], lr=1.0, momentum=0.8, nesterov=nesterov)
        for rate, ids in watcher.noted:
            solver.param_groups[0]["lr"] = rate
            weight.grad = torch.tensor(1 / len(ids) if record in ids else 0.0, dtype=torch.float64)
            solver.step()
        assert rates[record] == pytest.approx(-float(weight.detach()), rel=1e-9)


def test_one_step_of_plain_sgd_is_taken_back_exactly():
    """After one full batch the expansion has one term: what is left is the step on the others alone."""
    recipe = Recipe("mlp:8", lr=0.1, momentum=0.0, schedule="constant", epochs=1, batch_size=N)
    model = train_model(recipe, digits(), IDS, seed=5, runtime=RUNTIME).module
    request = deletion(range(60))
    got = unlearn(model, recipe, request)
    start = History(IDS, 5).initial(recipe, digits())
    positions = digits().positions(request.retain)
    loss = nn.functional.cross_entropy(start(digits().inputs(positions)), digits().y[positions], reduction="sum") / N
    expected = flat(start) - 0.1 * torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(start.parameters()))])
    torch.testing.assert_close(flat(got), expected, rtol=1e-4, atol=1e-6)


def test_short_training_ends_nearer_to_retraining():
    """A few small steps without the forget records, from the same start and in the same order."""
    recipe = Recipe("mlp:32", lr=0.02, momentum=0.0, schedule="constant", epochs=2, batch_size=N)
    model = train_model(recipe, digits(), IDS, seed=5, runtime=RUNTIME).module
    request = deletion(range(60))
    start = History(IDS, 5).initial(recipe, digits())
    positions = digits().positions(request.retain)
    solver = torch.optim.SGD(start.parameters(), lr=0.02)
    for _ in range(2):
        solver.zero_grad()
        logits = start(digits().inputs(positions))
        (nn.functional.cross_entropy(logits, digits().y[positions], reduction="sum") / N).backward()
        solver.step()
    retrained = flat(start)
    got = unlearn(model, recipe, request)
    assert float((flat(got) - retrained).norm()) < 0.1 * float((flat(model) - retrained).norm())


def test_it_climbs_the_forget_loss():
    s = mlp_subject()
    request = deletion(np.flatnonzero(s.data.y[:N].numpy() == 3), kind="class")
    got = unlearn(s.model, s.recipe, request, scale=0.1, seed=s.seed, data=s.data)

    def loss(model, ids):
        positions = s.data.positions(ids)
        return float(nn.functional.cross_entropy(model(s.data.inputs(positions)), s.data.y[positions]).detach())

    assert loss(got, request.forget) > 5 * loss(s.model, request.forget)
    assert loss(got, request.retain) < loss(got, request.forget) / 5


@pytest.mark.parametrize("count", [1, 2, 33])
def test_batch_normalisation_never_meets_a_record_alone(count):
    s = network_subject("batchnorm", "sgd")
    got = METHODS["unrolling_sgd"](scale=0.01).unlearn(
        s.model,
        deletion(range(count)),
        recipe=s.recipe,
        data=s.data,
        runtime=s.runtime,
        rng=np.random.default_rng(0),
        history=History(IDS, s.seed),
    )
    assert torch.isfinite(flat(got)).all()
    assert not torch.equal(flat(got), flat(s.model))


def test_what_it_cannot_undo_is_refused():
    s = mlp_subject()
    request = deletion(range(60))
    adam = dataclasses.replace(s.recipe, optimizer="adamw")
    with pytest.raises(UnsupportedModel, match="adamw"):
        unlearn(s.model, adam, request)
    with pytest.raises(UnsupportedModel, match="DP-SGD"):
        unlearn(s.model, dataclasses.replace(s.recipe, dp_clip=1.0), request)
    with pytest.raises(InvalidInput, match="60 of 60 forget records are not in the model's history"):
        unlearn(s.model, s.recipe, request, ids=IDS[60:])
    with pytest.raises(InvalidInput, match="scale"):
        METHODS["unrolling_sgd"](scale=-1.0)


def test_the_error_is_the_second_term_of_the_expansion():
    # eta^2 (t^2 - t) / 2 * (distance / t) * sigma
    assert unlearning_error(0.1, 10, 3.0, 2.0) == pytest.approx(0.01 * (100 - 10) / 2 * (3.0 / 10) * 2.0)
    assert unlearning_error(0.1, 1, 3.0, 2.0) == 0.0
    with pytest.raises(InvalidInput, match="steps=0"):
        unlearning_error(0.1, 0, 3.0, 2.0)


def test_the_deviation_loss_pulls_logits_together():
    logits = torch.tensor([[3.0, -1.0, 1.0], [0.0, 0.0, 6.0]], requires_grad=True)
    labels = torch.tensor([0, 2])
    value = deviation_loss(logits, labels, gamma=0.5)
    plain = nn.functional.cross_entropy(logits, labels)
    spread = (np.std([3, -1, 1], ddof=1) + np.std([0, 0, 6], ddof=1)) / 2
    assert float((value - plain).detach()) == pytest.approx(0.5 * spread, rel=1e-6)
    deviation_loss(torch.zeros(2, 3), labels, gamma=0.0)


def test_the_deviation_loss_keeps_weights_nearer_to_their_start():
    data, start = digits(), History(IDS, 5)
    recipe = Recipe("mlp:16", lr=0.1)
    x, y = data.inputs(data.positions(IDS)), data.y[:N]
    moved = []
    for gamma in (0.0, 1.0):
        model = start.initial(recipe, data)
        solver = torch.optim.SGD(model.parameters(), lr=0.3)
        for _ in range(60):
            solver.zero_grad()
            deviation_loss(model(x), y, gamma=gamma).backward()
            solver.step()
        moved.append(float((flat(model) - flat(start.initial(recipe, data))).norm()))
    assert moved[1] < 0.8 * moved[0]
