"""Influence methods: equal to their formulas written out, and right where the theory is exact."""

import copy
import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from toy_models import N, mlp_subject
from toy_models import request as deletion
from twins import unlearn

from mnemoscope.audit.errors import AuditError, InvalidInput, UnsupportedModel
from mnemoscope.audit.models.architectures import seeded
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.recipes import Recipe, Runtime
from mnemoscope.audit.records.request import Request
from mnemoscope.unlearning import METHODS

DECAY = 0.05


def flat(model):
    return torch.cat([w.detach().flatten() for w in model.parameters()])


def gradient(model, x, y):
    loss = nn.functional.cross_entropy(model(x), y)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


def of(subject, ids):
    positions = subject.data.positions(np.asarray(ids))
    return subject.data.inputs(positions), subject.data.y[positions]


def mean_loss(model, subject, ids):
    x, y = of(subject, ids)
    return float(nn.functional.cross_entropy(model(x), y).detach())


def fitted(x, y, decay=DECAY):
    """The minimum of a softmax regression's mean loss plus decay / 2 |w|^2."""
    model = nn.Linear(x.shape[1], 3).double()
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    solver = torch.optim.LBFGS(model.parameters(), max_iter=500, tolerance_grad=1e-12, tolerance_change=0,
                               line_search_fn="strong_wolfe")  # fmt: skip

    def loss():
        solver.zero_grad()
        value = nn.functional.cross_entropy(model(x), y)
        value = value + decay / 2 * sum(w.square().sum() for w in model.parameters())
        value.backward()
        return value

    solver.step(loss)
    return model


def regression(n=150, wrong=0):
    """A strongly convex subject at its minimum: softmax regression with weight decay."""
    draw = torch.Generator().manual_seed(3)
    values = torch.rand(n, 4, generator=draw)
    labels = (values @ torch.randn(4, 3, generator=draw)).argmax(dim=1)
    right = labels.clone()
    labels[:wrong] = (labels[:wrong] + 1) % 3
    held = SimpleNamespace(
        name="toy",
        kind="table",
        ids=np.arange(n),
        labels=labels.numpy(),
        classes=("a", "b", "c"),
        values=values.numpy(),
        source_values=values.numpy(),
    )
    model = fitted(values.double(), labels).float()
    recipe = Recipe("subject", subject="toy", weight_decay=DECAY, batch_size=32)
    return SimpleNamespace(
        model=model, recipe=recipe, data=DeviceData(held), runtime=Runtime(device="cpu", threads=1), x=values, y=labels
    ), right


def asking(kind, forget, n=150, **more):
    retain = np.setdiff1d(np.arange(n), forget)
    return Request(kind, np.asarray(forget, np.int64), retain, np.empty(0, np.int64), **more)


# WoodFisher's two vectors


def test_the_influence_step_is_the_published_recursion_over_vectors():
    # Large weights and gradients: those of a model that knows its records are so small that k stays v.
    own = copy.deepcopy(mlp_subject().model)
    for weight in own.parameters():
        weight.data = 4 * weight.data.roll(1)
    s, request = dataclasses.replace(mlp_subject(), model=own), deletion(range(60))
    model, m = copy.deepcopy(s.model).double(), 40
    double = [(x.double(), y) for x, y in (of(s, request.forget), of(s, request.retain))]
    both = (torch.cat([x for x, _ in double]), torch.cat([y for _, y in double]))
    v = gradient(model, *both) - gradient(model, *double[1])
    # The formula's own weights: (1/N) sum over D_f - N_f / (N N_r) sum over D_r.
    weighed = (60 * gradient(model, *double[0])) / N - 60 / (N * 180) * 180 * gradient(model, *double[1])
    torch.testing.assert_close(v, weighed)
    chosen = np.random.default_rng(0)
    chosen.integers(2**63)  # the seed that the base draws before
    records = chosen.choice(request.retain, size=m, replace=False)
    o, k = None, v.clone()
    for record in records:
        x, y = of(s, [record])
        g = gradient(model, x.double(), y)
        if o is None:
            o = g
            continue
        t = o @ g
        k = k - (k @ g) / (m + t) * o
        o = o - t / (m + t) * o
    got = unlearn(METHODS["influence"](alpha=1.0, records=m), request, subject=s)
    moved = (flat(got) - flat(s.model)).double()
    assert float((moved - k).norm()) < 1e-4 * float(k.norm())
    assert float((k - v).norm()) > 0.02 * float(v.norm())  # the recursion does something


@pytest.mark.parametrize(("name", "alpha"), [("influence", 30.0), ("influence_exact", 3.0)])
def test_influence_climbs_the_forget_loss_and_spares_the_retained(name, alpha):
    s, request = mlp_subject(), deletion(range(60))
    after = unlearn(METHODS[name](alpha=alpha), request)
    rise = {ids: mean_loss(after, s, getattr(request, ids)) - mean_loss(s.model, s, getattr(request, ids))
            for ids in ("forget", "retain")}  # fmt: skip
    assert rise["forget"] > 0.02
    assert rise["forget"] > 3 * rise["retain"]


# Exact Hessian


def test_the_exact_step_arrives_at_the_retained_records_minimum():
    s, _ = regression()
    forget = np.arange(15)
    request = asking("records", forget)
    retrained = fitted(s.x[15:].double(), s.y[15:])
    got = unlearn(METHODS["influence_exact"](damping=0.0, tolerance=1e-8), request, subject=s)
    before, after = (float((flat(m).double() - flat(retrained)).norm()) for m in (s.model, got))
    assert after < 0.05 * before


def test_the_exact_step_is_the_dense_solution():
    s, request = mlp_subject(), deletion(range(60))
    for weight in list(s.model.parameters())[:2]:  # the last layer alone: 650 weights
        weight.requires_grad_(False)
    try:
        got = unlearn(METHODS["influence_exact"](damping=0.05, tolerance=1e-6), request)
    finally:
        s.model.requires_grad_(True)
    model = copy.deepcopy(s.model).double()
    features = [
        (torch.relu(model[1](model[0](x.double()))), y) for x, y in (of(s, request.forget), of(s, request.retain))
    ]
    (h_f, y_f), (h_r, y_r) = features
    head = [w.detach().requires_grad_() for w in model[-1].parameters()]

    def loss(h, y, w, b):
        return nn.functional.cross_entropy(h @ w.T + b, y)

    def grads(h, y):
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss(h, y, *head), head)])

    v = 60 / N * (grads(h_f, y_f) - grads(h_r, y_r))
    blocks = torch.autograd.functional.hessian(lambda w, b: loss(h_r, y_r, w, b), tuple(head))
    sizes = [w.numel() for w in head]
    dense = torch.cat([torch.cat([b.reshape(r, c) for b, c in zip(row, sizes, strict=True)], dim=1)
                       for row, r in zip(blocks, sizes, strict=True)])  # fmt: skip
    step = torch.linalg.solve(dense + 0.05 * torch.eye(len(dense), dtype=torch.float64), v)
    moved = (flat(got) - flat(s.model)).double()
    assert not moved[: -sum(sizes)].any()
    torch.testing.assert_close(moved[-sum(sizes) :], step, rtol=1e-3, atol=1e-6)


def test_negative_curvature_raises_the_damping_instead_of_climbing():
    from mnemoscope.unlearning.influence_exact import conjugate_gradients

    bend = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    v = {"w": torch.ones(3, dtype=torch.float64)}

    def solve(damping):
        return conjugate_gradients(
            lambda p: {"w": bend * p["w"]}, v, damping=damping, tolerance=1e-10, iterations=10, what="toy"
        )

    solution, curvature = solve(0.1)
    assert solution is None
    assert -0.9 <= curvature < 0
    solution, _ = solve(1.5)
    torch.testing.assert_close(solution["w"], 1 / (bend + 1.5))
    found = METHODS["influence_exact"](damping=0.1, tolerance=1e-10)._solve(lambda p: {"w": bend * p["w"]}, v)["w"]
    assert (found > 0).all()  # down the loss in every direction
    with pytest.raises(AuditError, match="iterations"):
        METHODS["influence_exact"](iterations=1, damping=1.5)._solve(lambda p: {"w": bend * p["w"]}, v)


def test_large_models_are_refused_by_the_exact_step():
    with pytest.raises(UnsupportedModel, match="max_weights=100"):
        unlearn(METHODS["influence_exact"](max_weights=100), deletion(range(60)))


# Features, labels, records


def test_the_first_order_step_is_a_difference_of_summed_gradients():
    s, request = mlp_subject(), deletion(range(40), kind="features", features=np.arange(16), value=0.5)
    got = unlearn(METHODS["influence_first_order"](tau=0.01), request)
    x, y = of(s, request.forget)
    put = x.clone()
    put[:, :16] = 0.5
    expected = -0.01 * 40 * (gradient(s.model, put, y) - gradient(s.model, x, y))
    torch.testing.assert_close(flat(got) - flat(s.model), expected, rtol=1e-3, atol=1e-6)


def test_only_the_last_tensors_change():
    s, request = mlp_subject(), deletion(range(40))
    for name in ("influence_first_order", "influence_second_order"):
        got = unlearn(METHODS[name](tensors=2), request)
        changed = [not torch.equal(a, b) for a, b in zip(got.parameters(), s.model.parameters(), strict=True)]
        assert changed == [False, False, True, True]


def long(**settings):
    return METHODS["influence_second_order"](
        **{"iterations": 300, "batch_size": 1000, "damping": 0.0, "patience": 500, **settings}
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["records", "labels", "features"])
def test_the_second_order_step_arrives_at_the_corrected_records_minimum(kind):
    """Where the loss is convex, LiSSA's step is Newton's: near the model that was fitted to the corrected data."""
    s, right = regression(wrong=15)
    forget = np.arange(15)
    x, y = s.x.double(), s.y.clone()
    more = {}
    if kind == "labels":
        y, more = right, {"labels": right[:15].numpy()}
    if kind == "features":
        x, more = x.clone(), {"features": np.array([1]), "value": 0.0}
        x[:15, 1] = 0.0
    if kind == "records":
        x, y = x[15:], y[15:]
    # A deletion keeps the scale of a sum: the decay of the sum over those that are left.
    target = fitted(x, y)
    got = unlearn(long(), asking(kind, forget, **more), subject=s)
    before, after = (float((flat(m).double() - flat(target)).norm()) for m in (s.model, got))
    first = unlearn(METHODS["influence_first_order"](tau=0.02), asking(kind, forget, **more), subject=s)
    middle = float((flat(first).double() - flat(target)).norm())
    assert after < 0.35 * before
    assert after < middle < before


@pytest.mark.slow
def test_lissa_solves_the_damped_system():
    s, _ = regression()
    request = asking("records", np.arange(15))
    got = unlearn(long(scale=200.0, damping=0.005), request, subject=s)
    model = copy.deepcopy(s.model).double()
    x, y = s.x.double(), s.y
    shape = (3, 4)

    def loss(w):
        logits = x[15:] @ w[:12].reshape(shape).T + w[12:]
        return nn.functional.cross_entropy(logits, y[15:], reduction="sum") + 135 * DECAY / 2 * w.square().sum()

    dense = torch.autograd.functional.hessian(loss, flat(model)) + 0.005 * 200 * torch.eye(15, dtype=torch.float64)
    expected = torch.linalg.solve(dense, 15 * gradient(model, x[:15], y[:15]))
    torch.testing.assert_close((flat(got) - flat(s.model)).double(), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_batches_of_lissa_agree_with_the_whole():
    s, _ = regression()
    request = asking("records", np.arange(15))
    whole = flat(unlearn(long(), request, subject=s)) - flat(s.model)
    parts = flat(unlearn(long(batch_size=45, repetitions=3), request, subject=s)) - flat(s.model)
    assert float((parts - whole).norm()) < 0.2 * float(whole.norm())


def test_a_scale_below_the_largest_eigenvalue_is_noticed():
    s, _ = regression()
    with pytest.raises(AuditError, match="scale=0.1"):
        unlearn(long(scale=0.1, patience=5000), asking("records", np.arange(15)), subject=s)


def test_correct_labels_come_back():
    s = mlp_subject()
    _, labels = of(s, np.arange(N))
    wrong = (labels.numpy()[:20] + 1) % 10
    data = copy.copy(s.data)
    data.y = s.data.y.clone()
    data.y[:20] = torch.from_numpy(wrong)
    from mnemoscope.audit.models.training import train_model

    model = train_model(s.recipe, data, np.arange(N), seed=4, runtime=s.runtime).module
    poisoned = dataclasses.replace(s, model=model, data=data)
    request = deletion(range(20), kind="labels", labels=labels.numpy()[:20])
    before = mean_loss(model, s, np.arange(20))
    for name, settings in (("influence_first_order", {"tau": 0.02}), ("influence_second_order", {"iterations": 50})):
        after = mean_loss(unlearn(METHODS[name](**settings), request, subject=poisoned), s, np.arange(20))
        assert after < 0.9 * before


@pytest.mark.parametrize("name", ["influence", "influence_exact", "influence_first_order"])
def test_a_step_of_no_length_gives_the_same_bits(name):
    s = mlp_subject()
    length = {"tau": 0.0} if name == "influence_first_order" else {"alpha": 0.0}
    got = unlearn(METHODS[name](**length), deletion(range(60)))
    assert all(torch.equal(a, b) for a, b in zip(got.parameters(), s.model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("influence", {"alpha": -1.0}),
        ("influence", {"records": 0}),
        ("influence_exact", {"damping": -0.1}),
        ("influence_exact", {"tolerance": 1.0}),
        ("influence_exact", {"max_weights": 0}),
        ("influence_first_order", {"tau": float("inf")}),
        ("influence_first_order", {"tensors": 0}),
        ("influence_second_order", {"damping": 1.0}),
        ("influence_second_order", {"iterations": 0}),
        ("influence_second_order", {"scale": 0.0}),
    ],
)
def test_impossible_settings_are_refused(name, settings):
    with pytest.raises(InvalidInput, match=next(iter(settings))):
        METHODS[name](**settings)


def test_the_seed_of_a_model_is_not_touched():
    with seeded(5):
        expected = torch.rand(3)
    with seeded(5):
        unlearn(METHODS["influence"](records=5), deletion(range(60)))
        assert torch.equal(torch.rand(3), expected)
