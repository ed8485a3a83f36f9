"""AMUN: its update written out plainly, what it reads, and that it moves forget records towards retraining."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from toy_models import N, mlp_subject, network_subject
from toy_models import request as deletion

from mnemoscope.audit.answers.signals import compute_signal
from mnemoscope.audit.errors import AuditError, InvalidInput
from mnemoscope.audit.models.inference import infer_logits
from mnemoscope.audit.models.training import fit
from mnemoscope.audit.records.request import Request
from mnemoscope.unlearning import METHODS
from mnemoscope.unlearning.adversarial_examples import nearest_adversarial

FAST = {"steps": 10, "radius": 0.2}


def unlearn(method, request, *, subject=None, model=None, recipe=None, seed=0):
    s = subject or mlp_subject()
    rng = np.random.default_rng(seed)
    return method.unlearn(
        s.model if model is None else model, request, recipe=recipe or s.recipe, data=s.data, runtime=s.runtime, rng=rng
    )


def loss(model, ids, subject=None):
    s = subject or mlp_subject()
    labels = s.data.y[s.data.positions(np.asarray(ids))].numpy()
    return -compute_signal("negative_loss", infer_logits(model, s.data, np.asarray(ids), runtime=s.runtime), labels)


def state(model):
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("retained", [True, False])
@pytest.mark.parametrize("forgotten", [True, False])
def test_it_trains_on_the_named_sets_with_the_pairs_of_the_search(retained, forgotten):
    s = mlp_subject()
    recipe = dataclasses.replace(s.recipe, batch_size=1000, momentum=0.9, weight_decay=1e-3)
    request = deletion(range(40))
    method = METHODS["amun"](epochs=3, decay_every=2, lr=0.05, retained=retained, forgotten=forgotten, **FAST)
    got = unlearn(method, request, recipe=recipe)

    twin = copy.deepcopy(s.model).train()
    frozen = copy.deepcopy(s.model).eval().requires_grad_(False)
    rows = s.data.positions(request.forget)
    near = nearest_adversarial(frozen, s.data, rows, radius=0.2, steps=10)
    ids = np.concatenate([np.empty(0, np.int64), *[request.retain] * retained, *[request.forget] * forgotten])
    real = s.data.positions(ids)
    x = torch.cat([s.data.inputs(real), near.x])
    y = torch.cat([s.data.y[real], near.y])
    assert (near.y != s.data.y[rows]).all()
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    for epoch in range(3):
        optimizer.param_groups[0]["lr"] = 0.05 if epoch < 2 else 0.005
        optimizer.zero_grad()
        nn.functional.cross_entropy(twin(x), y).backward()
        optimizer.step()
    for a, b in zip(got.parameters(), twin.parameters(), strict=True):
        np.testing.assert_allclose(a.detach(), b.detach(), atol=2e-5)


@pytest.mark.parametrize("retained", [True, False])
def test_the_examples_move_forget_records_towards_what_retraining_makes_of_them(retained):
    s, request = mlp_subject(), deletion(range(60))
    retrained = loss(unlearn(METHODS["retrain"](), request), request.forget).mean()
    before = loss(s.model, request.forget).mean()
    model = unlearn(METHODS["amun"](retained=retained, search="continue", steps=20, radius=0.1), request)
    after = loss(model, request.forget).mean()
    assert before < after < retrained  # less sure of them, though it was trained on them with their labels
    assert loss(model, request.retain).mean() < 0.02
    # The same training without the examples makes it surer of them instead:
    again, recipe = copy.deepcopy(s.model), dataclasses.replace(s.recipe, schedule="constant")
    ids = np.union1d(request.forget, request.retain) if retained else request.forget
    fit(again, recipe, s.data, ids, seed=0, runtime=s.runtime, epochs=10, lr=recipe.lr / 10)
    assert loss(again, request.forget).mean() < before


def test_a_second_request_searches_on_the_model_that_the_first_one_left():
    s = mlp_subject()
    method = METHODS["amun"](epochs=2, retained=False, forgotten=False, lr=0.05, **FAST)
    first = unlearn(method, deletion(range(30)))
    request = Request("records", np.arange(30, 60), np.arange(60, N), np.empty(0, np.int64))
    again = unlearn(method, request, model=first)
    frozen = copy.deepcopy(first).eval().requires_grad_(False)
    stale = copy.deepcopy(s.model).eval().requires_grad_(False)
    rows = s.data.positions(request.forget)
    now, then = (nearest_adversarial(m, s.data, rows, radius=0.2, steps=10) for m in (frozen, stale))
    assert not torch.allclose(now.x, then.x)
    with torch.no_grad():
        taught = nn.functional.cross_entropy(again(now.x), now.y) - nn.functional.cross_entropy(first(now.x), now.y)
    assert taught < 0


def test_without_retained_records_running_statistics_stay_and_a_single_record_can_go():
    s = network_subject("batchnorm")
    request = Request("records", np.array([3]), np.empty(0, np.int64), np.empty(0, np.int64))
    for forgotten in (True, False):
        method = METHODS["amun"](epochs=2, forgotten=forgotten, **FAST)
        model = unlearn(method, request, subject=s)
        for place, value in model.named_buffers():
            assert torch.equal(value, s.model.get_buffer(place)), place
        assert state(model) != state(s.model)
    whole = unlearn(METHODS["amun"](epochs=1, **FAST), deletion(range(5)), subject=s)
    assert any(not torch.equal(value, s.model.get_buffer(place)) for place, value in whole.named_buffers())


def test_with_a_saliency_mask_the_other_weights_stay_where_they_are():
    s = mlp_subject()
    recipe = dataclasses.replace(s.recipe, momentum=0.9, weight_decay=1e-2)
    model = unlearn(METHODS["amun"](epochs=2, keep=0.3, **FAST), deletion(range(40)), recipe=recipe)
    moved = [a != b for a, b in zip(model.parameters(), s.model.parameters(), strict=True)]
    share = sum(int(part.sum()) for part in moved) / sum(part.numel() for part in moved)
    assert 0.2 < share <= 0.3


def test_examples_are_not_augmented(monkeypatch):
    s = network_subject("plain")
    recipe = dataclasses.replace(s.recipe, augmentation="flip-crop")
    seen = []
    answer = type(s.model).forward

    def forward(self, x):
        if self.training:
            seen.append(x.detach().clone())
        return answer(self, x)

    monkeypatch.setattr(type(s.model), "forward", forward)
    unlearn(METHODS["amun"](epochs=1, **FAST), deletion(range(20)), subject=s, recipe=recipe)
    frozen = copy.deepcopy(s.model).eval().requires_grad_(False)
    near = nearest_adversarial(frozen, s.data, torch.arange(20), radius=0.2, steps=10)
    rows = torch.cat(seen)
    assert rows.shape[0] == N + 20

    def there(images):
        return [bool((rows - image).flatten(1).abs().amax(dim=1).lt(1e-4).any()) for image in images]

    assert all(there(near.x))
    assert np.mean(there(s.data.inputs(torch.arange(N)))) < 0.2


def test_a_model_without_adversarial_examples_is_refused():
    s = mlp_subject()
    dull = copy.deepcopy(s.model)
    for weight in dull.parameters():
        weight.data.zero_()
    list(dull.parameters())[-1].data[3] = 5.0
    threes = np.flatnonzero(s.data.y[:N].numpy() == 3)[:5]
    request = Request("records", threes, np.empty(0, np.int64), np.empty(0, np.int64))
    for radius in (None, 0.1):
        with pytest.raises(AuditError, match="adversarial"):
            unlearn(METHODS["amun"](steps=2, radius=radius), request, model=dull)


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": -1},
        {"lr": 0.0},
        {"decay": 0.0},
        {"decay_every": 0},
        {"search": "wide"},
        {"radius": -1.0},
        {"steps": 0},
        {"keep": 0.0},
    ],
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(InvalidInput, match=next(iter(settings))):
        METHODS["amun"](**settings)
