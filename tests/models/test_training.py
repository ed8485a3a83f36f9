import copy
import dataclasses
import random

import numpy as np
import pytest
import torch
from torch import nn

from mnemoscope.audit.errors import AuditError, InvalidInput, UnsupportedModel
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.recipes import RECIPES, Recipe, Runtime, learning_rate
from mnemoscope.audit.models.training import BatchStream, fit, fresh_model, train_model

RUNTIME = Runtime(device="cpu")
SHORT = Recipe("mlp:16", lr=0.1, epochs=3, batch_size=32)
IDS = np.arange(100, 200)


def bits(module):
    return [tensor.clone() for tensor in module.state_dict().values()]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


class Spy(DeviceData):
    """Notes which positions were turned into inputs: an account independent of the trainer's own."""

    def inputs(self, positions, *, flip=None, shift=None):
        self.asked = [*getattr(self, "asked", []), positions.clone()]
        return super().inputs(positions, flip=flip, shift=shift)


def test_same_seed_same_bits_whatever_came_before(digits):
    data = DeviceData(digits)
    first = train_model(SHORT, data, IDS, seed=3, runtime=RUNTIME)
    torch.manual_seed(99)
    random.seed(99)
    train_model(SHORT, data, np.arange(50), seed=4, runtime=RUNTIME)
    again = train_model(SHORT, data, IDS[::-1], seed=3, runtime=RUNTIME)
    other = train_model(SHORT, data, IDS, seed=5, runtime=RUNTIME)
    assert same(bits(first.module), bits(again.module))
    assert first.loss == again.loss
    assert not same(bits(first.module), bits(other.module))
    assert not first.module.training


def test_global_generators_are_left_as_they_were(colour):
    data = DeviceData(colour)
    recipe = dataclasses.replace(SHORT, architecture="small_cnn", augmentation="flip-crop", epochs=1)
    before = torch.random.get_rng_state()
    train_model(recipe, data, np.arange(40), seed=0, runtime=RUNTIME)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_dropout_is_part_of_the_seed(digits):
    data = DeviceData(digits)
    start = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))
    runs = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        runs.append(bits(train_model(SHORT, data, IDS, seed=3, runtime=RUNTIME, init=start).module))
    assert same(*runs)
    assert not same(runs[0], bits(train_model(SHORT, data, IDS, seed=4, runtime=RUNTIME, init=start).module))


def test_peer_defect_4_membership_is_what_the_optimiser_saw(digits):
    """Row 4 (LeakPro example): members held out by the trainer were reported as trained on."""
    data = Spy(digits)
    module = fresh_model(SHORT, data, seed=0)
    seen = fit(module, SHORT, data, IDS, seed=0, runtime=RUNTIME, max_steps=2)
    used = data.ids[torch.cat(data.asked).unique().numpy()]
    faulty = np.sort(IDS)  # a copy of the argument

    def check(claimed):
        assert np.array_equal(claimed, used)

    check(seen)
    assert 0 < seen.size < IDS.size
    with pytest.raises(AssertionError):
        check(faulty)
    assert fit(module, SHORT, data, IDS, seed=0, runtime=RUNTIME, epochs=0).size == 0
    assert np.array_equal(train_model(SHORT, data, IDS, seed=0, runtime=RUNTIME).seen_ids, np.sort(IDS))


def test_every_record_is_in_one_batch_of_an_epoch(digits):
    data = DeviceData(digits)
    stream = BatchStream(data, np.arange(101), SHORT, seed=0)
    batches = stream.epoch()
    sizes = [batch.positions.numel() for batch in batches]
    assert sorted(torch.cat([b.positions for b in batches]).tolist()) == list(range(101))
    assert len(sizes) == 4
    assert max(sizes) <= 32
    assert max(sizes) - min(sizes) <= 1


def rates_used(recipe, data, monkeypatch, **options):
    used = []
    step = torch.optim.SGD.step

    def noting(self, *args, **kwargs):
        used.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", noting)
    fit(fresh_model(recipe, data, seed=0), recipe, data, IDS, seed=0, runtime=RUNTIME, **options)
    return np.array(used)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "multistep"])
def test_peer_defect_9_schedule_follows_its_formula(schedule, digits, monkeypatch):
    """Row 9 (Privacy Meter): the decay of 0.1 was applied twice. torch's own schedulers are the oracle."""
    milestones = (0.5, 0.75) if schedule == "multistep" else ()
    recipe = Recipe("mlp:4", lr=0.2, schedule=schedule, milestones=milestones, epochs=5, batch_size=25)
    used = rates_used(recipe, DeviceData(digits), monkeypatch)
    steps = 20
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.2)
    make = {
        "constant": lambda: torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0),
        "cosine": lambda: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps),
        "multistep": lambda: torch.optim.lr_scheduler.MultiStepLR(optimizer, [10, 15], 0.1),
    }
    scheduler = make[schedule]()
    oracle = []
    for _ in range(steps):
        oracle.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(used, oracle, rtol=1e-12, atol=1e-15)
    if schedule == "multistep":
        passed = np.array([sum(s >= m * steps for m in milestones) for s in range(steps)])
        faulty = 0.2 * 0.1 ** (2 * passed)
        with pytest.raises(AssertionError):
            np.testing.assert_allclose(faulty, oracle, rtol=1e-12)


def test_warmup_rises_then_the_schedule_spans_the_rest():
    recipe = Recipe("mlp:4", lr=1.0, schedule="cosine", warmup=0.25)
    rates = [learning_rate(recipe, step, 8) for step in range(8)]
    expected = [0.5, 1.0, *(0.5 * (1 + np.cos(np.pi * u / 6)) for u in range(6))]
    np.testing.assert_allclose(rates, expected)


def test_overridden_epochs_and_rate_stretch_the_schedule(digits, monkeypatch):
    recipe = Recipe("mlp:4", lr=0.2, epochs=5, batch_size=50)
    used = rates_used(recipe, DeviceData(digits), monkeypatch, epochs=2, lr=0.02)
    np.testing.assert_allclose(used, [0.02 * 0.5 * (1 + np.cos(np.pi * t / 4)) for t in range(4)])


def test_ascent_raises_the_loss_and_descent_lowers_it(digits):
    data = DeviceData(digits)
    start = train_model(SHORT, data, IDS, seed=0, runtime=RUNTIME).module

    def loss(module):
        with torch.no_grad():
            positions = data.positions(IDS)
            return float(nn.functional.cross_entropy(module(data.inputs(positions)), data.y[positions]))

    up, down = copy.deepcopy(start), copy.deepcopy(start)
    fit(up, SHORT, data, IDS, seed=1, runtime=RUNTIME, loss_sign=-1.0, epochs=1, lr=0.01)
    fit(down, SHORT, data, IDS, seed=1, runtime=RUNTIME, epochs=1, lr=0.01)
    assert loss(up) > loss(start) > loss(down)


def test_frozen_normalisation_keeps_its_statistics(colour):
    data = DeviceData(colour)
    start = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 4)).eval()
    recipe = Recipe("mlp:1", lr=0.1, epochs=1, batch_size=16)
    frozen, moving = copy.deepcopy(start), copy.deepcopy(start)
    fit(frozen, recipe, data, np.arange(40), seed=0, runtime=RUNTIME, freeze_norm=True)
    fit(moving, recipe, data, np.arange(40), seed=0, runtime=RUNTIME)
    assert torch.equal(frozen[1].running_mean, start[1].running_mean)
    assert not torch.equal(moving[1].running_mean, start[1].running_mean)
    assert not torch.equal(frozen[1].weight, start[1].weight)
    assert not any(part.training for part in frozen.modules())


def test_init_is_copied_and_left_alone(digits):
    data = DeviceData(digits)
    start = fresh_model(SHORT, data, seed=7)
    before = bits(start)
    trained = train_model(SHORT, data, IDS, seed=0, runtime=RUNTIME, init=start)
    assert same(before, bits(start))
    assert not same(before, bits(trained.module))


def test_divergence_is_named(digits):
    recipe = dataclasses.replace(SHORT, lr=1e20, schedule="constant")
    with pytest.raises(AuditError, match=r"diverged.*epoch 1 .*seed 6, lr 1e\+20"):
        train_model(recipe, DeviceData(digits), IDS, seed=6, runtime=RUNTIME)


@pytest.mark.parametrize(
    ("ids", "message"),
    [([], "list of ids is empty"), ([1, 2, 2], "given twice, e.g. 2"), ([1, 5000], "5000")],
)
def test_bad_ids_are_refused(ids, message, digits):
    with pytest.raises(InvalidInput, match=message):
        train_model(SHORT, DeviceData(digits), np.array(ids, dtype=np.int64), seed=0, runtime=RUNTIME)


def test_models_without_trainable_weights_and_tables_with_flips_are_refused(digits, dataset_of):
    data = DeviceData(digits)
    frozen = fresh_model(SHORT, data, seed=0).requires_grad_(False)
    with pytest.raises(UnsupportedModel, match="nothing to train"):
        fit(frozen, SHORT, data, IDS, seed=0, runtime=RUNTIME)
    table = DeviceData(dataset_of(np.zeros((10, 3), np.float32), np.arange(10) % 2))
    with pytest.raises(InvalidInput, match="augmentation='flip'"):
        train_model(dataclasses.replace(SHORT, augmentation="flip"), table, np.arange(10), seed=0, runtime=RUNTIME)


def test_bf16_trains_close_to_fp32(colour):
    data = DeviceData(colour)
    recipe = Recipe("small_cnn", lr=0.05, epochs=2, batch_size=50)
    runs = [
        train_model(dataclasses.replace(recipe, precision=p), data, np.arange(100), seed=0, runtime=RUNTIME)
        for p in ("fp32", "bf16")
    ]
    assert runs[0].loss != runs[1].loss
    np.testing.assert_allclose(runs[0].loss, runs[1].loss, rtol=0.02)
    assert all(p.dtype == torch.float32 for p in runs[1].module.parameters())


@pytest.mark.parametrize(
    ("field", "value"),
    [("optimizer", "lion"), ("lr", 0.0), ("lr", float("nan")), ("momentum", 1.0), ("batch_size", 0), ("warmup", 1.0),
     ("epochs", -1), ("milestones", (0.5,)), ("subject", "sha256:0"), ("precision", "fp16"), ("label_smoothing", 1.0),
     ("dp_clip", -1.0), ("dp_clip", float("inf")), ("dp_noise", 1.0), ("dp_noise", float("nan"))],
)  # fmt: skip
def test_recipes_refuse_what_they_cannot_do(field, value):
    with pytest.raises(InvalidInput, match=f"{field}="):
        dataclasses.replace(SHORT, **{field: value})


def test_recipes_are_json_and_every_field_is_in_the_key():
    import json

    for recipe in RECIPES.values():
        parts = json.loads(json.dumps(recipe.key_parts()))
        assert set(parts) == {field.name for field in dataclasses.fields(Recipe)} - {"dp_noise", "dp_clip"}
        assert Recipe(**parts) == recipe
    private = dataclasses.replace(SHORT, dp_noise=1.0, dp_clip=0.5)
    assert set(private.key_parts()) == {field.name for field in dataclasses.fields(Recipe)}
    assert Recipe(**private.key_parts()) == private


def test_runtime_resolves_once_and_refuses_absent_devices():
    assert Runtime(device="cpu").torch_device() == torch.device("cpu")
    with pytest.raises(InvalidInput, match="device='toaster'"):
        Runtime(device="toaster").torch_device()
    with pytest.raises(InvalidInput, match="threads=0"):
        Runtime(threads=0)
    with Runtime(threads=2).scope():
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 1
