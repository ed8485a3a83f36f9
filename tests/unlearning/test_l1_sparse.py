"""l1-sparse fine-tuning: the penalty's course, the update written out, and fine-tuning as its limit."""

import copy

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from toy_models import N, mlp_subject, request
from twins import accuracy, mean_loss, state, tensors, unlearn, weights

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.unlearning import METHODS

FORGET, RETAIN = np.arange(60), np.arange(60, N)


@pytest.mark.parametrize(
    ("penalty", "course"),
    [
        ("falling", [0.8, 0.6, 0.4, 0.2, 0.0]),
        ("constant", [0.8, 0.8, 0.8, 0.8, 0.0]),
        ("rising", [0.2, 0.4, 0.6, 0.8, 0.0]),
    ],
)
def test_the_penalty_takes_its_course(penalty, course):
    method = METHODS["l1_sparse"](epochs=5, alpha=0.8, plain_epochs=1, penalty=penalty)
    assert [method.weight(epoch) for epoch in range(5)] == pytest.approx(course)


def test_an_epoch_is_the_papers_update():
    ours = unlearn(METHODS["l1_sparse"](epochs=3, lr=0.1, alpha=0.01), batch_size=1000, momentum=0.5)
    twin = copy.deepcopy(mlp_subject().model)
    x, y = tensors(RETAIN)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.5)
    for alpha in (0.01, 0.01 * 2 / 3, 0.01 / 3):
        optimizer.zero_grad()
        cross_entropy(twin(x), y).backward()
        for weight in twin.parameters():
            weight.grad += alpha * weight.detach().sign()
        optimizer.step()
    assert torch.allclose(weights(ours), weights(twin), rtol=1e-4, atol=1e-6)


def test_without_penalty_it_is_finetuning_to_the_bit():
    assert state(unlearn(METHODS["l1_sparse"](alpha=0.0))) == state(unlearn(METHODS["finetune"]()))


def test_weights_shrink_and_forget_loss_rises_further_than_in_finetuning():
    tuned = unlearn(METHODS["finetune"](epochs=20, lr=0.2))
    sparse = unlearn(METHODS["l1_sparse"](epochs=20, lr=0.2, alpha=3e-3))
    assert weights(sparse).abs().sum() < 0.6 * weights(tuned).abs().sum()
    assert mean_loss(sparse, FORGET) > 1.3 * mean_loss(tuned, FORGET)
    assert accuracy(sparse, RETAIN) == 1.0


def test_corrected_labels_are_learnt():
    right = (tensors(range(40))[1].numpy() + 1) % 10
    wanted = request(range(40), kind="labels", labels=right)
    after = unlearn(METHODS["l1_sparse"](epochs=40, lr=0.2, alpha=1e-5), wanted)
    assert accuracy(after, range(40)) < 0.3


@pytest.mark.parametrize(
    "settings", [{"alpha": -1.0}, {"epochs": -1}, {"plain_epochs": -1}, {"lr": 0.0}, {"penalty": "up"}]
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(InvalidInput, match=next(iter(settings))):
        METHODS["l1_sparse"](**settings)
