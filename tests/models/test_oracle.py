"""Live access: the same answers as recorded ones, counted, and refused where the adversary has less."""

import numpy as np
import pytest
import torch
from torch import nn

from mnemoscope.audit.errors import AuditError, InvalidInput, MissingNeed, UnsupportedModel
from mnemoscope.audit.models.architectures import build_model
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.inference import infer_logits
from mnemoscope.audit.models.oracle import ModelOracle, reinitialised
from mnemoscope.audit.models.recipes import Runtime

RUNTIME = Runtime(device="cpu", inference_batch=32)
IDS = np.array([5, 100, 3, 77, 42], np.int64)


@pytest.fixture
def data(colour):
    return DeviceData(colour)


@pytest.fixture
def cnn():
    return build_model("small_cnn", input_shape=(3, 8, 8), n_classes=4, seed=0)


def test_answers_are_the_recorded_ones_and_every_input_counts(data, cnn):
    oracle = ModelOracle(cnn, data, RUNTIME)
    ids = np.arange(100, dtype=np.int64)[::-1].copy()
    inputs = oracle.inputs(ids)
    logits = oracle.logits(inputs)
    assert np.array_equal(logits.numpy(), infer_logits(cnn, data, ids, runtime=RUNTIME)[:, 0])
    assert torch.equal(oracle.predict(inputs[:7]), logits[:7].argmax(dim=1))
    assert (oracle.predictions, oracle.gradients) == (107, 0)
    oracle.count_gradients(3)
    assert oracle.gradients == 3
    assert torch.equal(oracle.labels(IDS), data.y[torch.from_numpy(IDS)])
    assert not logits.requires_grad


def test_the_first_question_for_the_classes_is_not_counted(data, cnn):
    oracle = ModelOracle(cnn, data, RUNTIME)
    assert (oracle.n_classes, oracle.predictions) == (4, 0)


def test_models_answer_in_eval_mode_and_are_loaded_when_asked(data):
    loads = []

    def load():
        loads.append(1)
        return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(192), nn.Dropout(0.9), nn.Linear(192, 4)).train()

    oracle = ModelOracle(load, data, RUNTIME)
    assert not loads
    assert not oracle.module().training
    assert len(loads) == 1
    kept = load()
    one = ModelOracle(kept, data, RUNTIME)
    inputs = one.inputs(IDS)
    assert torch.allclose(one.logits(inputs)[:1], one.logits(inputs[:1]), atol=1e-6)


def test_what_the_adversary_lacks_is_refused(data, cnn):
    black = ModelOracle(cnn, data, RUNTIME, white_box=False)
    labels = ModelOracle(cnn, data, RUNTIME, white_box=False, labels_only=True)
    with pytest.raises(MissingNeed, match="parameters"):
        black.module()
    with pytest.raises(MissingNeed, match="labels only"):
        labels.logits(labels.inputs(IDS))
    assert labels.predictions == 0
    assert torch.equal(labels.predict(labels.inputs(IDS)), black.logits(black.inputs(IDS)).argmax(dim=1))
    with pytest.raises(InvalidInput, match="labels_only=True, white_box=True"):
        ModelOracle(cnn, data, RUNTIME, labels_only=True)
    with pytest.raises(InvalidInput, match="no inputs"):
        black.logits(black.inputs(IDS)[:0])
    with pytest.raises(InvalidInput, match="not held"):
        black.inputs(np.array([10_000]))


class Shaped(nn.Module):
    def forward(self, x):
        return x.mean(dim=(2, 3))[:, None]


class Broken(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :4] * torch.inf


def test_answers_that_cannot_be_used_are_named(data):
    shaped = ModelOracle(Shaped(), data, RUNTIME)
    with pytest.raises(UnsupportedModel, match=r"\(5, 1, 3\) for 5 records"):
        shaped.logits(shaped.inputs(IDS))
    broken = ModelOracle(Broken(), data, RUNTIME)
    with pytest.raises(AuditError, match="5 of 5 inputs are not finite"):
        broken.predict(broken.inputs(IDS))


def test_what_is_recalled_is_computed_once_and_read_only(data, cnn):
    oracle, calls = ModelOracle(cnn, data, RUNTIME), []

    def compute():
        calls.append(1)
        return np.array([1.0, 2.0])

    first = oracle.recall("key", compute)
    assert oracle.recall("key", compute) is first
    assert calls == [1]
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 3.0
    assert oracle.recall("other", lambda: np.zeros(1)).shape == (1,)


def test_a_fresh_module_has_the_architecture_and_none_of_the_weights(data, cnn):
    weights = {name: value.clone() for name, value in cnn.state_dict().items()}
    state = torch.get_rng_state()
    oracle = ModelOracle(cnn, data, RUNTIME, white_box=False)
    first, again, other = oracle.fresh_module(1), oracle.fresh_module(1), oracle.fresh_module(2)
    for name, value in cnn.state_dict().items():
        assert torch.equal(value, weights[name])
        assert torch.equal(first.state_dict()[name], again.state_dict()[name])
        assert not torch.equal(first.state_dict()[name], value)
        assert not torch.equal(first.state_dict()[name], other.state_dict()[name])
    assert torch.equal(state, torch.get_rng_state())
    made = ModelOracle(cnn, data, RUNTIME, fresh=lambda seed: nn.Linear(seed, 4)).fresh_module(9)
    assert made.in_features == 9


def test_statistics_of_a_batch_norm_do_not_survive_a_fresh_start():
    norm = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    norm(torch.randn(50, 3) * 7)
    assert torch.equal(reinitialised(norm, 0)[1].running_mean, torch.zeros(3))


def test_a_layer_that_cannot_draw_weights_is_named():
    class Free(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(2))

    with pytest.raises(UnsupportedModel, match=r"layer 'part' \(Free\)"):
        reinitialised(nn.ModuleDict({"part": Free()}), 0)
