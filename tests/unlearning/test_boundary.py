"""Boundary shrink and expand: their updates written out plainly, failed pushes, and that a class goes."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from toy_models import mlp_subject, network_subject, of_class
from twins import accuracy, unlearn

from mnemoscope.audit.errors import InvalidInput, UnsupportedModel
from mnemoscope.audit.records.request import Request
from mnemoscope.unlearning import METHODS
from mnemoscope.unlearning.adversarial_examples import linf_examples
from mnemoscope.unlearning.heads import last_linear


def one_step_twin(model, x, y, lr, epochs):
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    for _ in range(epochs):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model


def test_shrink_teaches_each_record_the_class_of_its_pushed_point():
    s, request = mlp_subject(), of_class(3)
    x, y = s.data.inputs(torch.as_tensor(request.forget)), s.data.y[request.forget]
    point = x.clone().requires_grad_()
    nn.functional.cross_entropy(s.model(point).double(), y, reduction="sum").backward()
    near = s.model(x + 0.4 * point.grad.sign()).argmax(dim=1)
    assert (near != y).all()
    got = unlearn(METHODS["boundary_shrink"](epochs=3, lr=0.05, batch_size=500, bound=0.4), request)
    twin = one_step_twin(copy.deepcopy(s.model), x, near, 0.05, 3)
    for a, b in zip(got.parameters(), twin.parameters(), strict=True):
        np.testing.assert_allclose(a.detach(), b.detach(), atol=1e-5)


def test_a_push_that_fails_does_not_teach_the_record_its_own_label():
    s, request = mlp_subject(), of_class(3)
    frozen = copy.deepcopy(s.model).eval().requires_grad_(False)
    rows = torch.as_tensor(request.forget)
    ((_, logits),) = linf_examples(frozen, s.data, rows, bound=1e-4)
    assert (logits.argmax(dim=1) == 3).all()  # all of them failed
    second = logits.clone()
    second[:, 3] = -torch.inf
    got = unlearn(METHODS["boundary_shrink"](epochs=2, lr=0.05, batch_size=500, bound=1e-4), request)
    twin = one_step_twin(copy.deepcopy(s.model), s.data.inputs(rows), second.argmax(dim=1), 0.05, 2)
    for a, b in zip(got.parameters(), twin.parameters(), strict=True):
        np.testing.assert_allclose(a.detach(), b.detach(), atol=1e-5)


def test_expand_trains_a_class_more_and_takes_it_away():
    s, request = mlp_subject(), of_class(3)
    got = unlearn(METHODS["boundary_expand"](epochs=1, lr=0.05, batch_size=500), request)
    x = s.data.inputs(torch.as_tensor(request.forget))
    # The first step's gradient of the old rows is p_k * h, whatever the new row weighs is in p alone: all old logits
    # of the forget records are pushed down, none up.
    body = copy.deepcopy(s.model)[:-1]
    with torch.no_grad():
        moved = s.model[-1].weight - got[-1].weight
        h = body(x)
    assert got[-1].weight.shape == s.model[-1].weight.shape
    assert (moved @ h.mean(dim=0) >= 0).all()
    assert float(moved[3] @ h.mean(dim=0)) == pytest.approx(float((moved @ h.mean(dim=0)).max()))


@pytest.mark.parametrize("name", ["boundary_shrink", "boundary_expand"])
def test_a_class_is_forgotten_and_the_others_are_not(name):
    request = of_class(3)
    before = mlp_subject().model
    assert accuracy(before, request.forget) > 0.95
    more = {"bound": 0.3} if name == "boundary_shrink" else {}
    rate = {"boundary_shrink": 0.01, "boundary_expand": 0.02}[name]
    model = unlearn(METHODS[name](epochs=10, lr=rate, **more), request)
    assert accuracy(model, request.forget) < 0.4
    assert accuracy(model, request.retain) > 0.85


@pytest.mark.parametrize("name", ["boundary_shrink", "boundary_expand"])
def test_a_single_record_and_statistics_of_normalisation(name):
    s = network_subject("batchnorm")
    request = Request("records", np.array([3]), np.empty(0, np.int64), np.empty(0, np.int64))
    model = unlearn(METHODS[name](epochs=2, lr=0.01), request, subject=s)
    for place, value in model.named_buffers():
        assert torch.equal(value, s.model.get_buffer(place)), place
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), s.model.parameters(), strict=True))


def test_a_frozen_head_stays_when_it_is_expanded():
    s = mlp_subject()
    model = copy.deepcopy(s.model)
    for weight in model[-1].parameters():
        weight.requires_grad_(False)
    got = unlearn(METHODS["boundary_expand"](epochs=2, lr=0.05), of_class(3), model=model)
    assert torch.equal(got[-1].weight, s.model[-1].weight)
    assert not torch.equal(got[1].weight, s.model[1].weight)


def test_logits_that_no_linear_layer_makes_are_refused():
    s = mlp_subject()
    model = nn.Sequential(*copy.deepcopy(s.model), nn.Softmax(dim=1))
    with pytest.raises(UnsupportedModel, match="linear layer"):
        unlearn(METHODS["boundary_expand"](epochs=1, lr=0.01), of_class(3), model=model)
    alone = nn.Linear(64, 10)
    asked = SimpleNamespace(
        request=of_class(3), in_order=lambda ids, batch_size: iter([SimpleNamespace(x=torch.zeros(1, 64))])
    )
    assert last_linear(alone, asked, "boundary_expand") == ("", alone)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("boundary_shrink", {"epochs": -1}),
        ("boundary_shrink", {"bound": 0.0}),
        ("boundary_shrink", {"push": "cw"}),
        ("boundary_expand", {"lr": -1.0}),
        ("boundary_expand", {"batch_size": 0}),
    ],
)
def test_impossible_settings_are_refused(name, settings):
    with pytest.raises(InvalidInput, match=next(iter(settings))):
        METHODS[name](**settings)
