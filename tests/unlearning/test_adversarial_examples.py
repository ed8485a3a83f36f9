"""The batched search against a loop over records and against closed forms; bounds, sure models, hopeless ones."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from toy_models import mlp_subject, network_subject

from mnemoscope.audit.errors import AuditError
from mnemoscope.audit.models.architectures import seeded
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.unlearning.adversarial_examples import (
    calibrate_radius,
    input_space,
    linf_examples,
    nearest_adversarial,
)


def frozen(model):
    return copy.deepcopy(model).eval().requires_grad_(False)


def one_by_one(model, data, positions, *, radius, search, steps=50):
    """The paper's algorithm as it stands there, a record at a time, on inputs as they are."""
    found = []
    for position in positions:
        x, y = data.inputs(position[None]), data.y[position[None]]
        size, point = radius, x.clone()
        while True:
            point = x.clone() if search == "restart" else point
            for _ in range(steps):
                point.requires_grad_()
                logits = model(point).double()
                if search == "continue" and logits.argmax() != y:
                    break
                (g,) = torch.autograd.grad(nn.functional.cross_entropy(logits, y), point)
                point = point.detach() + 0.1 * size * g / g.norm()
                away = point - x
                point = x + away * min(1.0, size / float(away.norm()))
            point = point.detach()
            if model(point).argmax() != y:
                break
            size *= 2
        found.append((point[0], int(model(point).argmax()), size))
    return torch.stack([p for p, _, _ in found]), [y for _, y, _ in found], [r for _, _, r in found]


@pytest.mark.parametrize("search", ["restart", "continue"])
def test_batched_search_finds_what_a_loop_over_records_finds(search):
    s = mlp_subject()
    model, positions = frozen(s.model), torch.arange(12)
    x, y, radii = one_by_one(model, s.data, positions, radius=0.2, search=search, steps=12)
    near = nearest_adversarial(model, s.data, positions, radius=0.2, search=search, steps=12, batch_size=5)
    assert near.found.all()
    assert near.y.tolist() == y
    np.testing.assert_allclose(near.radius, radii, rtol=1e-6)
    np.testing.assert_allclose(near.x, x, atol=2e-4)
    np.testing.assert_allclose(near.distance, (x - s.data.inputs(positions)).norm(dim=1), rtol=1e-3)
    assert len(set(radii)) > 1  # each record has a radius of its own


def table(values, labels, classes=2):
    dataset = SimpleNamespace(
        name="table",
        kind="table",
        ids=np.arange(len(values)),
        labels=np.asarray(labels, np.int64),
        classes=tuple(map(str, range(classes))),
        values=np.asarray(values, np.float32),
        source_values=np.asarray(values, np.float32),
    )
    return DeviceData(dataset)


def linear(weights):
    model = nn.Linear(weights.shape[1], weights.shape[0], bias=False)
    model.weight.data = torch.as_tensor(weights, dtype=torch.float32)
    return frozen(model)


@pytest.mark.parametrize("search", ["restart", "continue"])
def test_distances_of_a_linear_model_are_those_of_its_boundary(search):
    draw = np.random.default_rng(0)
    normal = draw.normal(size=6)
    values = draw.uniform(-1, 1, size=(40, 6))
    labels = (values @ normal > 0).astype(int)
    model = linear(np.stack([-normal, normal]))
    near = nearest_adversarial(model, table(values, labels), torch.arange(40), radius=4e-3, steps=20, search=search)
    exact = np.abs(values @ normal) / np.linalg.norm(normal)
    ratio = near.distance.numpy() / exact
    assert near.found.all()
    assert (ratio >= 1 - 1e-4).all()  # no point of another class is nearer
    beyond = exact > 4e-3
    assert (ratio[beyond] <= (2.01 if search == "restart" else 1.2)).all()
    if search == "continue":  # at most one step too far, a tenth of the radius
        assert (near.distance.numpy() <= exact + 0.1 * near.radius.numpy() + 1e-6).all()


def test_a_record_that_the_model_is_sure_of_is_found_where_its_loss_is_flat():
    values, labels = np.array([[0.9, 0.1], [0.1, 0.8]]), [0, 1]
    model = linear(np.array([[1e4, -1e4], [-1e4, 1e4]]))
    data = table(values, labels)
    x = data.inputs(torch.arange(2)).requires_grad_()
    nn.functional.cross_entropy(model(x), data.y).backward()
    assert float(x.grad.abs().max()) == 0.0  # what a search by the plain gradient would see
    near = nearest_adversarial(model, data, torch.arange(2), radius=0.05)
    assert near.found.all()
    np.testing.assert_allclose(near.y, [1, 0])


def test_a_record_that_is_wrong_already_keeps_the_first_radius():
    model = linear(np.array([[1.0, 0.0], [0.0, 1.0]]))
    data = table(np.array([[0.9, 0.1]]), [1])
    near = nearest_adversarial(model, data, torch.arange(1), radius=0.05)
    assert near.found.all()
    assert (near.y.tolist(), near.runs.tolist()) == ([0], [1])
    assert float(near.radius) == pytest.approx(0.05)


def pixels():
    draw = np.random.default_rng(3)
    images = draw.integers(0, 256, size=(16, 8, 8, 3), dtype=np.uint8)
    images[:, :4] = 255
    images[:, 4:6] = 0
    dataset = SimpleNamespace(
        name="cifar10",
        kind="image",
        ids=np.arange(16),
        labels=np.zeros(16, np.int64),
        classes=("a", "b", "c"),
        values=images,
        source_values=images,
    )
    data = DeviceData(dataset)
    with seeded(0):
        model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))
    model = frozen(model)
    data.y = model(data.inputs(torch.arange(16))).argmax(dim=1)
    return model, data


def test_images_of_bytes_stay_in_their_range_and_are_measured_in_it():
    model, data = pixels()
    positions = torch.arange(16)
    space = input_space(data)
    assert torch.allclose(space.enter(data.inputs(positions)), data.x.movedim(-1, 1).float() / 255, atol=1e-6)
    near = nearest_adversarial(model, data, positions, radius=0.04, steps=20)
    raw = (near.x.movedim(1, -1) / data._scale + data._mean) / 255
    assert near.found.all()
    assert bool(((raw >= -1e-5) & (raw <= 1 + 1e-5)).all())
    away = (raw - data.x.float() / 255).flatten(1).norm(dim=1)
    np.testing.assert_allclose(near.distance, away, rtol=1e-3)
    assert (away <= near.radius * (1 + 1e-4)).all()
    touched = (raw - data.x.float() / 255).abs() > 1e-6
    assert bool((raw[touched & (data.x == 0)] > 0).all())  # inwards only


@pytest.mark.parametrize(("steps", "step"), [(1, None), (5, 8 / 255)])
def test_linf_examples_stay_within_the_bound_and_raise_the_loss(steps, step):
    model, data = pixels()
    positions = torch.arange(16)
    batches = list(linf_examples(model, data, positions, bound=0.1, step=step, steps=steps, batch_size=7))
    x, logits = (torch.cat(parts) for parts in zip(*batches, strict=True))
    space = input_space(data)
    away = space.enter(x) - space.enter(data.inputs(positions))
    assert float(away.abs().max()) <= 0.1 + 1e-5
    assert torch.equal(logits, torch.cat([model(part) for part in torch.split(x, 7)]))
    before = nn.functional.cross_entropy(model(data.inputs(positions)), data.y, reduction="none")
    after = nn.functional.cross_entropy(logits, data.y, reduction="none")
    assert (after > before).all()


def test_fgsm_is_one_step_along_the_sign():
    s = network_subject("plain")
    model, positions = frozen(s.model), torch.arange(6)
    x = s.data.inputs(positions).requires_grad_()
    nn.functional.cross_entropy(model(x).double(), s.data.y[positions], reduction="sum").backward()
    expected = x.detach() + 0.1 * x.grad.sign()
    ((got, _),) = linf_examples(model, s.data, positions, bound=0.1)
    assert (torch.isclose(got, expected, atol=1e-6).float().mean()) > 0.99  # signs of gradients near zero may differ


def test_the_calibrated_radius_keeps_the_search_below_three_runs():
    s = mlp_subject()
    model, positions = frozen(s.model), torch.arange(60)
    radius = calibrate_radius(model, s.data, positions, steps=10)
    near = nearest_adversarial(model, s.data, positions, radius=radius, steps=10)
    assert float(near.runs.float().mean()) < 3
    assert float((near.runs <= 3).float().mean()) >= 0.95
    finer = nearest_adversarial(model, s.data, positions, radius=radius / 2, steps=10)
    assert float(finer.runs.float().mean()) >= 3 or float((finer.runs <= 3).float().mean()) < 0.95
    assert float(near.distance.mean()) >= float(finer.distance.mean())


def test_a_model_that_always_says_the_same_has_no_adversarial_examples():
    model = nn.Linear(4, 3)
    model.weight.data.zero_()
    model.bias.data = torch.tensor([5.0, 0.0, 0.0])
    data = table(np.random.default_rng(0).uniform(-1, 1, (5, 4)), np.zeros(5), classes=3)
    near = nearest_adversarial(frozen(model), data, torch.arange(5), radius=0.1, steps=2, doublings=3)
    assert not near.found.any()
    assert near.runs.tolist() == [4] * 5
    assert bool(near.x.isfinite().all())
    with pytest.raises(AuditError, match="no adversarial example of any of 5 records"):
        calibrate_radius(frozen(model), data, torch.arange(5), steps=2)
