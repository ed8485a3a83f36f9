"""Relevance perturbation: the rule against its formula, what is counted and cut, and that the class goes."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from toy_models import mlp_subject, network_subject, of_class
from twins import accuracy, unlearn

from mnemoscope.audit.errors import InvalidInput, UnsupportedModel
from mnemoscope.audit.models.architectures import seeded
from mnemoscope.unlearning import METHODS
from mnemoscope.unlearning.relevance import RelevancePerturbation


def by_formula(layers, x, label, epsilon):
    """R_i = a_i sum_j w_ji R_j / (z_j + eps sign z_j), layer by layer, in float64: relevance of each layer's inputs."""
    inputs, a = [], x.double().numpy()
    for weight, bias in layers[:-1]:
        inputs.append(a)
        a = np.maximum(a @ weight.T + bias, 0)
    inputs.append(a)
    weight, bias = layers[-1]
    relevance = np.zeros((len(a), len(weight)))
    relevance[:, label] = (a @ weight.T + bias)[:, label]
    found = []
    for (weight, bias), a in zip(reversed(layers), reversed(inputs), strict=True):
        z = a @ weight.T + bias
        relevance = a * ((relevance / (z + epsilon * np.where(z >= 0, 1, -1))) @ weight)
        found.append(relevance)
    return found


@pytest.mark.parametrize("epsilon", [1e-6, 0.3])
def test_relevance_is_that_of_the_epsilon_rule(epsilon):
    with seeded(5):
        model = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 7), nn.ReLU(), nn.Linear(7, 4)).eval()
        x = torch.randn(5, 6)
    layers = [
        (m.weight.detach().double().numpy(), m.bias.detach().double().numpy())
        for m in model
        if len(list(m.parameters()))
    ]
    found = RelevancePerturbation(layers=3, epsilon=epsilon)._relevance(model, x.clone(), 2)
    for place, expected in zip(("4", "2", "0"), by_formula(layers, x, 2, epsilon), strict=True):
        np.testing.assert_allclose(found[place].numpy(), expected, rtol=2e-3, atol=2e-5)


def test_without_biases_relevance_is_conserved_through_convolutions_and_pooling():
    with seeded(5):
        model = nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1, bias=False),
            nn.BatchNorm2d(6, affine=False),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 5, 3, bias=False),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(5, 3, bias=False),
        ).eval()
        x = torch.randn(4, 2, 8, 8)
    logits = model(x)[:, 1].detach()
    found = RelevancePerturbation(layers=3, epsilon=1e-9)._relevance(model, x.clone(), 1)
    assert {place: tuple(part.shape) for place, part in found.items()} == {"8": (4, 5), "4": (4, 6), "0": (4, 2)}
    for part in found.values():
        np.testing.assert_allclose(part.sum(dim=1), logits, rtol=1e-3, atol=1e-5)


def planted():
    """Hidden neurons 0 to 2 carry class 0 and nothing else, 3 to 5 class 1, 6 and 7 both."""
    s = mlp_subject()
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.fill_(1.0)
        model[3].weight.zero_()
        model[3].bias.zero_()
        model[3].weight[0, :3] = torch.tensor([3.0, 2.0, 1.0])
        model[3].weight[1, 3:6] = 2.0
        model[3].weight[:2, 6:] = 0.1
    return s, model


def test_the_neurons_of_the_class_are_cut_and_no_others():
    _, model = planted()
    got = unlearn(METHODS["relevance_perturbation"](relevant=0.25, cut=1.0), of_class(0), model=model)
    expected = model[3].weight.detach().clone()
    expected[:, :2] = 0.0  # the two most relevant of eight, for every record
    assert torch.equal(got[3].weight, expected)
    assert torch.equal(got[1].weight, model[1].weight)
    assert torch.equal(got[3].bias, model[3].bias)


def test_silent_neurons_are_not_counted_and_the_row_of_the_class_can_be_cut_alone():
    _, model = planted()
    everything = METHODS["relevance_perturbation"](relevant=1.0, cut=1.0)
    got = unlearn(everything, of_class(0), model=model)
    expected = model[3].weight.detach().clone()
    expected[:, [0, 1, 2, 6, 7]] = 0.0  # 3 to 5 are class 1's
    assert torch.equal(got[3].weight, expected)
    row = unlearn(METHODS["relevance_perturbation"](relevant=1.0, cut=1.0, rows="class"), of_class(0), model=model)
    alone = model[3].weight.detach().clone()
    alone[0] = 0.0
    assert torch.equal(row[3].weight, alone)
    still = unlearn(METHODS["relevance_perturbation"](cut=0.0), of_class(0), model=model)
    assert all(torch.equal(a, b) for a, b in zip(still.parameters(), model.parameters(), strict=True))


def test_a_class_is_forgotten_at_the_head():
    request = of_class(3)
    model = unlearn(METHODS["relevance_perturbation"](), request)
    assert accuracy(mlp_subject().model, request.forget) > 0.95
    assert accuracy(model, request.forget) < 0.2
    assert accuracy(model, request.retain) > 0.85


@pytest.mark.slow
def test_layers_without_a_rule_are_refused_on_the_way_and_not_before_it():
    vit, norm = network_subject("vit"), network_subject("groupnorm")
    for subject in (vit, norm):
        assert unlearn(METHODS["relevance_perturbation"](), of_class(3), subject=subject) is not subject.model
        with pytest.raises(UnsupportedModel, match="epsilon rule"):
            unlearn(METHODS["relevance_perturbation"](layers=2), of_class(3), subject=subject)
    plain = METHODS["relevance_perturbation"](layers=2, rule="gradient_x_input")
    assert unlearn(plain, of_class(3), subject=norm) is not norm.model
    assert unlearn(METHODS["relevance_perturbation"](layers=3), of_class(3), subject=network_subject("batchnorm"))


def test_a_frozen_head_is_refused_by_name():
    model = copy.deepcopy(mlp_subject().model)
    model[-1].weight.requires_grad_(False)
    with pytest.raises(UnsupportedModel, match="frozen"):
        unlearn(METHODS["relevance_perturbation"](), of_class(3), model=model)


@pytest.mark.parametrize(
    "settings",
    [{"images": 0}, {"relevant": 0.0}, {"cut": 1.5}, {"layers": 0}, {"rows": "some"}, {"rule": "z"}, {"epsilon": 0.0}],
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(InvalidInput, match=next(iter(settings))):
        METHODS["relevance_perturbation"](**settings)
    with pytest.raises(InvalidInput, match="rows"):
        METHODS["relevance_perturbation"](rows="class", layers=2)
