"""Selective synaptic dampening: the published rule written out, equal batches, and a class that goes."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from toy_models import N, mlp_subject, of_class
from toy_models import request as deletion
from twins import accuracy, tensors, unlearn

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.unlearning import METHODS


def importance(model, x, y, label_free):
    """Record by record."""
    total = [torch.zeros_like(w) for w in model.parameters()]
    for record, label in zip(x, y, strict=True):
        logits = model(record[None])
        value = logits.square().sum() if label_free else nn.functional.cross_entropy(logits, label[None])
        for kept, g in zip(total, torch.autograd.grad(value, list(model.parameters())), strict=True):
            kept += g.abs() if label_free else g.square()
    return [t / len(y) for t in total]


@pytest.mark.parametrize("name", ["ssd", "ssd_label_free"])
def test_weights_are_shrunk_by_the_rule(name):
    s, request = mlp_subject(), deletion(range(60))
    alpha, dampening = 1.3, 0.8
    model, free = copy.deepcopy(s.model), name == "ssd_label_free"
    ours = importance(model, *tensors(request.forget, s), free)
    theirs = importance(model, *tensors(np.arange(N), s), free)
    got = unlearn(METHODS[name](alpha=alpha, dampening=dampening, batch_size=1), request)
    selected = 0
    for weight, after, f, d in zip(model.parameters(), got.parameters(), ours, theirs, strict=True):
        clear = (f - alpha * d).abs() > 1e-3 * d  # not at the very threshold
        expected = torch.where(f > alpha * d, weight * (dampening * d / f).clamp(max=1.0), weight)
        torch.testing.assert_close(after[clear], expected[clear], rtol=2e-3, atol=1e-7)
        selected += int(((f > alpha * d) & clear).sum())
    assert 0 < selected < sum(w.numel() for w in model.parameters())


def test_batches_are_averaged_before_they_are_squared():
    s, request = mlp_subject(), of_class()
    n = request.forget.size
    forget = tensors(request.forget, s)
    model = copy.deepcopy(s.model)
    mean = torch.autograd.grad(nn.functional.cross_entropy(model(forget[0]), forget[1]), list(model.parameters()))
    method = METHODS["ssd"](batch_size=n)
    from mnemoscope.audit.models.recipes import Runtime
    from mnemoscope.unlearning.base import Deletion

    run = Deletion("ssd", model, request, s.recipe, s.data, Runtime(device="cpu"), np.random.default_rng(0))
    got = method._importance(model, run, request.forget, n)
    for value, g in zip(got.values(), mean, strict=True):
        torch.testing.assert_close(value, g.square(), rtol=1e-3, atol=1e-12)


@pytest.mark.parametrize(("name", "settings"), [("ssd", {"batch_size": 1}), ("ssd", {}), ("ssd_label_free", {})])
def test_a_class_is_forgotten(name, settings):
    request = of_class()
    settings = {"alpha": 5.0, **settings}
    after = unlearn(METHODS[name](**settings), request)
    assert accuracy(after, request.forget) < 0.5
    assert accuracy(after, request.retain) > 0.85


def test_no_weight_grows():
    s = mlp_subject()
    after = unlearn(METHODS["ssd"](alpha=1.1, dampening=50.0), of_class())
    for a, b in zip(after.parameters(), s.model.parameters(), strict=True):
        assert (a.abs() <= b.abs()).all()
        assert ((a == 0) | (a.sign() == b.sign())).all()


def test_the_label_free_form_reads_no_label():
    s, request = mlp_subject(), deletion(range(60))
    data = copy.copy(s.data)
    data.y = (s.data.y + 1) % 10
    other = dataclasses.replace(s, data=data)
    for batch_size in (1, None):
        method = METHODS["ssd_label_free"](alpha=1.2, batch_size=batch_size)
        one, two = unlearn(method, request), unlearn(method, request, subject=other)
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
        assert not torch.equal(next(one.parameters()), next(s.model.parameters()))


@pytest.mark.parametrize("settings", [{"alpha": 0.0}, {"dampening": -1.0}, {"exponent": 0.0}, {"batch_size": 0}])
def test_impossible_settings_are_refused(settings):
    for name in ("ssd", "ssd_label_free"):
        with pytest.raises(InvalidInput, match=f"{name}: {next(iter(settings))}"):
            METHODS[name](**settings)
