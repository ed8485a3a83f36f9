"""Canaries: new records of their own, everything else untouched; coins that are fair, independent and recorded."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.records.canaries import PREFIX, canary_design, one_run_inclusion, plant_canaries
from mnemoscope.audit.records.datasets import Dataset, load_dataset
from mnemoscope.audit.records.design import Role, random_design
from mnemoscope.audit.records.index import value_digests
from mnemoscope.audit.records.raw import Raw


def table(n=60, d=4, classes=("a", "b", "c")):
    rng = np.random.default_rng(0)
    values = rng.normal(5, 3, (n, d)).astype(np.float32)
    return Dataset.from_raw(
        Raw("toy", values, tuple(f"row/{i}" for i in range(n)), np.arange(n) % len(classes), classes)
    )


def colour(n=40):
    values = np.random.default_rng(1).integers(0, 256, (n, 6, 6, 3), dtype=np.uint8)
    return Dataset.from_raw(Raw("cifar10", values, tuple(f"x/{i}" for i in range(n)), np.arange(n) % 2, ("a", "b")))


SOURCES = np.array([31, 2, 17])


@pytest.mark.parametrize("data", [table(), colour(), load_dataset("digits")], ids=["table", "colour", "digits"])
@pytest.mark.parametrize("kind", ["gaussian", "mislabelled"])
def test_canaries_are_new_records_and_nothing_else_changes(data, kind):
    n = len(data.keys)
    planted = plant_canaries(data, SOURCES, kind=kind, scale=2.0 if kind == "gaussian" else None, seed=4)
    after = planted.dataset
    assert planted.ids.tolist() == [n, n + 1, n + 2]
    assert planted.sources.tolist() == [2, 17, 31]
    assert after.keys_of(planted.ids) == tuple(PREFIX + key for key in data.keys_of(planted.sources))
    assert (after.name, after.kind, after.classes, after.derived) == (data.name, data.kind, data.classes, 3)
    for field in ("values", "labels", "digests"):
        assert np.array_equal(getattr(after, field)[:n], getattr(data, field))
        assert getattr(after, field).dtype == getattr(data, field).dtype
    names = [after.classes[k] for k in after.labels[planted.ids].tolist()]
    assert np.array_equal(after.digests[planted.ids], value_digests(after.values[planted.ids], names))
    assert len({bytes(row) for row in after.digests[planted.ids]} & {bytes(row) for row in data.digests}) == 0
    changes = after.changed_since(data.index)
    assert changes.added == after.keys_of(planted.ids)
    assert [changes.removed, changes.altered, changes.moved, changes.classes] == [(), (), (), ""]
    same_label = after.labels[planted.ids] == data.labels[planted.sources]
    assert same_label.all() if kind == "gaussian" else not same_label.any()
    assert bool(planted.noise().any()) == (kind == "gaussian")


def test_keys_of_stored_models_change_with_the_canaries():
    data = table()
    digests = {
        data.digest,
        plant_canaries(data, SOURCES, scale=1.0, seed=0).dataset.digest,
        plant_canaries(data, SOURCES, scale=1.0, seed=1).dataset.digest,
        plant_canaries(data, SOURCES, scale=2.0, seed=0).dataset.digest,
        plant_canaries(data, SOURCES[:2], scale=1.0, seed=0).dataset.digest,
        plant_canaries(data, SOURCES, kind="mislabelled", seed=0).dataset.digest,
    }
    assert len(digests) == 6
    planted = plant_canaries(data, SOURCES, scale=1.0, seed=0).dataset
    assert planted.digest == plant_canaries(data, SOURCES, scale=1.0, seed=0).dataset.digest
    # The same records from a source of their own are normalised otherwise, so they are other data.
    assert replace(planted, derived=0).digest != planted.digest


@pytest.mark.parametrize("data", [table(), colour(), load_dataset("digits")], ids=["table", "colour", "digits"])
def test_no_other_record_is_normalised_otherwise(data):
    planted = plant_canaries(data, np.arange(30), scale=100.0, seed=0)
    before, after = DeviceData(data), DeviceData(planted.dataset)
    assert before.constants == after.constants
    assert torch.equal(before.inputs(before.positions(data.ids)), after.inputs(after.positions(data.ids)))
    as_if_own = DeviceData(replace(planted.dataset, derived=0))
    if data.kind == "table":
        assert as_if_own.constants != before.constants  # what planting would do, were canaries counted


def test_a_table_that_needs_no_scaling_still_needs_none():
    rows = (np.random.default_rng(2).random((30, 5)) < 0.5).astype(np.float32)
    data = Dataset.from_raw(Raw("bits", rows, tuple(map(str, range(30))), np.arange(30) % 2, ("a", "b")))
    planted = plant_canaries(data, np.arange(10), scale=3.0, seed=0)
    assert np.abs(planted.dataset.values).max() > 1
    assert DeviceData(planted.dataset).constants is None


def test_noise_is_what_was_asked_in_floats():
    data = table(n=600)
    planted = plant_canaries(data, np.arange(500), scale=[0.5, 1.0, 2.0, 4.0], seed=0)
    noise = planted.noise()
    assert noise.std(axis=0) == pytest.approx([0.5, 1.0, 2.0, 4.0], rel=0.1)
    assert np.abs(noise.mean(axis=0)).max() < 0.6
    assert planted.rms[1] == pytest.approx(planted.rms[0], rel=1e-6)
    assert planted.clipped == 0
    assert "rounded" not in planted.note


def test_bytes_are_rounded_and_clipped_and_it_is_said():
    data = colour(300)
    planted = plant_canaries(data, np.arange(300), scale=40.0, seed=0)
    values, sources = planted.dataset.values[planted.ids].astype(int), data.values.astype(int)
    assert np.array_equal(planted.noise(), values - sources)
    clipped = ((values == 0) & (sources > 0)) | ((values == 255) & (sources < 255))
    assert planted.clipped == pytest.approx(clipped.mean(), abs=0.02)
    assert 0.1 < planted.clipped < 0.25
    assert planted.rms[0] == pytest.approx(40, rel=0.02)
    assert planted.rms[1] == pytest.approx(np.sqrt((planted.noise() ** 2).mean()))
    assert planted.rms[1] < planted.rms[0] - 2  # what clipping took away
    assert "rounded to whole bytes" in planted.note
    assert f"{planted.clipped:.1%} of values cut off" in planted.note
    flat = replace(data, values=np.full_like(data.values, 128))
    gentle = plant_canaries(flat, np.arange(300), scale=10.0, seed=0)
    assert gentle.clipped == 0
    assert gentle.rms[1] == pytest.approx(10, rel=0.02)


def test_scale_in_units_of_the_models_inputs():
    data = colour(200)
    constants = DeviceData(data).constants
    assert constants is not None
    planted = plant_canaries(
        replace(data, values=np.full_like(data.values, 128)),
        np.arange(200),
        scale=[0.1 * std for std in constants[1]],
        seed=0,
    )
    device = DeviceData(planted.dataset)
    inputs = device.inputs(device.positions(planted.ids)) - device.inputs(device.positions(planted.sources))
    assert inputs.std(dim=(0, 2, 3)).tolist() == pytest.approx([0.1] * 3, rel=0.05)


def test_a_canary_depends_on_its_own_source_alone():
    data = table()
    all_three = plant_canaries(data, SOURCES, scale=1.0, seed=3)
    alone = plant_canaries(data, SOURCES[:1], scale=1.0, seed=3)
    assert np.array_equal(all_three.dataset.values[all_three.ids[2]], alone.dataset.values[alone.ids[0]])
    one_after_the_other = plant_canaries(alone.dataset, np.array([2]), scale=1.0, seed=3)
    assert one_after_the_other.dataset.derived == 2
    assert one_after_the_other.ids.tolist() == [61]
    assert np.array_equal(one_after_the_other.dataset.values[61], all_three.dataset.values[all_three.ids[0]])


def test_wrong_labels_are_drawn_from_all_other_classes():
    data = table(n=300)
    planted = plant_canaries(data, np.arange(300), kind="mislabelled", seed=0)
    labels = planted.dataset.labels[planted.ids]
    counts = np.bincount(labels * 3 + data.labels, minlength=9).reshape(3, 3)
    assert (np.diag(counts) == 0).all()
    assert (counts[~np.eye(3, dtype=bool)] > 30).all()
    gap = replace(data, classes=("a", "b", "c", "no record has it"))
    assert plant_canaries(gap, np.arange(50), kind="mislabelled", seed=0).dataset.labels.max() == 2


def test_coins_are_fair_independent_and_of_each_id_alone():
    ids = np.arange(5000)
    coins = one_run_inclusion(ids, seed=1)
    assert abs(coins.included.mean() - 0.5) < 4 * 0.5 / np.sqrt(5000)
    pairs = coins.included[:-1] ^ coins.included[1:]
    assert abs(pairs.mean() - 0.5) < 4 * 0.5 / np.sqrt(5000)
    other = one_run_inclusion(ids, seed=2)
    assert abs((coins.included ^ other.included).mean() - 0.5) < 4 * 0.5 / np.sqrt(5000)
    some = np.array([4000, 17, 3])
    picked = one_run_inclusion(some, seed=1)
    assert picked.ids.tolist() == [3, 17, 4000]
    assert np.array_equal(picked.included, coins.included[[3, 17, 4000]])
    assert coins.digest == one_run_inclusion(ids[::-1], seed=1).digest
    assert len({coins.digest, other.digest, picked.digest}) == 3


def test_the_number_in_is_binomial_and_not_fixed():
    """One-run bounds need independent coins: a random half of fixed size is another design."""
    counts = [int(one_run_inclusion(np.arange(100), seed=s).included.sum()) for s in range(400)]
    assert np.var(counts) == pytest.approx(25, rel=0.3)


def test_a_design_gives_canaries_their_roles():
    data = load_dataset("digits")
    planted = plant_canaries(data, np.arange(200), kind="mislabelled", seed=0)
    pools = {"background": np.arange(200, 900), "population": np.arange(900, 1000), "test": np.arange(1000, 1300)}
    design = canary_design(planted, **pools, n_models=4, seed=7)
    assert design.ids.size == 1997
    assert np.array_equal(design.audited, planted.ids)
    for model in range(4):
        assert np.array_equal(design.records(model, Role.BACKGROUND), pools["background"])
        inside, outside = design.records(model, Role.FORGOTTEN), design.records(model, Role.NEVER)
        assert np.array_equal(np.sort(np.concatenate([inside, outside])), planted.ids)
        assert 60 < inside.size < 140
        assert (design.role[model, planted.sources] == Role.UNUSED).all()
    assert len({design.role[model].tobytes() for model in range(4)}) == 4
    assert len({design.records(model, Role.FORGOTTEN).size for model in range(4)}) > 1
    again = canary_design(planted, **pools, n_models=4, seed=7)
    assert again.digest == design.digest != canary_design(planted, **pools, n_models=4, seed=8).digest
    kept = canary_design(planted, **pools, included=Role.KEPT, seed=7)
    assert kept.n_models == 1
    assert not (kept.role == Role.FORGOTTEN).any()


def test_canaries_play_in_a_fleet_of_random_roles():
    planted = plant_canaries(load_dataset("digits"), np.arange(60), scale=2.0, seed=0)
    design = random_design(
        planted.dataset.labels, n_models=6, audited=planted.ids, background=np.arange(60, 160), seed=0
    )
    assert np.array_equal(design.audited, planted.ids)
    assert ((design.roles_of(planted.ids) == Role.FORGOTTEN).sum(axis=0) == 2).all()


def test_bad_input_is_refused():
    data = table()
    good = plant_canaries(data, SOURCES, scale=1.0, seed=0)
    for ids, message in (
        (np.array([1, 1]), "named twice"),
        (np.array([], int), "at least one"),
        (np.array([99]), "unknown"),
        (np.array([0.5]), "whole numbers"),
    ):
        with pytest.raises(InvalidInput, match=message):
            plant_canaries(data, ids, scale=1.0, seed=0)
    for scale in (None, 0.0, -1.0, np.nan, np.inf, [1.0, 2.0]):
        with pytest.raises(InvalidInput, match="raw units"):
            plant_canaries(data, SOURCES, scale=scale, seed=0)
    with pytest.raises(InvalidInput, match="carry no noise"):
        plant_canaries(data, SOURCES, kind="mislabelled", scale=1.0, seed=0)
    with pytest.raises(InvalidInput, match="allowed: gaussian, mislabelled"):
        plant_canaries(data, SOURCES, kind="copy", scale=1.0, seed=0)
    with pytest.raises(InvalidInput, match="canaries themselves: canary:row/2"):
        plant_canaries(good.dataset, good.ids[:1], scale=1.0, seed=0)
    with pytest.raises(InvalidInput, match="have a canary already: row/2"):
        plant_canaries(good.dataset, np.array([2, 3]), scale=1.0, seed=0)
    with pytest.raises(InvalidInput, match="one class only"):
        plant_canaries(replace(data, labels=np.zeros(60, np.int64)), SOURCES, kind="mislabelled", seed=0)
    with pytest.raises(InvalidInput, match="background holds 1 sources"):
        canary_design(good, background=np.array([2, 5]), seed=0)
    with pytest.raises(InvalidInput, match="what is in is trained on"):
        canary_design(good, background=np.array([5]), included=Role.NEVER, seed=0)
    with pytest.raises(InvalidInput, match="share"):
        canary_design(good, background=np.array([5, 6]), test=np.array([6]), seed=0)
    for ids in (np.array([1, 1]), np.array([], int), np.array([1.5])):
        with pytest.raises(InvalidInput, match="ids"):
            one_run_inclusion(ids, seed=0)
    with pytest.raises(InvalidInput, match="derived=61"):
        replace(data, derived=61)


def test_a_table_of_zeros_and_ones_takes_the_whole_noise():
    """Kept as bytes, 44 % of the noise on such a table was cut off, and none was left at a tenth of a deviation."""
    rows = (np.random.default_rng(3).random((200, 30)) < 0.3).astype(np.uint8)
    data = Dataset.from_raw(Raw("bits", rows, tuple(f"row/{i}" for i in range(200)), np.arange(200) % 2, ("a", "b")))
    planted = plant_canaries(data, np.arange(50), scale=0.05, seed=1)
    assert planted.clipped == 0
    assert planted.rms[1] == pytest.approx(planted.rms[0], rel=1e-3)
    assert planted.noise().std() == pytest.approx(0.05, rel=0.1)
    assert planted.noise().mean() == pytest.approx(0, abs=4 * 0.05 / 1500**0.5)
    before, after = DeviceData(data), DeviceData(planted.dataset)
    assert torch.equal(before.inputs(torch.arange(200)), after.inputs(torch.arange(200)))
    assert planted.dataset.changed_since(data.index).altered == ()


def test_noise_that_rounding_swallows_is_refused():
    with pytest.raises(InvalidInput, match="3 of 3 canaries equal their sources"):
        plant_canaries(colour(), SOURCES, scale=0.01, seed=0)
