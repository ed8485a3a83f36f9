"""Per-record gradients: equal to a loop of ordinary backward passes, and exact where a softmax saturates."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from mnemoscope.audit.errors import InvalidInput, UnsupportedModel
from mnemoscope.audit.models.architectures import build_model
from mnemoscope.audit.models.gradients import (
    directional_cosines,
    last_layer_log_norms,
    log_norms,
    mean_gradient,
    residual,
)


def with_norm():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Flatten(),
        nn.Linear(6 * 64, 12), nn.BatchNorm1d(12), nn.Tanh(), nn.Linear(12, 4),
    )  # fmt: skip
    model(torch.randn(64, 3, 8, 8) * 2 + 1)  # statistics of its own
    return model.eval()


class Block(nn.Module):
    """A block of a residual network: a sum and activations in place."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.first, self.second = nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.Conv2d(5, 5, 3, padding=1)
        self.norm, self.act, self.head = nn.BatchNorm2d(5), nn.ReLU(inplace=True), nn.Linear(5, 4)
        self.eval()

    def forward(self, x):
        x = self.act(self.first(x))
        y = self.norm(self.second(x))
        y += x
        return self.head(self.act(y).mean(dim=(2, 3)))


MODELS = {
    "mlp": lambda: build_model("mlp:16-8", input_shape=(3, 8, 8), n_classes=4, seed=0),
    "cnn": lambda: build_model("small_cnn", input_shape=(3, 8, 8), n_classes=4, seed=0),
    "batch norm, in place": with_norm,
    "residual block": lambda: Block(),
}


def records(n=9):
    draw = torch.Generator().manual_seed(1)
    return torch.randn(n, 3, 8, 8, generator=draw), torch.randint(0, 4, (n,), generator=draw)


def loop(model, x, y):
    """All gradients, (k, parameters) float64, one ordinary backward pass in float64 each."""
    model, rows = copy.deepcopy(model).double(), []
    for record, label in zip(x.double(), y, strict=True):
        model.zero_grad()
        nn.functional.cross_entropy(model(record[None]), label[None]).backward()
        rows.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    return torch.stack(rows)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("route", ["layers", "vmap"])
def test_norms_are_those_of_a_loop_over_records(name, route):
    model, (x, y) = MODELS[name](), records()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    expected = loop(model, x, y).norm(dim=1)
    assert torch.allclose(log_norms(model, x, y, route=route).exp(), expected, rtol=1e-5, atol=0)
    assert torch.allclose(log_norms(model, x, y).exp(), expected, rtol=1e-5, atol=0)
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["mlp", "cnn", "batch norm, in place"])
def test_the_last_layer_is_the_closed_form_of_its_own_gradient(name):
    model, (x, y) = MODELS[name](), records()
    last = sum(p.numel() for p in [*model.modules()][-1].parameters())
    expected = loop(model, x, y)[:, -last:].norm(dim=1)
    assert torch.allclose(last_layer_log_norms(model, x, y).exp(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", MODELS)
def test_cosines_are_those_of_a_loop_over_records(name):
    model, (x, y) = MODELS[name](), records()
    each = loop(model, x, y)
    mean = mean_gradient(model, x[:5], y[:5])
    flat = torch.cat([part.flatten() for part in mean.values()])
    assert torch.allclose(flat.double(), each[:5].mean(dim=0), rtol=1e-4, atol=1e-7)
    expected = torch.nn.functional.cosine_similarity(each, flat.double()[None])
    for scale in (1.0, 1e-30):  # a direction has no length
        direction = {key: value * scale for key, value in mean.items()}
        assert torch.allclose(directional_cosines(model, x, y, direction), expected, rtol=0, atol=1e-5)
    assert (directional_cosines(model, x, y, {key: 0 * value for key, value in mean.items()}) == 0).all()


def test_a_sure_model_keeps_its_records_apart():
    """A float32 softmax gives three records out of four the gradient zero; their order by confidence is lost."""
    layer = nn.Linear(2, 2, bias=False)
    nn.init.eye_(layer.weight)
    x = torch.tensor([[10.0, 0.0], [120.0, 0.0], [200.0, 0.0], [300.0, 0.0]])
    y = torch.zeros(4, dtype=torch.int64)
    naive = (torch.softmax(x, dim=1) - nn.functional.one_hot(y, 2)).norm(dim=1)
    assert (naive[2:] == 0).all()
    # |p - e_y| = sqrt(2) / (1 + exp(z)), |h| = z.
    z = x[:, 0].double()
    expected = 0.5 * np.log(2.0) - torch.nn.functional.softplus(z) + z.log()
    for values in (log_norms(layer, x, y), log_norms(layer, x, y, route="vmap"), last_layer_log_norms(layer, x, y)):
        assert torch.allclose(values, expected, rtol=1e-6)


def test_residuals_are_p_minus_the_label():
    z, y = torch.randn(50, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), torch.arange(50) % 6
    expected = torch.softmax(z, dim=1) - nn.functional.one_hot(y, 6)
    log_norm, unit = residual(z, y)
    assert torch.allclose(log_norm.exp()[:, None] * unit, expected, rtol=1e-12, atol=1e-15)
    wrong = residual(torch.tensor([[-500.0, 0.0]]), torch.tensor([0]))
    assert float(wrong.log_norm) == pytest.approx(0.5 * np.log(2.0))


class Tied(nn.Module):
    """One weight used twice, once outside its layer."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x):
        return nn.functional.linear(self.a(x), self.a.weight)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x):
        return self.a(torch.tanh(self.a(x)))


class Adds(nn.Module):
    """Changes a layer's output in place, unseen by any module."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        y = self.a(x)
        y.mul_(3.0)
        return self.b(y)


@pytest.mark.parametrize("kind", [Tied, Twice, Adds, lambda: nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))])
def test_what_layers_cannot_tell_is_noticed_and_done_by_vmap(kind):
    torch.manual_seed(0)
    model, x, y = kind(), torch.randn(5, 4), torch.arange(5) % 4
    assert torch.allclose(log_norms(model, x, y).exp(), loop(model, x, y).norm(dim=1), rtol=1e-5)
    with pytest.raises(UnsupportedModel, match="layer by layer"):
        log_norms(model, x, y, route="layers")


class Counts(nn.Module):
    """Asks for a number of its input, which vmap cannot give."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(4))

    def forward(self, x):
        return x * self.w if x.sum().item() > 0 else x * self.w * 2


def test_a_model_that_vmap_cannot_run_is_refused_by_its_reason():
    x, y = torch.randn(5, 4), torch.arange(5) % 4
    with pytest.raises(UnsupportedModel, match=r"record by record .*gradient_norm_last_layer"):
        log_norms(Counts(), x, y)
    with pytest.raises(UnsupportedModel, match="not the output of a linear layer"):
        last_layer_log_norms(Counts(), x, y)
    with pytest.raises(UnsupportedModel, match="not the output of a linear layer"):
        last_layer_log_norms(nn.Sequential(nn.Linear(4, 4), nn.Tanh()), x, y)
    with pytest.raises(InvalidInput, match="route='both'"):
        log_norms(Counts(), x, y, route="both")
    with pytest.raises(InvalidInput, match="no records"):
        log_norms(nn.Linear(4, 4), x[:0], y[:0])


def test_frozen_parameters_have_a_gradient_too():
    model, (x, y) = MODELS["mlp"](), records()
    expected = log_norms(model, x, y)
    for weight in model.parameters():
        weight.requires_grad_(False)
    assert torch.allclose(log_norms(model, x, y), expected)
    assert torch.allclose(log_norms(model, x, y, route="vmap"), expected, rtol=1e-5)
    assert not any(weight.requires_grad for weight in model.parameters())
