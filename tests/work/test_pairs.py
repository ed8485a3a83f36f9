"""Originals and versions on real digits: who is trained on what, what noise is left, and a fleet with other seeds."""

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.special import softmax

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.inference import infer_logits
from mnemoscope.audit.models.recipes import Recipe, Runtime
from mnemoscope.audit.models.training import train_model
from mnemoscope.audit.records.datasets import load_dataset
from mnemoscope.audit.records.pairs import PairsDesign, pairs_design
from mnemoscope.audit.rng import child_seed
from mnemoscope.audit.work import pairs
from mnemoscope.audit.work.pairs import answer_pairs
from mnemoscope.audit.work.store import Store

RECIPE = Recipe("mlp:16", lr=0.1, epochs=3, batch_size=32)
RUNTIME = Runtime(device="cpu", threads=1)


@pytest.fixture(scope="module")
def data() -> DeviceData:
    return DeviceData(load_dataset("digits"), "cpu")


@pytest.fixture(scope="module")
def design() -> PairsDesign:
    return pairs_design(
        load_dataset("digits").labels, originals=2, versions=3, group=2, records=100, controls=1, seed=1
    )


@pytest.mark.slow
def test_answers_are_those_of_the_models_of_the_design(data: DeviceData, design: PairsDesign) -> None:
    answers = answer_pairs(design, RECIPE, data, runtime=replace(RUNTIME, stack=1), seed=4)
    assert answers.before.shape == answers.after.shape == (16, 6, 10)
    assert answers.before.dtype == np.float32
    labels = load_dataset("digits").labels
    assert np.array_equal(answers.labels, labels[design.asked])
    for v in (0, 7, 13):
        o = int(design.original[v])
        for ids, seed, found in (
            (design.train[o], child_seed(4, "pairs", "original", o, 0), answers.before[v]),
            (design.training_ids(v), child_seed(4, "pairs", "version", v, 0), answers.after[v]),
        ):
            model = train_model(RECIPE, data, ids, seed=seed, runtime=RUNTIME).module
            assert np.array_equal(infer_logits(model, data, design.asked[v], runtime=RUNTIME)[:, 0], found)


@pytest.mark.slow
def test_accuracy_is_of_members_and_of_records_that_no_model_saw(data: DeviceData, design: PairsDesign) -> None:
    learned = replace(RECIPE, epochs=30)
    answers = answer_pairs(design, learned, data, runtime=RUNTIME, seed=4)
    assert answers.accuracy.shape == (4, 2)
    assert (answers.accuracy[:, 0] > 0.9).all()
    assert answers.accuracy[:, 1].mean() > 0.6
    for o in (0, 3):
        seed = child_seed(4, "pairs", "original", o, 0)
        model = train_model(learned, data, design.train[o], seed=seed, runtime=RUNTIME).module
        never = np.unique(design.never[design.half[design.original] == design.half[o]])
        for column, ids in enumerate((design.train[o], never)):
            said = infer_logits(model, data, ids, runtime=RUNTIME)[:, 0].argmax(axis=-1)
            right = said == load_dataset("digits").labels[ids]
            assert answers.accuracy[o, column] == pytest.approx(right.mean(), abs=0.021)


@pytest.mark.slow
def test_a_stack_gives_the_same_answers_within_rounding(data: DeviceData, design: PairsDesign) -> None:
    told = []
    alone = answer_pairs(design, RECIPE, data, runtime=replace(RUNTIME, stack=1), seed=4)
    together = answer_pairs(
        design, RECIPE, data, runtime=RUNTIME, seed=4, progress=lambda done, total: told.append((done, total))
    )
    assert np.allclose(alone.before, together.before, atol=1e-3)
    assert np.allclose(alone.after, together.after, atol=1e-3)
    assert told[-1] == (20, 20)


def test_memory_holds_one_stack_of_models(
    data: DeviceData, design: PairsDesign, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    real = pairs.train_stacked

    def noted(recipe, data, ids, seeds, *, runtime):  # type: ignore[no-untyped-def]
        sizes.append(len(ids))
        return real(recipe, data, ids, seeds, runtime=runtime)

    monkeypatch.setattr(pairs, "train_stacked", noted)
    answer_pairs(design, RECIPE, data, runtime=replace(RUNTIME, stack=3), seed=4)
    assert max(sizes) == 3
    assert sum(sizes) == 20


@pytest.mark.slow
def test_the_same_seed_and_whole_batches_leave_nothing_but_the_deletion(data: DeviceData, design: PairsDesign) -> None:
    """Then controls answer as their originals do, bit by bit, and a new seed moves every answer farther."""
    whole = replace(RECIPE, batch_size=100, epochs=20)
    same = answer_pairs(design, whole, data, runtime=replace(RUNTIME, stack=1), seed=4, seeds="same")
    new = answer_pairs(design, whole, data, runtime=replace(RUNTIME, stack=1), seed=4, seeds="new")
    assert np.array_equal(same.before, new.before)
    assert np.array_equal(same.before[~design.removed], same.after[~design.removed])
    moved = [np.abs(softmax(a.before, -1) - softmax(a.after, -1)).mean() for a in (same, new)]
    assert 0 < moved[0] < 0.5 * moved[1]
    control = ~design.removed
    assert np.abs(softmax(new.before, -1) - softmax(new.after, -1))[control].mean() > moved[0]


@pytest.mark.slow
def test_sisa_averages_posteriors_and_retrains_touched_shards_alone(data: DeviceData, design: PairsDesign) -> None:
    shards = 5
    answers = answer_pairs(design, RECIPE, data, runtime=replace(RUNTIME, stack=1), seed=4, shards=shards)
    shard_of = pairs._deal(design, shards, 4)
    assert sorted(np.bincount(shard_of[0]).tolist()) == [20] * 5
    v = 2
    o = int(design.original[v])
    before, after, touched = [], [], 0
    for s in range(shards):
        ids = design.train[o][shard_of[o] == s]
        first = train_model(RECIPE, data, ids, seed=child_seed(4, "pairs", "original", o, s), runtime=RUNTIME).module
        logits = infer_logits(first, data, design.asked[v], runtime=RUNTIME)[:, 0].astype(np.float64)
        before.append(softmax(logits, axis=-1))
        hit = np.isin(ids, design.named[v])
        touched += bool(hit.any())
        if hit.any():
            seed = child_seed(4, "pairs", "version", v, s)
            again = train_model(RECIPE, data, ids[~hit], seed=seed, runtime=RUNTIME).module
            logits = infer_logits(again, data, design.asked[v], runtime=RUNTIME)[:, 0].astype(np.float64)
        after.append(softmax(logits, axis=-1))
    assert 1 <= touched <= 2
    assert np.exp(answers.before[v]) == pytest.approx(np.mean(before, axis=0), abs=1e-6)
    assert np.exp(answers.after[v]) == pytest.approx(np.mean(after, axis=0), abs=1e-6)


def test_settings_that_cannot_be_are_refused(data: DeviceData, design: PairsDesign) -> None:
    with pytest.raises(InvalidInput, match="seeds='old' is unknown; allowed: new, same"):
        answer_pairs(design, RECIPE, data, runtime=RUNTIME, seed=0, seeds="old")  # type: ignore[arg-type]
    for shards in (0, 34):
        with pytest.raises(InvalidInput, match=f"shards={shards}.*use 1 to 33"):
            answer_pairs(design, RECIPE, data, runtime=RUNTIME, seed=0, shards=shards)


def test_a_fleet_trained_again_differs_by_the_seed_alone(small: ModuleType, trained: Path) -> None:
    """The control of the difference games: "before", replica B, with nothing deleted and nothing else changed."""
    work = small.workspace(Store(trained))
    first, again = work.orders("before"), work.orders("before", replica="B")
    assert not {order.key for order in first} & {order.key for order in again}
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a.ids, b.ids)
        assert np.array_equal(a.forget, b.forget)
        assert a.seed != b.seed
        assert {**a.inputs, "seed": None} == {**b.inputs, "seed": None}
    stacked = [small.workspace(Store(trained), stack=3).orders("before", replica=r) for r in ("A", "B")]
    for a, b in zip(*stacked, strict=True):
        stacks = [dict(order.inputs["stack"], members=None) for order in (a, b)]  # made of ids and seeds
        assert stacks[0] == stacks[1]
        assert {**a.inputs, "seed": None, "stack": None} == {**b.inputs, "seed": None, "stack": None}


@pytest.mark.slow
def test_a_fleet_trained_again_is_kept_beside_the_first(small: ModuleType, tmp_path: Path) -> None:
    work = small.workspace(Store(tmp_path))
    first, again = work.fleet("before"), work.fleet("before", replica="B")
    assert (first[0].fleet, again[0].fleet) == ("before", "before B")
    assert all(a.weights != b.weights for a, b in zip(first, again, strict=True))
    for ref, order in zip(again, work.orders("before"), strict=True):
        assert np.array_equal(work.seen_ids(ref), order.ids)
    assert work.fleet("before") is first
