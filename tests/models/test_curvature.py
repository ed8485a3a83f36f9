"""Second moments of record gradients and Hessian products: equal to loops over records and to the dense Hessian."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev

from mnemoscope.audit.errors import InvalidInput, UnsupportedModel
from mnemoscope.audit.models.architectures import build_model
from mnemoscope.audit.models.curvature import (
    expected_ways,
    gradient_dots,
    hessian_product,
    label_ways,
    logit_layer,
    open_weights,
    record_gradients,
    squared_gradients,
    sum_gradient,
)

C = 4


class Attention(nn.Module):
    """Attention, layer normalisation, and a parameter of no layer."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(16, 8)
        self.place = nn.Parameter(torch.randn(1, 12, 8) / 4)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(8, C)

    def forward(self, x):
        return self.head(self.layers(self.inner(x.reshape(len(x), 12, 16)) + self.place).mean(dim=1))


def with_norm():
    model = nn.Sequential(
        nn.Conv2d(3, 5, 3, stride=2, bias=False), nn.BatchNorm2d(5), nn.ReLU(inplace=True), nn.Flatten(),
        nn.Linear(45, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, C),
    )  # fmt: skip
    model(torch.randn(64, 3, 8, 8) * 2 + 1)  # statistics of its own
    return model


class Tokens(nn.Module):
    """A linear layer that is applied to each place of a record."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(16, 5), nn.Linear(5, C)

    def forward(self, x):
        return self.head(torch.tanh(self.inner(x.reshape(len(x), 12, 16))).mean(dim=1))


MODELS = {
    "mlp": lambda: build_model("mlp:16-8", input_shape=(3, 8, 8), n_classes=C, seed=0),
    "cnn": lambda: build_model("small_cnn", input_shape=(3, 8, 8), n_classes=C, seed=0),
    "batch norm, in place": with_norm,
    "places": Tokens,
    "attention": Attention,
}


def made(name):
    torch.manual_seed(0)
    return MODELS[name]().eval()


def records(n=7):
    draw = torch.Generator().manual_seed(1)
    return torch.randn(n, 3, 8, 8, generator=draw), torch.randint(0, C, (n,), generator=draw)


def grads(model, value, **more):
    weights = [w for w in model.parameters() if w.requires_grad]
    return torch.autograd.grad(value, weights, allow_unused=True, **more)


def close(got, expected):
    assert len(got) == len(expected)
    for a, b in zip(got.values(), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-7)


def by_loop(model, x, y, expected):
    total = [torch.zeros_like(w) for w in model.parameters() if w.requires_grad]
    for record, label in zip(x, y, strict=True):
        log_p = torch.log_softmax(model(record[None])[0], dim=0)
        for c in range(C) if expected else [int(label)]:
            share = float(log_p[c].detach().exp()) if expected else 1.0
            for kept, g in zip(total, grads(model, log_p[c], retain_graph=True), strict=True):
                kept += share * g.square()
    return total


@pytest.mark.parametrize("expected", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_squares_are_those_of_a_loop_over_records_and_classes(name, expected):
    model, (x, y) = made(name), records()
    ways = expected_ways(model(x).detach()) if expected else label_ways(model(x).detach(), y)
    slow = by_loop(model, x, y, expected)
    for route in ("auto", "vmap") if name == "attention" else ("layers", "vmap"):
        close(squared_gradients(model, x, ways, route=route), slow)
        close(squared_gradients(model, x, ways, route=route, chunk=1), slow)  # one record at a time


def test_frozen_layers_have_no_squares_and_change_none():
    model, (x, y) = made("mlp"), records()
    whole = squared_gradients(model, x, label_ways(model(x).detach(), y))
    first = next(iter(model.parameters()))
    first.requires_grad_(False)
    for route in ("layers", "vmap"):
        part = squared_gradients(model, x, label_ways(model(x).detach(), y), route=route)
        assert list(part) == list(whole)[1:]
        for name, value in part.items():
            torch.testing.assert_close(value, whole[name], rtol=1e-4, atol=0)


def test_what_cannot_be_done_is_refused():
    model, (x, y) = made("attention"), records()
    ways = label_ways(model(x).detach(), y)
    with pytest.raises(UnsupportedModel, match="layer by layer"):
        squared_gradients(model, x, ways, route="layers")
    with pytest.raises(InvalidInput, match="allowed"):
        squared_gradients(model, x, ways, route="loop")
    with pytest.raises(InvalidInput, match="no records"):
        squared_gradients(model, x[:0], ways[:0])

    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(192, C)

        def forward(self, x):
            z = self.inner(x.flatten(1))
            return z if float(z.detach().sum()) > 0 else 2 * z

    odd = Branch()
    with pytest.raises(UnsupportedModel, match="record by record"):
        squared_gradients(odd, x, label_ways(odd(x).detach(), y), route="vmap")


def ce(logits, labels):
    return nn.functional.cross_entropy(logits, labels, reduction="sum")


def test_gradients_of_records_sum_to_the_gradient_and_their_products_are_those_of_a_loop():
    model, (x, y) = made("batch norm, in place"), records()
    parts = list(record_gradients(model, ce, x, y, chunk=1))
    assert len(parts) == len(x)
    together = sum_gradient(model, ce, iter([(x[:3], y[:3]), (x[3:], y[3:])]))
    for name, value in together.items():
        torch.testing.assert_close(sum(part[name].sum(dim=0) for part in parts), value, rtol=1e-3, atol=1e-6)
    ways = [{n: torch.randn_like(w) for n, w in open_weights(model).items()} for _ in range(2)]
    dots = gradient_dots(model, ce, x, y, ways)
    assert dots.shape == (len(x), 2)
    for row, record, label in zip(dots, x, y, strict=True):
        own = grads(model, ce(model(record[None]), label[None]))
        for value, way in zip(row, ways, strict=True):
            expected = sum(float((g * w).sum()) for g, w in zip(own, way.values(), strict=True))
            assert float(value) == pytest.approx(expected, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("name", ["mlp", "batch norm, in place", "attention"])
def test_hessian_products_are_those_of_the_dense_hessian(name):
    model, (x, y) = made(name).double(), records()
    x = x.double()
    weights = open_weights(model)
    names = list(weights)[-2:]
    part = {n: weights[n] for n in names}
    vector = {n: torch.randn_like(w) for n, w in part.items()}
    got = hessian_product(model, ce, iter([(x[:4], y[:4]), (x[4:], y[4:])]), vector)
    dense = jacrev(jacrev(lambda p: ce(functional_call(model, p, (x,)), y)))(part)
    for row in names:
        expected = sum(
            torch.tensordot(dense[row][column], vector[column], dims=vector[column].ndim) for column in names
        )
        torch.testing.assert_close(got[row], expected, rtol=1e-8, atol=1e-10)


def test_hessian_products_reach_through_attention():
    model, (x, y) = made("attention").double(), records()
    x = x.double()
    weights = open_weights(model)
    vector = {n: torch.randn_like(w) for n, w in weights.items()}
    got = hessian_product(model, ce, iter([(x, y)]), vector)
    small = 1e-6
    sides = []
    for sign in (1, -1):
        at = {n: (w + sign * small * vector[n]).requires_grad_() for n, w in weights.items()}
        sides.append(torch.autograd.grad(ce(functional_call(model, at, (x,)), y), list(at.values())))
    for name, up, down in zip(weights, *sides, strict=True):
        torch.testing.assert_close(got[name], (up - down) / (2 * small), rtol=1e-4, atol=1e-5)


def test_a_loss_without_curvature_has_the_zero_hessian():
    model, (x, y) = nn.Sequential(nn.Flatten(), nn.Linear(192, C)), records()
    vector = {n: torch.ones_like(w) for n, w in open_weights(model).items()}
    product = hessian_product(model, lambda logits, labels: logits.sum(), iter([(x, y)]), vector)
    assert all(not value.any() for value in product.values())


def test_the_layer_of_the_logits_is_found():
    x, _ = records()
    assert logit_layer(made("attention"), x[:1]) == ("head.weight", "head.bias")
    assert logit_layer(nn.Sequential(nn.Flatten(), nn.Linear(192, C), nn.ReLU()), x[:1]) == ()
