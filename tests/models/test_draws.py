"""Noise that belongs to a record is drawn once for many models, in bounded space, and is the same as drawn anew."""

import numpy as np
import pytest
import torch

from mnemoscope.audit.models import draws, inference
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.draws import Drawn, record_normals
from mnemoscope.audit.models.inference import infer_logits
from mnemoscope.audit.models.recipes import Runtime

RUNTIME = Runtime(device="cpu", inference_batch=16)
QUERIES = ("identity", "noise:0.5:0", "noise:0.25:0", "noise:0.5:3")


@pytest.fixture
def drawn(monkeypatch):
    calls = []

    def counted(ids, index, size):
        calls.append((index, ids.numel()))
        return record_normals(ids, index, size)

    monkeypatch.setattr(inference, "record_normals", counted)
    monkeypatch.setattr(inference, "DRAWN", Drawn(1 << 20))
    return calls


def linear(seed):
    torch.manual_seed(seed)
    return torch.nn.Linear(7, 3)


def test_many_models_asked_the_same_draw_once(drawn, dataset_of):
    rows = np.random.default_rng(0).normal(size=(40, 7)).astype(np.float32)
    data, ids = DeviceData(dataset_of(rows, np.arange(40) % 2)), np.arange(40)
    first = [infer_logits(linear(k), data, ids, runtime=RUNTIME, queries=QUERIES) for k in range(3)]
    assert len(drawn) == 9  # three noises, three batches
    for k in range(3):
        inference.DRAWN = Drawn(0)  # nothing kept
        alone = infer_logits(linear(k), data, ids, runtime=RUNTIME, queries=QUERIES)
        np.testing.assert_array_equal(alone, first[k])
    assert len(drawn) == 9 + 27
    part = infer_logits(linear(1), data, ids[5:9], runtime=RUNTIME, queries=QUERIES)
    np.testing.assert_allclose(part, first[1][5:9], rtol=1e-6, atol=1e-6)


def test_kept_noise_may_take_part_in_a_gradient(drawn, dataset_of):
    data = DeviceData(dataset_of(np.ones((6, 7), np.float32), np.arange(6) % 2))
    positions = data.positions(np.arange(6))
    with torch.inference_mode():
        inference.query_inputs(data, positions, inference.parse_query("noise:1:0"))
    asked = inference.query_inputs(data, positions, inference.parse_query("noise:1:0"))
    assert len(drawn) == 1
    model = linear(0)
    model(asked).square().sum().backward()
    assert model.weight.grad.abs().sum() > 0


def test_space_is_bounded_and_emptied_only_when_it_serves_nobody():
    kept, made = Drawn(100), []

    def get(index):
        return kept.get(
            ("noise", index), torch.arange(3), lambda: made.append(index) or torch.full((10,), float(index))
        )

    for _ in range(5):
        for index in range(4):  # of 40 bytes each: two fit
            assert (get(index) == index).all()
    assert made.count(0) == made.count(1) == 1
    assert made.count(2) == made.count(3) == 5
    for index in range(10, 10 + draws.FORGET * 100 // 40 + 2):
        get(index)
    made.clear()
    get(0)
    assert made == [0]
