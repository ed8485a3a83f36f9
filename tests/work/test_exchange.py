"""Models made elsewhere: orders go out, results come back under the same keys, and nothing unchecked is taken."""

import json
import os
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mnemoscope.audit.errors import AuditError, InvalidInput
from mnemoscope.audit.models.recipes import Recipe
from mnemoscope.audit.models.training import train_model
from mnemoscope.audit.work.exchange import adopt, export_plan
from mnemoscope.audit.work.store import Store
from mnemoscope.unlearning.noop import NoOp

FLEETS = (("before", "A"),)


@pytest.fixture
def exported(small: ModuleType, tmp_path: Path) -> tuple[Any, Path, list[dict[str, Any]]]:
    """A workspace with an empty store, the folder of its orders, and the orders with their names."""
    work = small.workspace(Store(tmp_path / "store"))
    folder = tmp_path / "orders"
    report = export_plan(work, folder, ids=work.design.audited, fleets=FLEETS)
    orders = [{"name": name, **json.loads((folder / f"{name}.json").read_text())} for name in report.orders]
    return work, folder, orders


def make_elsewhere(work: Any, order: dict[str, Any]) -> torch.nn.Module:
    """Train from what the order says alone."""
    recipe = Recipe(**{**order["recipe"], "milestones": tuple(order["recipe"]["milestones"])})
    ids = np.asarray(order["train"]["ids"], np.int64)
    return train_model(recipe, work.device_data, ids, seed=int(order["seed"]), runtime=work.runtime).module


@pytest.mark.slow
def test_weights_come_back_under_the_same_keys_with_the_same_answers(
    small: ModuleType, trained: Path, exported: tuple[Any, Path, list[dict[str, Any]]]
) -> None:
    work, folder, orders = exported
    assert len(orders) == 6
    for number, order in enumerate(orders):
        state = make_elsewhere(work, order).state_dict()
        if number % 2:
            save_file(state, folder / f"{order['name']}.safetensors")
        else:
            torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, folder / f"{order['name']}.pt")
    report = adopt(folder, work.store)
    assert len(report.weights) == 6
    assert len(report.notes) == 3  # where the weights lay, and the prefix that was stripped
    refs = work.fleet("before")
    assert {ref.provenance for ref in refs} == {"adopted"}
    here = small.workspace(Store(trained))
    assert [ref.key for ref in refs] == [ref.key for ref in here.fleet("before")]
    ids = work.design.audited
    assert np.array_equal(work.answers(refs, ids), here.answers(here.fleet("before"), ids))
    assert adopt(folder, work.store).present == tuple(sorted(order["name"] for order in orders))
    assert export_plan(work, folder, ids=ids, fleets=FLEETS).present == 6
    with pytest.raises(AuditError, match="adopted"):
        work.seen_ids(refs[0])


def test_answers_alone_serve_an_audit_but_no_unlearning(
    small: ModuleType, trained: Path, exported: tuple[Any, Path, list[dict[str, Any]]]
) -> None:
    work, folder, orders = exported
    here = small.workspace(Store(trained))
    logits = here.answers(here.fleet("before"), work.design.audited)
    for order in orders[:5]:
        np.save(folder / f"{order['name']}.logits.npy", logits[order["model"]])
    report = adopt(folder, work.store)
    assert (len(report.answers), len(report.waiting)) == (5, 1)
    refs = work.fleet("before")  # trains the one that is waiting
    assert [ref.provenance for ref in refs].count("adopted") == 5
    assert np.array_equal(work.answers(refs, work.design.audited), logits)
    with pytest.raises(AuditError, match="other records or queries"):
        work.answers(refs, work.design.audited[:3])
    with pytest.raises(AuditError, match="only answers were adopted"):
        work.unlearned("noop", NoOp())


def test_answers_are_refused_where_a_plan_asks_for_more(small: ModuleType, tmp_path: Path) -> None:
    """Attacks that ask questions of their own, or the model itself, would fail after everything was adopted."""
    work, folder = small.workspace(Store(tmp_path / "fresh")), tmp_path / "more"
    names = export_plan(work, folder, ids=work.design.audited, fleets=FLEETS, answers_suffice=False).orders
    shape = json.loads((folder / f"{names[0]}.json").read_text())["answers"]["shape"]
    np.save(folder / f"{names[0]}.logits.npy", np.random.default_rng(0).normal(size=shape).astype(np.float32))
    with pytest.raises(InvalidInput, match="answers alone are not enough"):
        adopt(folder, work.store)


def test_what_is_wrong_is_listed_at_once_and_nothing_is_adopted(
    tmp_path: Path, exported: tuple[Any, Path, list[dict[str, Any]]]
) -> None:
    work, folder, orders = exported
    good = {name: torch.zeros(spec["shape"]) for name, spec in orders[0]["state"].items()}
    first = next(iter(good))

    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "owned"),)

    save_file(good, folder / f"{orders[0]['name']}.safetensors")
    torch.save({"model": Hostile()}, folder / f"{orders[1]['name']}.pt")  # peer defect 30
    save_file({**good, first: torch.zeros(2, 2)}, folder / f"{orders[2]['name']}.safetensors")
    save_file({**good, first: good[first] + torch.nan}, folder / f"{orders[3]['name']}.safetensors")
    shape = orders[4]["answers"]["shape"]
    np.save(folder / f"{orders[4]['name']}.logits.npy", np.full(shape, 1 / shape[2], np.float32))
    np.save(folder / f"{orders[5]['name']}.logits.npy", np.zeros((1, 2, 3), np.float32))
    save_file(good, folder / "before-0000-0123456789abcdef.safetensors")
    with pytest.raises(InvalidInput) as caught:
        adopt(folder, work.store)
    message = str(caught.value)
    for part in (
        "6 faults, nothing was adopted",
        f"{orders[1]['name']}.pt: ",
        f"{first} has shape (2, 2)",
        "not finite",
        "holds probabilities",
        "holds float32 (1, 2, 3)",
        "belongs to no order",
    ):
        assert part in message
    assert not (tmp_path / "owned").exists()
    assert work.store.ls() == ()


@pytest.mark.parametrize("forged", [False, True])
def test_an_order_that_was_edited_is_refused(exported: tuple[Any, Path, list[dict[str, Any]]], forged: bool) -> None:
    from mnemoscope.audit.work.exchange import _digest, _name

    work, folder, orders = exported
    path = folder / f"{orders[0]['name']}.json"
    body = json.loads(path.read_text())
    del body["digest"]
    body["train"]["ids"] = body["train"]["ids"][1:]
    if forged:  # a digest that fits the edited order does not make its key fit
        path.unlink()
        path = folder / f"{_name(body)}.json"
        path.write_text(json.dumps({"digest": _digest(body), **body}))
        match = "its keys do not follow"
    else:
        path.write_text(json.dumps({"digest": orders[0]["digest"], **body}))
        match = "was changed after it was exported"
    with pytest.raises(InvalidInput, match=match):
        adopt(folder, work.store)


def test_orders_speak_in_keys_and_name_what_must_not_be_seen(
    exported: tuple[Any, Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    work, folder, orders = exported
    order = orders[3]
    assert tuple(order["train"]["keys"]) == work.dataset.keys_of(np.asarray(order["train"]["ids"]))
    assert set(order["forget"]["ids"]) < set(order["train"]["ids"])
    assert re.fullmatch(r"before-0003-[0-9a-f]{16}", order["name"])
    report = export_plan(work, folder, ids=work.design.audited, fleets=(("retrained", "B"),))
    for name in report.orders:
        twin = json.loads((folder / f"{name}.json").read_text())
        assert not set(twin["forget"]["ids"]) & set(twin["train"]["ids"])
    with pytest.raises(InvalidInput, match="no work orders"):
        adopt(tmp_path / "nowhere", work.store)
