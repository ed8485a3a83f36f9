"""Models made elsewhere: work orders go out as files, checkpoints or answers come back, checked before they count.

```
DIR/README.txt                      what to do, for whoever gets the folder
DIR/<name>.json                     one work order a model
DIR/<name>.safetensors | .pt        what comes back: weights (also inside a state_dict file) ...
DIR/<name>.logits.npy               ... or answers alone, float32 (n, q, c)
```
``<name>`` holds the first 16 digits of the order's digest, so that a result cannot be taken for another order's.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.errors import AuditError, InvalidInput
from mnemoscope.audit.models.checkpoints import load_state
from mnemoscope.audit.models.training import fresh_model
from mnemoscope.audit.work.files import storage_errors
from mnemoscope.audit.work.keys import canonical_json, content_key, ids_digest, plain_json
from mnemoscope.audit.work.store import Store, load_array
from mnemoscope.audit.work.tasks import ADOPTED, ANSWERS_VERSION, LOGITS, TRAIN_VERSION, WEIGHTS

if TYPE_CHECKING:
    from mnemoscope.audit.work.orders import FleetName, ModelOrder, Replica
    from mnemoscope.audit.work.workspace import Workspace

__all__ = ["AdoptReport", "ExportReport", "adopt", "export_plan"]

ORDER_FORMAT = 1
SUFFIXES = (".safetensors", ".pt", ".pth", ".logits.npy")
"""Of results, after the order's name."""

FLEETS: tuple[tuple["FleetName", "Replica"], ...] = (("before", "A"), ("retrained", "A"), ("retrained", "B"))


@dataclass(frozen=True)
class ExportReport:
    """What was written: names of the orders, and how many models were in the store already."""

    orders: tuple[str, ...]
    present: int
    folder: Path


@dataclass(frozen=True)
class AdoptReport:
    """What was taken.

    Attributes:
        weights: orders whose weights were committed.
        answers: orders whose answers were committed.
        present: orders that the store had already.
        waiting: orders without a result yet.
        notes: what was done to read a checkpoint, e.g. a prefix that was stripped.
    """

    weights: tuple[str, ...]
    answers: tuple[str, ...]
    present: tuple[str, ...]
    waiting: tuple[str, ...]
    notes: tuple[str, ...]


def export_plan(
    workspace: "Workspace",
    out_dir: Path,
    *,
    ids: NDArray[np.int64],
    queries: Sequence[str] = ("identity",),
    fleets: Sequence[tuple["FleetName", "Replica"]] = FLEETS,
    answers_suffice: bool = True,
) -> ExportReport:
    """Write one work order for each model that the store does not hold.

    Args:
        workspace: whose models are wanted.
        out_dir: folder that receives the orders; made when absent.
        ids: (n,) int64 ids whose answers the audit will ask, in its order: what a logits file must hold.
        queries: fixed variations, in order.
        fleets: (name, replica) of the fleets.
        answers_suffice: whether an audit needs no more than these answers; else ``adopt`` takes weights alone.

    Raises:
        StoreError: the folder cannot be written.
    """
    data = workspace.device_data
    state = {
        name: {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
        for name, tensor in fresh_model(workspace.recipe, data, seed=0).state_dict().items()
    }
    ids = np.asarray(ids, np.int64)
    names: list[str] = []
    present = 0
    with storage_errors("write orders to", out_dir):
        out_dir.mkdir(parents=True, exist_ok=True)
        for fleet, replica in fleets:
            for order in workspace.orders(fleet, replica=replica):
                if workspace.store.get(order.key) is not None:
                    present += 1
                    continue
                body = _order(workspace, order, ids, queries, state, answers_suffice)
                name = _name(body)
                document = {"digest": _digest(body), **body}
                (out_dir / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
                names.append(name)
        (out_dir / "README.txt").write_text(README, encoding="utf-8")
    return ExportReport(tuple(names), present, out_dir)


def _input(workspace: "Workspace") -> dict[str, Any]:
    """How raw values become what the model sees: weights made elsewhere are asked here through the same."""
    data = workspace.device_data
    if data.subject is not None:
        return {"by": "transform() of the subject.py, where it has one", "shape": list(data.input_shape)}
    constants = data.constants
    subtract, divide_by = ([0.0], [1.0]) if constants is None else constants
    return {"shape": list(data.input_shape), "subtract": subtract, "divide_by": divide_by}


def _order(
    workspace: "Workspace",
    order: "ModelOrder",
    ids: NDArray[np.int64],
    queries: Sequence[str],
    state: dict[str, Any],
    suffice: bool,
) -> dict[str, Any]:
    dataset = workspace.dataset
    answers, inputs = workspace.answers_key(order.key, None, ids, queries)
    body = plain_json(
        {
            "format": ORDER_FORMAT,
            "key": order.key,
            "fleet": order.fleet,
            "model": order.index,
            "data": {"name": dataset.name, "digest": dataset.digest, "classes": len(dataset.classes)},
            "input": _input(workspace),
            "recipe": workspace.recipe.key_parts(),
            "seed": str(order.seed),
            "train": {"ids": order.ids.tolist(), "keys": list(dataset.keys_of(order.ids))},
            "forget": {"ids": order.forget.tolist(), "keys": list(dataset.keys_of(order.forget))},
            "state": state,
            "answers": {
                "key": answers,
                "inputs": inputs,
                "ids": ids.tolist(),
                "keys": list(dataset.keys_of(ids)),
                "queries": list(queries),
                "suffice": suffice,
                "shape": [int(ids.size), len(queries), len(dataset.classes)],
            },
            "inputs": order.inputs,
        },
        "order",
    )
    assert isinstance(body, dict)
    return body


def _digest(body: dict[str, Any]) -> str:
    return "sha256:" + hashlib.sha256(canonical_json(body)).hexdigest()


def _name(body: dict[str, Any]) -> str:
    fleet = str(body["fleet"]).replace(" ", "-").lower()
    return f"{fleet}-{int(body['model']):04d}-{_digest(body).removeprefix('sha256:')[:16]}"


def adopt(folder: Path, store: Store) -> AdoptReport:
    """Take back checkpoints or answers made from work orders, under the keys of the orders.

    Everything in the folder is checked first; a single fault refuses the whole folder and commits nothing.

    Args:
        folder: with the orders and, beside them, the results.
        store: where they go, noted as "adopted": that a model was trained on these records, with this recipe, is
            then the word of whoever made it.

    Raises:
        InvalidInput: no orders, an order that was changed, a result that belongs to no order or to an older one, a
            file that cannot be read safely, wrong names, shapes or classes, values that are not finite: all at once.
    """
    documents = [path for path in sorted(folder.glob("*.json")) if path.is_file()] if folder.is_dir() else []
    if not documents:
        raise InvalidInput(f"{folder} holds no work orders (*.json); `mnemoscope export PLAN DIR` writes them")
    faults: list[str] = []
    orders: dict[str, dict[str, Any]] = {}
    for path in documents:
        try:
            orders[path.stem] = _read_order(path)
        except InvalidInput as error:
            faults.append(str(error))
    faults += _strays(folder, {path.stem for path in documents})
    todo: list[tuple[str, dict[str, Any], Path]] = []
    present: list[str] = []
    waiting: list[str] = []
    notes: list[str] = []
    for name, order in orders.items():
        found = [path for suffix in SUFFIXES if (path := folder / f"{name}{suffix}").is_file()]
        if len(found) > 1:
            faults.append(f"{name}: several results ({', '.join(path.name for path in found)}); keep one")
        elif store.get(order["key"]) is not None:
            present.append(name)
        elif not found:
            waiting.append(name)
        else:
            try:
                note = _check_answers(found[0], order) if found[0].suffix == ".npy" else _check_weights(found[0], order)
            except (AuditError, ValueError) as error:
                faults.append(f"{found[0].name}: {error}")
            else:
                todo.append((name, order, found[0]))
                notes += [f"{found[0].name}: {note}"] if note else []
    if faults:
        raise InvalidInput(f"{folder}: {len(faults)} faults, nothing was adopted: " + "; ".join(faults))
    weights: list[str] = []
    answers: list[str] = []
    for name, order, path in todo:
        _commit(store, order, path)
        (answers if path.suffix == ".npy" else weights).append(name)
    return AdoptReport(tuple(weights), tuple(answers), tuple(present), tuple(waiting), tuple(notes))


def _read_order(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
        digest = document.pop("digest")
        version = document["format"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(f"{path.name} is no work order ({type(error).__name__}); export the orders again") from error
    if version != ORDER_FORMAT:
        raise InvalidInput(f"{path.name} has format {version!r}, not {ORDER_FORMAT}; export the orders again")
    if digest != _digest(document) or _name(document) != path.stem:
        raise InvalidInput(
            f"{path.name} was changed after it was exported (its digest differs); export the orders again"
        )
    order: dict[str, Any] = document
    try:
        trained, answers = order["inputs"], order["answers"]
        ties = (
            content_key("train", TRAIN_VERSION, trained) == order["key"],
            trained["ids"] == ids_digest(np.asarray(order["train"]["ids"], np.int64)),
            trained["data"] == order["data"]["digest"] == answers["inputs"]["data"],
            content_key("answers", ANSWERS_VERSION, answers["inputs"]) == answers["key"],
            answers["inputs"]["ids"] == ids_digest(np.asarray(answers["ids"], np.int64)),
            answers["inputs"]["model"] == order["key"],
            len(answers["shape"]) == 3,
            isinstance(order["state"], dict),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInput(f"{path.name} is no whole work order ({error}); export the orders again") from error
    if not all(ties):
        raise InvalidInput(f"{path.name}: its keys do not follow from what it asks for; export the orders again")
    return order


def _strays(folder: Path, names: set[str]) -> list[str]:
    faults = []
    for path in sorted(folder.iterdir()):
        for suffix in SUFFIXES:
            if path.name.endswith(suffix) and path.name.removesuffix(suffix) not in names:
                faults.append(f"{path.name} belongs to no order here; name it as its order, with {suffix} for .json")
    return faults


def _read_weights(path: Path, order: dict[str, Any]) -> tuple[dict[str, Any], str]:
    state, note = load_state(path, expected=order["state"].keys())
    return state, note


def _check_weights(path: Path, order: dict[str, Any]) -> str:
    state, note = _read_weights(path, order)
    wanted = {name: tuple(spec["shape"]) for name, spec in order["state"].items()}
    missing, extra = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    if missing or extra:
        raise InvalidInput(f"tensors missing: {missing[:5]}, unknown: {extra[:5]}; train the architecture of the order")
    for name, shape in wanted.items():
        if tuple(state[name].shape) != shape:
            raise InvalidInput(f"{name} has shape {tuple(state[name].shape)}, the order says {shape}")
    return note


def _check_answers(path: Path, order: dict[str, Any]) -> str:
    if not order["answers"].get("suffice", True):
        raise InvalidInput(
            "answers alone are not enough: attacks of this plan ask questions of their own or need the model itself. "
            "Give its weights, or leave these attacks out and export again"
        )
    array = load_array(path, path.name)
    shape = tuple(order["answers"]["shape"])
    if array.dtype not in (np.float32, np.float64, np.float16) or array.shape != shape:
        raise InvalidInput(
            f"holds {array.dtype} {array.shape}, the order asks for float32 {shape}: records in the order of "
            "answers.ids, queries, classes"
        )
    bad = ~np.isfinite(array).all(axis=(1, 2))
    if bad.any():
        first = np.asarray(order["answers"]["keys"])[bad][:3].tolist()
        raise InvalidInput(f"{int(bad.sum())} records have answers that are not finite (first: {first})")
    if shape[2] > 1 and (array >= 0).all() and np.allclose(array.sum(axis=-1), 1, atol=1e-3):
        raise InvalidInput("holds probabilities (each row adds to 1); give the logits before the softmax")
    return ""


def _commit(store: Store, order: dict[str, Any], path: Path) -> None:
    source = {
        "provenance": ADOPTED,
        "fleet": order["fleet"],
        "model": order["model"],
        "file": path.name,
        "order": _digest(order),
    }
    if path.suffix == ".npy":
        answers = order["answers"]
        logits = np.asarray(load_array(path, path.name), np.float32)
        store.put(answers["key"], {LOGITS: logits}, inputs=answers["inputs"], meta={"kind": "answers", **source})
        store.put(order["key"], {}, inputs=order["inputs"], meta={"kind": "train", "seconds": 0.0, **source})
        return
    from safetensors.torch import save

    state, _ = _read_weights(path, order)
    kinds = {name: spec["dtype"] for name, spec in order["state"].items()}
    tensors = {name: _as_kind(tensor, kinds[name]) for name, tensor in state.items()}
    store.put(
        order["key"], {WEIGHTS: save(tensors)}, inputs=order["inputs"], meta={"kind": "train", "seconds": 0.0, **source}
    )


def _as_kind(tensor: Any, dtype: str) -> Any:
    import torch

    return tensor.detach().to("cpu", getattr(torch, dtype)).contiguous().clone()


README = """\
Work orders of an audit by mnemoscope: one file a model.

For each <name>.json, train one model and put the result beside it, as one of
  <name>.safetensors    its weights, with the tensor names and shapes listed under "state"
  <name>.pt             the same as torch.save(model.state_dict(), ...)
  <name>.logits.npy     or its answers alone, where "answers.suffice" is true: float32, shape "answers.shape", records
                        in the order of "answers.ids"

Train on the records of "train" (ids, and keys as in your data) and on no other: not for validation, tuning or early
stopping either. The model gets records as "input" says: images channels first, "subtract" taken from the raw values,
the rest divided by "divide_by"; weights that were trained on other inputs would be asked wrongly. "seed" is to be used
for all randomness; "recipe" says how to train. Records of "forget" are listed so that you know them; models of the
fleet "retrained" must never see them.

Then, where the audit runs:  mnemoscope adopt DIR
"""
