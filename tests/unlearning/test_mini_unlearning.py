"""Our reading of Mini-Unlearning: the last steps again without the forget records, exact and estimated."""

import copy
import functools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from toy_models import RUNTIME, N, digits, mlp_subject
from toy_models import request as deletion

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.models.architectures import seeded
from mnemoscope.audit.models.history import History
from mnemoscope.audit.models.inference import infer_logits
from mnemoscope.audit.models.recipes import Recipe, learning_rate
from mnemoscope.audit.models.training import BatchStream, fresh_model, make_optimizer, train_model
from mnemoscope.unlearning.mini_unlearning_reading import MiniUnlearning, hessian_product

SGD = Recipe("mlp:32", lr=0.1, epochs=6, batch_size=32, weight_decay=1e-3, nesterov=True)
ADAMW = Recipe("mlp:32", optimizer="adamw", lr=3e-3, epochs=6, batch_size=32, weight_decay=0.1)
FORGET = np.arange(0, 60)


@functools.cache
def trained(recipe, seed=2):
    return train_model(recipe, digits(), np.arange(N), seed=seed, runtime=RUNTIME).module


def unlearn(method, recipe, forget=FORGET, *, model=None, data=None, seed=2):
    return method.unlearn(
        model or trained(recipe),
        deletion(forget),
        recipe=recipe,
        data=data or digits(),
        runtime=RUNTIME,
        rng=np.random.default_rng(0),
        history=History(np.arange(N), seed),
    )


def flat(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def replayed(recipe, first, forget=FORGET, *, data=None, seed=2):
    """The training loop written out, without the forget records from step ``first`` on."""
    data = data or digits()
    module = fresh_model(recipe, data, seed=seed).train()
    optimizer = make_optimizer(recipe, list(module.parameters()))
    stream, step = BatchStream(data, np.arange(N), recipe, seed), 0
    for _ in range(recipe.epochs):
        for batch in stream.epoch():
            keep = [p for p in batch.positions.tolist() if step < first or p not in forget]
            if not keep:
                step += 1
                continue
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe, step, recipe.epochs * stream.steps)
            loss = nn.functional.cross_entropy(module(data.inputs(torch.tensor(keep))), data.y[keep])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
    return module


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [SGD, ADAMW], ids=["sgd", "adamw"])
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_with_every_gradient_computed_it_is_the_training_without_the_records(recipe, share):
    found = unlearn(MiniUnlearning(share=share, exact_every=1), recipe)
    expected = replayed(recipe, 48 - round(share * 48))
    torch.testing.assert_close(flat(found), flat(expected), rtol=1e-4, atol=2e-5)
    assert (flat(found) - flat(trained(recipe))).norm() > 0.01


@pytest.mark.slow
def test_estimated_gradients_come_close_to_computed_ones_on_a_convex_problem():
    def build(seed):
        with seeded(seed):
            return nn.Linear(64, 10)

    data = copy.copy(digits())
    data.subject = SimpleNamespace(digest="linear", build=build, has_transform=False)
    recipe = Recipe("subject", subject="linear", lr=0.05, momentum=0.9, epochs=10, batch_size=60, weight_decay=1e-2)
    model = train_model(recipe, data, np.arange(N), seed=2, runtime=RUNTIME).module
    target = flat(replayed(recipe, 0, data=data))
    start = (flat(model) - target).norm()
    with_product, without = (
        unlearn(MiniUnlearning(share=1.0, exact_every=every, pairs=2), recipe, model=model, data=data)
        for every in (5, 10_000)
    )
    assert (flat(with_product) - target).norm() < 0.1 * start
    with pytest.MonkeyPatch.context() as patch:
        place = "mnemoscope.unlearning.mini_unlearning_reading.hessian_product"
        patch.setattr(place, lambda pairs, vector: torch.zeros_like(vector))
        plain = unlearn(MiniUnlearning(share=1.0, exact_every=5), recipe, model=model, data=data)
    assert (flat(with_product) - target).norm() < 0.7 * (flat(plain) - target).norm()
    assert torch.isfinite(flat(without)).all()


def test_the_product_is_that_of_the_bfgs_recursion():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(6, 6))
    hessian = root @ root.T + np.eye(6)
    pairs = [(s, hessian @ s) for s in rng.normal(size=(3, 6))]
    s, y = pairs[-1]
    dense = np.eye(6) * (s @ y) / (s @ s)
    for s, y in pairs:
        moved = dense @ s
        dense = dense - np.outer(moved, moved) / (s @ moved) + np.outer(y, y) / (s @ y)
    vector = rng.normal(size=6)
    given = [tuple(torch.from_numpy(part) for part in pair) for pair in pairs]
    found = hessian_product(given, torch.from_numpy(vector)).numpy()
    np.testing.assert_allclose(found, dense @ vector, rtol=1e-9)
    np.testing.assert_allclose(hessian_product(given, given[-1][0]).numpy(), pairs[-1][1], rtol=1e-9)  # secant
    assert not hessian_product([], torch.ones(6)).any()


@pytest.mark.slow
def test_a_longer_part_comes_nearer_to_training_without_the_records():
    target = flat(replayed(SGD, 0))
    away = [float((flat(unlearn(MiniUnlearning(share=share), SGD)) - target).norm()) for share in (0.0, 0.5, 1.0)]
    assert away[2] < away[1] < away[0]
    assert away[2] < 0.6 * away[0]
    nothing = unlearn(MiniUnlearning(share=0.0), SGD)
    assert torch.equal(flat(nothing), flat(trained(SGD)))


def test_most_gradients_are_not_computed_on_retained_records():
    passes = []
    with pytest.MonkeyPatch.context() as patch:
        from mnemoscope.unlearning import mini_unlearning_reading

        plain = mini_unlearning_reading._Replay._gradient
        patch.setattr(
            mini_unlearning_reading._Replay,
            "_gradient",
            lambda self, module, batch, rows, *, still: (
                passes.append(still),
                plain(self, module, batch, rows, still=still),
            )[1],
        )
        unlearn(MiniUnlearning(share=0.5, exact_first=3, exact_every=5), SGD)
    exact = sum(1 for still in passes if not still)
    assert exact == 3 + len([step for step in range(3, 24) if step % 5 == 0])


@pytest.mark.slow
def test_batches_of_forget_records_alone_make_no_step():
    recipe = Recipe("mlp:16", lr=0.1, epochs=3, batch_size=2)
    forget = np.arange(0, 200)
    found = unlearn(MiniUnlearning(share=1.0, exact_every=1), recipe, forget)
    torch.testing.assert_close(flat(found), flat(replayed(recipe, 0, forget)), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_wrong_labels_are_forgotten_and_estimates_that_went_wrong_are_not_trusted():
    """Learned by heart at a high rate: where every estimate is taken as it comes, retained records are lost."""
    data = copy.copy(digits())
    data.y = digits().y.clone()
    data.y[:20] = (data.y[:20] + 1) % 10
    recipe = Recipe(architecture="mlp:64", lr=0.2, epochs=40, batch_size=32, schedule="constant")
    model = train_model(recipe, data, np.arange(N), seed=3, runtime=RUNTIME).module

    def after(**settings):
        return unlearn(MiniUnlearning(share=0.8, **settings), recipe, np.arange(20), model=model, data=data, seed=3)

    def right(module, ids):
        logits = infer_logits(module, data, ids, runtime=RUNTIME)[:, 0]
        loss = nn.functional.cross_entropy(torch.from_numpy(logits), data.y[ids])
        return (logits.argmax(1) == data.y[ids].numpy()).mean(), float(loss)

    forget, retain = np.arange(20), np.arange(20, N)
    checked, trusting, computed = after(), after(tolerance=1e9), after(exact_every=1)
    assert right(model, forget)[0] > 0.9
    assert right(checked, forget)[0] < 0.3
    assert right(checked, retain)[0] > 0.95
    assert right(trusting, retain)[1] > 10 * right(checked, retain)[1]
    assert (flat(trusting) - flat(computed)).norm() > 2 * (flat(checked) - flat(computed)).norm() + 1


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [SGD, ADAMW], ids=["sgd", "adamw"])
def test_on_a_network_estimates_stay_near_the_replay_with_every_gradient(recipe):
    half, computed = (unlearn(MiniUnlearning(share=0.5, exact_every=every), recipe) for every in (5, 1))
    assert not torch.equal(flat(half), flat(computed))
    assert (flat(half) - flat(computed)).norm() < 0.2 * (flat(trained(recipe)) - flat(computed)).norm()


def test_impossible_settings_are_refused():
    for wrong in ({"share": 1.5}, {"tolerance": 0.0}, {"exact_first": 0}, {"exact_every": 0}, {"pairs": 0}):
        with pytest.raises(InvalidInput, match=next(iter(wrong))):
            MiniUnlearning(**wrong)
    s = mlp_subject()
    with pytest.raises(InvalidInput, match="DP-SGD"):
        unlearn(MiniUnlearning(), replace(s.recipe, dp_clip=1.0), model=s.model)
