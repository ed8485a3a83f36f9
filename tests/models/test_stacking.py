import dataclasses

import numpy as np
import pytest
import torch

from mnemoscope.audit.errors import AuditError, InvalidInput
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.recipes import Recipe, Runtime
from mnemoscope.audit.models.stacking import choose_stack, stack_obstacle, train_stacked
from mnemoscope.audit.models.training import train_model

RUNTIME = Runtime(device="cpu")


def lists(n_models, size, total, seed=0):
    rng = np.random.default_rng(seed)
    return [np.sort(rng.choice(total, size, replace=False)) for _ in range(n_models)]


def largest_gap(a, b):
    return max((x - y).detach().abs().max().item() for x, y in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe("mlp:32-16", lr=0.05, epochs=4, batch_size=32, weight_decay=1e-3, label_smoothing=0.1),
        Recipe("mlp:32", optimizer="adamw", lr=0.005, epochs=4, batch_size=32),
        Recipe("small_cnn", lr=0.02, epochs=2, batch_size=32, augmentation="flip-crop"),
    ],
)
def test_stacked_agrees_with_the_loop(recipe, digits):
    data = DeviceData(digits)
    ids, seeds = lists(3, 90, 400), [11, 12, 13]
    stacked = train_stacked(recipe, data, ids, seeds, runtime=RUNTIME)
    for own, seed, result in zip(ids, seeds, stacked, strict=True):
        alone = train_model(recipe, data, own, seed=seed, runtime=RUNTIME)
        assert largest_gap(result.module, alone.module) < 2e-3
        np.testing.assert_allclose(result.loss, alone.loss, rtol=1e-3)
        assert np.array_equal(result.seen_ids, own)
        assert not result.module.training
    assert largest_gap(stacked[0].module, stacked[1].module) > 0.01


def test_stacks_repeat_their_bits_and_do_not_read_global_generators(digits):
    data, recipe = DeviceData(digits), Recipe("mlp:16", lr=0.1, epochs=2, batch_size=32)
    runs = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        runs.append(train_stacked(recipe, data, lists(4, 64, 300), range(4), runtime=RUNTIME))
    for a, b in zip(*runs, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a.module.parameters(), b.module.parameters(), strict=True))


def test_models_of_other_lengths_train_apart_and_come_back_in_order(digits):
    data, recipe = DeviceData(digits), Recipe("mlp:16", lr=0.1, epochs=2, batch_size=32)
    ids = [*lists(2, 64, 300), *lists(1, 50, 300, seed=1), *lists(2, 64, 300, seed=2)]
    results = train_stacked(recipe, data, ids, range(5), runtime=Runtime(device="cpu", stack=3))
    for index, (own, result) in enumerate(zip(ids, results, strict=True)):
        alone = train_model(recipe, data, own, seed=index, runtime=RUNTIME)
        assert np.array_equal(result.seen_ids, own)
        assert largest_gap(result.module, alone.module) < 1e-3


@pytest.mark.slow
def test_what_cannot_be_stacked_says_why_and_trains_one_by_one(colour):
    data = DeviceData(colour)
    recipe = Recipe("resnet18", lr=0.05, epochs=1, batch_size=16)
    assert "buffers (bn1.running_mean" in stack_obstacle(recipe, data)
    assert choose_stack(recipe, data, [20] * 10, runtime=RUNTIME) == 1
    results = train_stacked(recipe, data, lists(2, 16, 200), [0, 1], runtime=RUNTIME)
    alone = train_model(recipe, data, lists(2, 16, 200)[1], seed=1, runtime=RUNTIME)
    assert largest_gap(results[1].module, alone.module) == 0
    bf16 = Recipe("mlp:8", precision="bf16")
    assert "bf16" in stack_obstacle(bf16, data)
    assert stack_obstacle(dataclasses.replace(bf16, precision="fp32"), data) is None


@pytest.mark.slow
def test_the_stack_size_is_measured(digits, monkeypatch):
    from mnemoscope.audit.models import stacking

    data, recipe = DeviceData(digits), Recipe("mlp:16", lr=0.1, epochs=2, batch_size=32)
    assert choose_stack(recipe, data, [64] * 10, runtime=Runtime(device="cpu", stack=5)) == 5
    assert choose_stack(recipe, data, [64, 65, 66], runtime=RUNTIME) == 1
    tried = []

    def timed(per_model):
        def seconds(recipe, data, ids, size, runtime):
            tried.append(size)
            return size * per_model[size]

        return seconds

    monkeypatch.setattr(stacking, "_seconds", timed({1: 1.0, 8: 0.5, 10: 0.4}))
    assert choose_stack(recipe, data, [64] * 10, runtime=RUNTIME) == 10
    assert set(tried) == {1, 8, 10}
    monkeypatch.setattr(stacking, "_seconds", timed({1: 1.0, 8: 0.95, 10: 0.9}))
    assert choose_stack(recipe, data, [64] * 10, runtime=RUNTIME) == 1
    monkeypatch.undo()
    assert choose_stack(recipe, data, [64] * 10, runtime=RUNTIME) in (1, 8, 10)


def test_faults_are_named(digits):
    data, recipe = DeviceData(digits), Recipe("mlp:16", lr=0.1, epochs=2, batch_size=32)
    with pytest.raises(InvalidInput, match="2 lists of ids for 3 seeds"):
        train_stacked(recipe, data, lists(2, 64, 300), range(3), runtime=RUNTIME)
    with pytest.raises(AuditError, match="seed 0"):
        train_stacked(dataclasses.replace(recipe, lr=1e25), data, lists(2, 64, 300), range(2), runtime=RUNTIME)
