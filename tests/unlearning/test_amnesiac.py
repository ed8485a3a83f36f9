"""Amnesiac unlearning: exactly the updates of sensitive batches are taken back, in memory that does not grow."""

import numpy as np
import pytest
import torch
from toy_models import N, mlp_subject, network_subject, request
from twins import accuracy, mean_loss, state, weights

from mnemoscope.audit.errors import InvalidInput, StaleArtifact
from mnemoscope.audit.models.history import History
from mnemoscope.audit.models.training import train_model
from mnemoscope.unlearning import METHODS
from mnemoscope.unlearning.amnesiac import SensitiveUpdates

FORGET = np.arange(60)


def unlearn(method, wanted, *, subject=None, history=None):
    s = mlp_subject() if subject is None else subject
    history = History(np.arange(N), s.seed) if history is None else history
    rng = np.random.default_rng(0)
    return method.unlearn(s.model, wanted, recipe=s.recipe, data=s.data, runtime=s.runtime, rng=rng, history=history)


class Everything:
    """Keeps the weights around every step."""

    def __init__(self):
        self.steps = []

    def before_step(self, module, batch, inputs, rate):
        self.before = weights(module).clone()

    def after_step(self, module, batch):
        self.steps.append((set(batch.positions.tolist()), self.before, weights(module).clone()))


def test_the_updates_of_sensitive_batches_are_taken_back_and_no_others():
    s, seen = mlp_subject(), Everything()
    train_model(s.recipe, s.data, np.arange(N), seed=s.seed, runtime=s.runtime, watcher=seen)
    forget = {7, 101}
    sensitive = [after.double() - before.double() for batch, before, after in seen.steps if batch & forget]
    assert 20 <= len(sensitive) < len(seen.steps) / 2
    expected = (weights(s.model).double() - torch.stack(sensitive).sum(dim=0)).float()
    ours = unlearn(METHODS["amnesiac"](repair_epochs=0), request(sorted(forget)))
    assert torch.equal(weights(ours), expected)


def test_when_every_batch_is_sensitive_the_network_before_its_first_step_is_left():
    s, history = mlp_subject(), History(np.arange(N), mlp_subject().seed)
    ours = unlearn(METHODS["amnesiac"](repair_epochs=0), request(FORGET))
    initial = history.initial(s.recipe, s.data)
    assert torch.allclose(weights(ours), weights(initial), atol=1e-6)
    assert not torch.allclose(weights(ours), weights(s.model), atol=1e-2)


@pytest.mark.slow
def test_repair_brings_back_what_is_retained_and_not_what_is_forgotten():
    s = mlp_subject()
    broken = unlearn(METHODS["amnesiac"](repair_epochs=0), request(FORGET))
    repaired = unlearn(METHODS["amnesiac"](repair_epochs=10), request(FORGET))
    kept = range(60, N)
    assert accuracy(broken, kept) < 0.3
    assert accuracy(repaired, kept) > 0.97
    assert mean_loss(repaired, FORGET) > 5 * mean_loss(s.model, FORGET)


def test_memory_does_not_grow_with_batches():
    s = mlp_subject()
    updates = SensitiveUpdates(torch.arange(N), s.data.ids.size, 1)
    train_model(s.recipe, s.data, np.arange(N), seed=s.seed, runtime=s.runtime, watcher=updates)
    assert updates.batches == 20 * 8
    held = [value for value in vars(updates).values() if isinstance(value, dict | list | tuple)]
    assert sum(map(len, held)) == len(list(s.model.parameters()))


@pytest.mark.slow
def test_running_statistics_stay_and_follow_the_repair():
    s = network_subject("batchnorm")
    plain = unlearn(METHODS["amnesiac"](repair_epochs=0), request([5]), subject=s)
    repaired = unlearn(METHODS["amnesiac"](), request([5]), subject=s)
    for name, value in s.model.named_buffers():
        assert torch.equal(plain.get_buffer(name), value)
        assert not torch.equal(repaired.get_buffer(name), value)


def test_a_history_of_another_model_and_strangers_are_refused():
    with pytest.raises(StaleArtifact, match="another model"):
        unlearn(METHODS["amnesiac"](), request([5]), history=History(np.arange(N), 99))
    with pytest.raises(InvalidInput, match="1 of 1 forget records are not in the model's history"):
        unlearn(METHODS["amnesiac"](), request([5]), history=History(np.arange(6, N), 1))


def test_the_same_deletion_gives_the_same_bits():
    first, second = (unlearn(METHODS["amnesiac"](), request([5])) for _ in range(2))
    assert state(first) == state(second)


@pytest.mark.parametrize("settings", [{"repair_epochs": -1}, {"lr": 0.0}])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(InvalidInput, match=next(iter(settings))):
        METHODS["amnesiac"](**settings)
