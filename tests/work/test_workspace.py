"""The workspace: keys over everything that can change a bit, each model its own commit, nothing computed twice."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import AuditError, InvalidInput, MissingNeed, StoreError
from mnemoscope.audit.models.inference import infer_logits
from mnemoscope.audit.models.recipes import Runtime
from mnemoscope.audit.models.training import Trained, train_model
from mnemoscope.audit.records.datasets import load_dataset
from mnemoscope.audit.records.design import Design, Role
from mnemoscope.audit.work import files, tasks
from mnemoscope.audit.work import orders as orders_module
from mnemoscope.audit.work import workspace as workspace_module
from mnemoscope.audit.work.engines import ProcessEngine
from mnemoscope.audit.work.keys import content_key
from mnemoscope.audit.work.plugins import make_plugin
from mnemoscope.audit.work.store import Store
from mnemoscope.audit.work.tasks import WEIGHTS, describe_method
from mnemoscope.unlearning.finetune import FineTune
from mnemoscope.unlearning.noop import NoOp


def counts(work: Any) -> dict[str, tuple[int, int]]:
    return {cost.step: (cost.computed, cost.reused) for cost in work.costs}


def test_a_model_is_what_the_trainer_makes_of_its_order(small: ModuleType, trained: Path) -> None:
    work = small.workspace(Store(trained))
    refs = work.fleet("before")
    assert counts(work) == {"train before": (0, 6)}
    order = work.orders("before")[2]
    assert np.array_equal(order.ids, work.design.records(2, Role.BACKGROUND, Role.KEPT, Role.FORGOTTEN))
    assert np.array_equal(work.seen_ids(refs[2]), order.ids)
    again = train_model(small.RECIPE, work.device_data, order.ids, seed=order.seed, runtime=work.runtime)
    for mine, kept in zip(again.module.parameters(), work.model(refs[2]).parameters(), strict=True):
        assert torch.equal(mine, kept)
    logits = infer_logits(again.module, work.device_data, work.design.audited, runtime=work.runtime)
    answers = work.answers(refs, work.design.audited)
    assert answers.shape == (6, 120, 1, 10)
    assert answers.dtype == np.float32
    assert not answers.flags.writeable
    assert np.array_equal(answers[2], logits)
    assert counts(work)["ask before"] == (0, 6)


@pytest.mark.slow
def test_everything_that_can_change_a_bit_changes_the_key(small: ModuleType, tmp_path: Path) -> None:
    store, data = Store(tmp_path), load_dataset("digits")

    def keys(**options: Any) -> set[str]:
        return {order.key for order in small.workspace(store, **options).orders("before")}

    base = keys()
    assert keys() == base
    runtime = Runtime(device="cpu", threads=1, stack=1)
    assert keys(runtime=replace(runtime, inference_batch=7)) == base  # training does not depend on it
    different = [
        keys(seed=6),
        keys(stack=2),
        keys(stack=3),
        keys(runtime=replace(runtime, threads=2)),
        keys(data=replace(data, name="others")),
        *(
            keys(recipe=replace(small.RECIPE, **{field: value}))
            for field, value in (
                ("lr", 0.2),
                ("epochs", 3),
                ("batch_size", 16),
                ("architecture", "mlp:17"),
                ("weight_decay", 0.1),
                ("label_smoothing", 0.1),
            )
        ),
        {order.key for order in small.workspace(store).orders("retrained")},
        {order.key for order in small.workspace(store).orders("retrained", replica="B")},
    ]
    everything = set.union(base, *different)
    assert len(everything) == len(base) * (len(different) + 1)
    assert not store.root.exists() or store.ls() == ()  # naming work computes nothing


def test_versions_of_code_and_libraries_are_part_of_the_key(
    small: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first() -> str:
        key: str = small.workspace(Store(tmp_path)).orders("before")[0].key
        return key

    found = {first()}
    for target, name, value in (
        (torch, "__version__", "2.0.0"),
        (np, "__version__", "2.0.0"),
        (orders_module, "TRAIN_VERSION", 99),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, value)
            found.add(first())
    assert len(found) == 4


def test_exchanging_forgotten_and_never_leaves_the_retrained_twin(small: ModuleType, tmp_path: Path) -> None:
    data = load_dataset("digits")
    design: Design = small.design(data)
    role = design.role.copy()
    role[design.role == Role.FORGOTTEN] = Role.NEVER
    role[design.role == Role.NEVER] = Role.FORGOTTEN
    swapped = replace(design, role=role)
    for stack in (1, 3):
        works = [small.workspace(Store(tmp_path), data=data, design=d, stack=stack) for d in (design, swapped)]
        twins = [[order.key for order in work.orders("retrained")] for work in works]
        assert twins[0] == twins[1]
        before = [[order.key for order in work.orders("before")] for work in works]
        assert not set(before[0]) & set(before[1])


def test_a_stack_agrees_with_one_by_one_and_has_keys_of_its_own(
    small: ModuleType, trained: Path, tmp_path: Path
) -> None:
    alone, together = small.workspace(Store(trained)), small.workspace(Store(tmp_path), stack=4)
    sizes = [len([o for o in together.orders("before") if o.group == g]) for g in (0, 1)]
    assert sizes == [4, 2]
    a = alone.answers(alone.fleet("before"), alone.design.audited)
    b = together.answers(together.fleet("before"), together.design.audited)
    assert np.allclose(a, b, atol=1e-3)


def test_the_measured_stack_is_kept_and_reused(
    small: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = iter([3, 1])
    monkeypatch.setattr(workspace_module, "choose_stack", lambda *_, **__: next(measured))
    first = small.workspace(Store(tmp_path), stack=None)
    assert first.stack == 3
    keys = [order.key for order in first.orders("before")]
    resumed = small.workspace(Store(tmp_path), stack=None)
    assert resumed.stack == 3  # a second measurement would say 1, and every model would be trained again
    assert [order.key for order in resumed.orders("before")] == keys
    assert small.workspace(Store(tmp_path), stack=None, recipe=replace(small.RECIPE, lr=0.3)).stack == 1


def test_a_damaged_model_is_recomputed_to_the_same_bits(
    small: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path)
    refs = small.workspace(store, stack=2).fleet("before")
    blob = store.blob_path(refs[3].weights)
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    work = small.workspace(Store(tmp_path), stack=2)
    healed = work.fleet("before")
    assert counts(work) == {"train before": (1, 5)}
    assert [ref.weights for ref in healed] == [ref.weights for ref in refs]
    assert WEIGHTS in caplog.text


def test_what_the_optimiser_saw_must_be_what_the_design_says(
    small: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Peer defect 4: a tenth of the "members" held out for early stopping, so never trained on.
    def early_stopping(recipe: Any, data: Any, ids: Any, **rest: Any) -> Trained:
        return train_model(recipe, data, ids[: int(len(ids) * 0.9)], **rest)

    monkeypatch.setattr(tasks, "train_model", early_stopping)
    with pytest.raises(AuditError, match=r"saw 126 records, the design says 140: 14 were never used"):
        small.workspace(Store(tmp_path)).fleet("before")
    assert not [entry for entry in Store(tmp_path).ls() if WEIGHTS in entry.files]


def test_records_that_no_batch_drew_are_members_of_private_training(small: ModuleType, tmp_path: Path) -> None:
    """DP-SGD draws its batches: after one epoch a third of the records was never in one, by design."""
    pytest.importorskip("opacus")
    private = replace(small.RECIPE, epochs=1, momentum=0.0, dp_noise=1.0, dp_clip=1.0)
    work = small.workspace(Store(tmp_path), recipe=private)
    ref = work.fleet("before")[0]
    wanted = work.orders("before")[0].ids
    seen = work.seen_ids(ref)
    assert 0.4 * wanted.size < seen.size < 0.9 * wanted.size
    assert np.isin(seen, wanted).all()
    with pytest.raises(AuditError, match="1 do not belong"):
        tasks.check_seen(np.append(seen, 10**6), wanted, "model", drawn=True)


@pytest.mark.slow
def test_peer_defect_11_each_model_commits_before_the_next_begins(
    small: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 11: metadata written only after all models are trained, so that a crash loses all."""

    def ours(store: Store) -> None:
        small.workspace(store).fleet("before")

    def faulty(store: Store) -> None:
        work = small.workspace(store)
        fixed = {"runtime": work.runtime}
        orders = work.orders("before")
        models = [tasks.train_model(work.recipe, work.device_data, o.ids, seed=o.seed, **fixed) for o in orders]
        for number, model in enumerate(models):
            store.put(content_key("model", 1, {"number": number}), {"seen": model.seen_ids.tobytes()})

    def check(run: Callable[[Store], None], folder: Path) -> None:
        made = 0

        def crashing(*arguments: Any, **rest: Any) -> Trained:
            nonlocal made
            if made == 4:
                raise KeyboardInterrupt
            made += 1
            return train_model(*arguments, **rest)

        with monkeypatch.context() as patch:
            patch.setattr(tasks, "train_model", crashing)
            with pytest.raises(KeyboardInterrupt):
                run(Store(folder))
        assert len(Store(folder).ls()) == 4

    faulty(Store(tmp_path / "undisturbed"))
    assert len(Store(tmp_path / "undisturbed").ls()) == 6
    with pytest.raises(AssertionError):
        check(faulty, tmp_path / "faulty")
    check(ours, tmp_path / "ours")
    told: list[tuple[str, int, int]] = []
    resumed = small.workspace(Store(tmp_path / "ours"), progress=lambda *step: told.append(step))
    resumed.fleet("before")
    assert counts(resumed) == {"train before": (2, 4)}
    assert told == [("train before", 4, 6), ("train before", 5, 6), ("train before", 6, 6)]


def test_peer_defect_12_one_balanced_fleet_serves_every_record(
    small: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 12: a paired design trains two models for each that serves a record as reference."""
    trained = 0

    def counting(*arguments: Any, **rest: Any) -> Trained:
        nonlocal trained
        trained += 1
        return train_model(*arguments, **rest)

    def ours() -> tuple[int, np.ndarray]:
        with monkeypatch.context() as patch:
            patch.setattr(tasks, "train_model", counting)
            work = small.workspace(Store(tmp_path))
            seen = [work.seen_ids(ref) for ref in work.fleet("before")]
        inside = np.array([np.isin(work.design.audited, ids) for ids in seen])
        # Every model is a target once; all the others are its references, with and without the record.
        for target in range(len(seen)):
            others = np.delete(inside, target, axis=0)
            assert others.any(axis=0).all()
            assert not others.all(axis=0).any()
        return trained, np.full(inside.shape[1], len(seen) - 1)

    def faulty(references: int = 5) -> tuple[int, np.ndarray]:
        rng, n = np.random.default_rng(0), 120
        fleet = []
        for _ in range(references):
            subset = rng.random(n) < 0.5
            fleet += [subset, ~subset]
        target = rng.random(n) < 0.5
        without = ~np.array(fleet)  # of each pair, the one that never saw the record serves it
        return len([*fleet, target]), without.sum(axis=0)

    def check(design: tuple[int, np.ndarray]) -> None:
        models, references = design
        assert (models == references + 1).all()

    check(ours())
    with pytest.raises(AssertionError):
        check(faulty())


def test_a_store_that_fills_up_keeps_what_was_committed(
    small: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, left = os.write, 30_000

    def full(descriptor: int, data: Any) -> int:
        nonlocal left
        left -= len(data)
        if left < 0:
            raise OSError(errno.ENOSPC, "full")
        return write(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "write", full)
        with pytest.raises(StoreError, match="full"):
            small.workspace(Store(tmp_path)).fleet("before")
    kept = len(Store(tmp_path).ls())
    assert 1 <= kept < 6
    work = small.workspace(Store(tmp_path))
    work.fleet("before")
    assert counts(work) == {"train before": (6 - kept, kept)}


def test_running_out_of_memory_is_a_sentence(
    small: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hungry(*arguments: Any, **rest: Any) -> Trained:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes")

    monkeypatch.setattr(tasks, "train_model", hungry)
    with pytest.raises(AuditError, match=r"out of memory while training 1 models.*runtime\.stack"):
        small.workspace(Store(tmp_path)).fleet("before")


@pytest.mark.slow
def test_unlearning_goes_through_the_store(small: ModuleType, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "store")
    work = small.workspace(Store(tmp_path / "store"))
    before = work.fleet("before")
    same, tuned = work.unlearned("no-op", NoOp()), work.unlearned("tuned", FineTune(epochs=1))
    assert [ref.weights for ref in same] == [ref.weights for ref in before]
    assert not {ref.weights for ref in tuned} & {ref.weights for ref in before}
    assert work.cost_fraction("tuned") is None  # nothing was retrained yet
    work.fleet("retrained")
    fraction = work.cost_fraction("tuned")
    assert fraction is not None
    assert fraction > 0
    assert len({work.fleet_digest(refs) for refs in (before, tuned, work.fleet("retrained"))}) == 3
    assert work.fleet_digest(same) == work.fleet_digest(before)
    resumed = small.workspace(Store(tmp_path / "store"))
    assert resumed.unlearned("tuned", FineTune(epochs=1)) == tuned
    assert counts(resumed)["unlearn tuned"] == (0, 6)
    assert [ref.key for ref in resumed.unlearned("renamed", FineTune(epochs=1))] == [ref.key for ref in tuned]
    assert not {ref.key for ref in resumed.unlearned("more", FineTune(epochs=2))} & {ref.key for ref in tuned}


PLUGIN = """
import copy
from dataclasses import dataclass
import torch
from mnemoscope.audit.answers.views import Need

@dataclass(frozen=True)
class Noise:
    scale: float = 0.5
    name = "noise"
    needs = Need.NOTHING
    exact = False

    def unlearn(self, model, request, *, recipe, data, runtime, rng):
        after = copy.deepcopy(model)
        with torch.no_grad():
            for p in after.parameters():
                p += self.scale * torch.from_numpy(rng.standard_normal(tuple(p.shape))).to(p)
        return after
"""


@pytest.mark.slow
def test_the_users_own_method_in_spawned_processes_gives_the_bits_of_this_one(
    small: ModuleType, trained: Path, tmp_path: Path
) -> None:
    path = tmp_path / "own.py"
    path.write_text(PLUGIN)
    weights = []
    for number, engine in enumerate((None, ProcessEngine(1))):
        folder = tmp_path / f"store{number}"
        shutil.copytree(trained, folder)
        work = small.workspace(Store(folder), engine=engine)
        method: Any = make_plugin("own.py:Noise", {"scale": 0.25}, tmp_path)
        refs = work.unlearned("own", method)
        assert counts(work)["unlearn own"] == (6, 0)
        weights.append([(ref.key, ref.weights) for ref in refs])
        work.close()
    assert weights[0] == weights[1]
    before = describe_method(method)
    path.write_text(PLUGIN.replace("+=", "-="))
    changed: Any = make_plugin("own.py:Noise", {"scale": 0.25}, tmp_path)
    assert describe_method(changed) != before  # another source, other keys
    assert describe_method(changed)["settings"] == before["settings"]


@dataclass(frozen=True)
class Validating:
    name = "validating"
    needs = Need.VALIDATION_DATA
    exact = False


@dataclass(frozen=True)
class Returns:
    how: str
    name = "wrong"
    needs = Need.NOTHING
    exact = False

    def unlearn(self, model: Any, request: Any, **rest: Any) -> Any:
        return None if self.how == "nothing" else torch.nn.Linear(2, 2)


class NoDataclass:
    name = "loose"
    needs = Need.NOTHING


def test_methods_that_do_not_fit_are_refused(small: ModuleType, trained: Path) -> None:
    work = small.workspace(Store(trained))
    with pytest.raises(MissingNeed, match="validation"):
        work.unlearned("v", Validating())
    with pytest.raises(InvalidInput, match="no dataclass"):
        work.unlearned("n", NoDataclass())
    held = len(Store(trained).ls())
    for how, match in (("nothing", "returned a NoneType"), ("layer", "another architecture")):
        with pytest.raises(AuditError, match=match):
            work.unlearned(how, Returns(how))
    assert len(Store(trained).ls()) == held


def test_answers_are_kept_by_model_records_and_queries(small: ModuleType, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "store")
    work = small.workspace(Store(tmp_path / "store"))
    refs, ids = work.fleet("before"), work.design.audited
    whole = work.answers(refs, ids)
    mixed = work.answers(refs[:2], ids[::-1][:7], queries=("identity", "flip"))
    assert mixed.shape == (2, 7, 2, 10)
    assert np.allclose(mixed[:, :, 0], whole[:2, ::-1][:, :7, 0], atol=1e-5)
    assert not np.allclose(mixed[:, :, 1], mixed[:, :, 0])
    assert counts(work)["ask before"] == (4, 6)
    with pytest.raises(InvalidInput, match="at least one model"):
        work.answers((), ids)
    for queries in ((), ("identity", "identity")):
        with pytest.raises(InvalidInput, match="at least one query, and each once"):
            work.answers(refs, ids, queries=queries)


class Asked:
    """The queries of every inference pass, in the order in which they were made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.queries: list[tuple[str, ...]] = []

        def noted(*args: Any, queries: tuple[str, ...], **rest: Any) -> Any:
            self.queries.append(tuple(queries))
            return infer_logits(*args, queries=queries, **rest)

        monkeypatch.setattr(tasks, "infer_logits", noted)

    def taken(self) -> list[tuple[str, ...]]:
        """What was asked since the last time."""
        found, self.queries = self.queries, []
        return found


def test_a_query_is_asked_once_whoever_else_is_asked(
    small: ModuleType, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained, tmp_path / "store")
    work, asked = small.workspace(Store(tmp_path / "store")), Asked(monkeypatch)
    refs, ids = work.fleet("before")[:2], work.design.audited
    noise = [f"noise:0.1:{k}" for k in range(4)]
    three = work.answers(refs, ids, queries=noise[:3])
    assert asked.taken() == [tuple(noise[:3])] * 2
    mixed = work.answers(refs, ids, queries=(noise[3], "identity", noise[1]))
    assert asked.taken() == [(noise[3],)] * 2  # the record itself was asked when the store was made
    assert np.array_equal(mixed[:, :, 2], three[:, :, 1])
    assert np.array_equal(mixed[:, :, 1], work.answers(refs, ids)[:, :, 0])
    assert np.array_equal(work.answers(refs, ids, queries=noise)[:, :, :3], three)
    assert asked.taken() == []
    alone = infer_logits(work.model(refs[0]), work.device_data, ids, runtime=work.runtime, queries=(noise[3],))
    assert np.array_equal(mixed[0, :, :1], alone)


def test_answers_that_lie_together_are_taken_as_they_are(
    small: ModuleType, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adopted answers do, and so do those of stores from before answers were kept query by query."""
    shutil.copytree(trained, tmp_path / "store")
    work, asked = small.workspace(Store(tmp_path / "store")), Asked(monkeypatch)
    refs, ids, queries = work.fleet("before")[:2], work.design.audited, ("identity", "noise:0.1:0")
    held = np.random.default_rng(0).normal(size=(ids.size, 2, 10)).astype(np.float32)
    key, inputs = work.answers_key(refs[0].key, refs[0].weights, ids, queries)
    work.store.put(key, {"logits.npy": held}, inputs=inputs)
    got = work.answers(refs, ids, queries=queries)
    assert np.array_equal(got[0], held)
    assert asked.taken() == [("noise:0.1:0",)]  # of the other model
    assert counts(work)["ask before"] == (1, 3)


def test_many_answers_are_a_file_mapped_into_memory(
    small: ModuleType, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = small.workspace(Store(trained))
    expected = work.answers(work.fleet("before"), work.design.audited)
    monkeypatch.setattr(workspace_module, "IN_MEMORY", 0)
    mapped = work.answers(work.fleet("before"), work.design.audited)
    assert isinstance(mapped, np.memmap)
    assert np.array_equal(mapped, expected)
    assert list((trained / "tmp").iterdir()) == []  # the space goes with the last array over it


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Another number of torch threads for a block."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def test_threads_of_the_process_enter_the_key_where_none_are_given(small: ModuleType, tmp_path: Path) -> None:
    runtime = Runtime(device="cpu", stack=1)
    keys = set()
    for number in (1, 2):
        with threads(number):
            keys.add(small.workspace(Store(tmp_path), runtime=runtime).orders("before")[0].key)
    assert len(keys) == 2
