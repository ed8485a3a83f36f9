"""NegGrad+ against the paper's step written out, and its pitfalls."""

import copy

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from toy_models import mlp_subject, network_subject, request
from twins import accuracy, mean_loss, spoil, state, tensors, unlearn, weights

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.unlearning import METHODS

FORGET = np.arange(60)


@pytest.mark.parametrize("anchor", [0.0, 3.0])
def test_a_step_is_the_papers(anchor):
    s, wanted = mlp_subject(), request(FORGET)
    ours = unlearn(
        METHODS["neggrad_plus"](epochs=3, lr=0.05, alpha=0.8, anchor=anchor), wanted, batch_size=1000, momentum=0.5
    )
    twin = copy.deepcopy(s.model)
    (x, y), (u, v) = tensors(wanted.retain), tensors(FORGET)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.05, momentum=0.5)
    start = weights(s.model)
    for _ in range(3):
        optimizer.zero_grad()
        loss = 0.8 * cross_entropy(twin(x), y) - 0.2 * cross_entropy(twin(u), v)
        moved = torch.cat([weight.reshape(-1) for weight in twin.parameters()]) - start
        (loss + anchor / 2 * moved.square().sum()).backward()
        optimizer.step()
    assert torch.allclose(weights(ours), weights(twin), rtol=1e-4, atol=1e-6)
    assert not torch.allclose(weights(ours), start, rtol=1e-4, atol=1e-6)


def test_forget_records_go_round_while_retained_ones_last():
    few = request(range(3))
    model = unlearn(METHODS["neggrad_plus"](epochs=1, lr=0.1, alpha=0.5), few)
    again = unlearn(METHODS["neggrad_plus"](epochs=1, lr=0.1, alpha=0.5), few, data=spoil([2]))
    assert state(model) != state(again)
    assert mean_loss(model, [0, 1, 2]) > 2 * mean_loss(mlp_subject().model, [0, 1, 2])


def test_forget_loss_rises_and_retained_records_stay():
    retrained = mean_loss(unlearn(METHODS["retrain"]()), FORGET)
    tuned = mean_loss(unlearn(METHODS["finetune"]()), FORGET)
    after = unlearn(METHODS["neggrad_plus"](alpha=0.8, lr=0.1))
    assert mean_loss(mlp_subject().model, FORGET) < tuned < retrained / 3
    assert mean_loss(after, FORGET) > retrained
    assert accuracy(after, request(FORGET).retain) > 0.97


def test_the_ceiling_bounds_what_the_plain_objective_does_not():
    plain = mean_loss(unlearn(METHODS["neggrad_plus"](alpha=0.7, lr=0.1)), FORGET)
    bound = mean_loss(unlearn(METHODS["neggrad_plus"](alpha=0.7, lr=0.1, ceiling=1.0)), FORGET)
    assert plain > 2
    assert 0.5 < bound < 1.5


def test_forget_records_leave_no_trace_in_normalisation_statistics():
    s = network_subject("batchnorm")
    method = METHODS["neggrad_plus"](epochs=1, lr=1e-20)
    one = unlearn(method, subject=s, weight_decay=0.0)
    other = unlearn(method, subject=s, data=spoil(FORGET, s), weight_decay=0.0)
    assert dict(one.named_buffers()).keys() == dict(s.model.named_buffers()).keys() != set()
    for (name, value), (_, twin) in zip(one.named_buffers(), other.named_buffers(), strict=True):
        assert torch.equal(value, twin), name
        assert not torch.equal(value, dict(s.model.named_buffers())[name])


@pytest.mark.slow
def test_one_forget_record_and_one_retained_a_step_pass_batch_normalisation():
    s = network_subject("batchnorm")
    alone = request([5])
    assert state(unlearn(METHODS["neggrad_plus"](epochs=1), alone, subject=s, batch_size=1)) != state(s.model)


@pytest.mark.parametrize(
    "settings",
    [{"alpha": 0.0}, {"alpha": 1.5}, {"epochs": -1}, {"lr": 0.0}, {"ceiling": -1.0}, {"anchor": -1.0}],
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(InvalidInput, match=next(iter(settings))):
        METHODS["neggrad_plus"](**settings)
