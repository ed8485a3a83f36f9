"""Our reading of pseudo-probability unlearning: its targets, its primal and dual steps, and what the bound keeps."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from toy_models import N, mlp_subject
from toy_models import request as deletion

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.models.inference import infer_logits
from mnemoscope.unlearning import METHODS
from mnemoscope.unlearning.pseudo_probability_reading import pseudo_probabilities

NAME = "pseudo_probability_reading"


def unlearn(method, request, *, recipe=None):
    s = mlp_subject()
    rng = np.random.default_rng(0)
    return method.unlearn(s.model, request, recipe=recipe or s.recipe, data=s.data, runtime=s.runtime, rng=rng)


def answers(model, ids):
    s = mlp_subject()
    return torch.from_numpy(infer_logits(model, s.data, ids, runtime=s.runtime)[:, 0]).double()


def test_targets_leave_the_label_nothing_and_are_exact_where_the_model_is_sure():
    logits = torch.tensor([[900.0, 1.0, 0.0, 0.0], [0.0, 2.0, 1.0, 0.0]], dtype=torch.float64)
    labels = torch.tensor([0, 1])
    even = torch.full((4,), 0.25, dtype=torch.float64)
    q = pseudo_probabilities(logits, labels, even, 0.25)
    e = np.exp(1.0)
    rest = np.array([[0, e, 1, 1] / (e + 2), [1, 0, e, 1] / (e + 2)])
    other = np.array([[0, 1, 1, 1], [1, 0, 1, 1]]) / 3
    np.testing.assert_allclose(q, 0.75 * rest + 0.25 * other)
    sure = pseudo_probabilities(logits[:1], labels[:1], torch.tensor([1.0, 0, 0, 0]).double(), 1.0)
    np.testing.assert_allclose(sure, [[0, 1 / 3, 1 / 3, 1 / 3]])


@pytest.mark.parametrize("reference", ["uniform", "overall"])
def test_steps_are_those_of_the_lagrangian_and_its_dual(reference):
    s, request = mlp_subject(), deletion(range(40))
    recipe = dataclasses.replace(s.recipe, batch_size=1000, momentum=0.0, weight_decay=0.0)
    settings = {"epochs": 4, "lr": 0.5, "smoothing": 0.3, "slack": 0.0, "dual_rate": 5.0, "reference": reference}
    got = unlearn(METHODS[NAME](**settings), request, recipe=recipe)

    x = s.data.inputs(torch.arange(N))
    y = s.data.y[:N]
    overall = s.model(x[40:]).double().softmax(dim=1).mean(dim=0).detach()
    other = overall if reference == "overall" else torch.full((10,), 0.1, dtype=torch.float64)
    goal = pseudo_probabilities(s.model(x[:40]).detach().double(), y[:40], other, 0.3)
    bound = float(nn.functional.cross_entropy(s.model(x[40:]).detach().double(), y[40:]))
    twin, dual, duals = copy.deepcopy(s.model).train(), 1.0, []
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.5)
    for _ in range(4):
        p = twin(x[:40]).double().softmax(dim=1)
        kl = (goal * (goal.clamp_min(1e-300).log() - p.log())).sum(dim=1).mean()
        loss = nn.functional.cross_entropy(twin(x[40:]), y[40:])
        optimizer.zero_grad()
        ((kl + dual * loss) / (1 + dual)).backward()
        optimizer.step()
        duals.append(dual)
        dual = max(0.0, dual + 5.0 * (float(loss.detach()) - bound))
    assert duals[-1] > 1.5  # the constraint was violated, and answered
    for a, b in zip(got.parameters(), twin.parameters(), strict=True):
        np.testing.assert_allclose(a.detach(), b.detach(), atol=2e-4)


def test_forget_records_lose_their_class_as_far_as_the_bound_on_retained_ones_permits():
    s, request = mlp_subject(), deletion(range(60))
    y = s.data.y[:N]

    def of(model):
        own = answers(model, request.forget).softmax(dim=1)[torch.arange(60), y[:60]].mean()
        return float(own), float(nn.functional.cross_entropy(answers(model, request.retain), y[60:]))

    own, kept = of(s.model)
    tight_own, tight_kept = of(unlearn(METHODS[NAME](epochs=30, lr=0.1, slack=0.05), request))
    loose_own, loose_kept = of(unlearn(METHODS[NAME](epochs=30, lr=0.1, slack=50.0), request))
    assert loose_own < 0.2  # without a bound the class is gone
    assert loose_own < tight_own < own - 0.05
    assert tight_kept < kept + 0.05 < loose_kept


@pytest.mark.parametrize(
    "settings",
    [{"epochs": -1}, {"lr": 0.0}, {"smoothing": 1.5}, {"reference": "none"}, {"slack": -1.0}, {"dual_rate": 0.0}],
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(InvalidInput, match=next(iter(settings))):
        METHODS[NAME](**settings)
