"""The models of an audit and their answers: what is in the store is used, what is missing is computed and kept.

Every model commits on its own, as soon as it exists. To resume is to ask the same again.
"""

import hashlib
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from mnemoscope.audit.answers.protocols import check_needs
from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import AuditError, InvalidInput, MissingNeed, StaleArtifact
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.oracle import ModelOracle
from mnemoscope.audit.models.recipes import Recipe, Runtime
from mnemoscope.audit.models.stacking import choose_stack
from mnemoscope.audit.records.design import Design, Role
from mnemoscope.audit.rng import child_seed
from mnemoscope.audit.verdict.result import Cost
from mnemoscope.audit.work.chain import NextRequest
from mnemoscope.audit.work.engines import Engine, SerialEngine, Task
from mnemoscope.audit.work.keys import Json, content_key, ids_digest, plain_json
from mnemoscope.audit.work.orders import TRAINED_ON, FleetName, ModelOrder, Replica, fleet_orders
from mnemoscope.audit.work.running import Progress, Running, no_progress
from mnemoscope.audit.work.store import Entry, Store
from mnemoscope.audit.work.tasks import (
    ANSWERS_VERSION,
    COMPUTED,
    LOGITS,
    SEEN,
    STACK_VERSION,
    UNLEARN_VERSION,
    Bench,
    InferAnswers,
    TrainGroup,
    UnlearnModel,
    describe_method,
    platform_parts,
    weights_digest,
)

if TYPE_CHECKING:
    from torch import nn

    from mnemoscope.audit.models.protocol import TrainsItself, UnlearningMethod
    from mnemoscope.audit.models.subject import Subject
    from mnemoscope.audit.records.datasets import Dataset

__all__ = ["ModelRef", "Progress", "Workspace"]

IN_MEMORY = 1 << 31
"""Bytes of answers held in memory; more of them are a file of the store's disk, mapped."""

LOADED = 2
"""Models that live access keeps in memory: a model before deletion and the same one after."""

NOTHING = np.empty(0, np.int64)


@dataclass(frozen=True)
class ModelRef:
    """One model in the store.

    Attributes:
        fleet: "before", "retrained A", or the name of a subject.
        index: the model's number in the design.
        key: its key.
        weights: hex sha256 of its weights; None where only its answers were adopted.
        seconds: time it took to make, when it was made.
        provenance: "computed" or "adopted".
    """

    fleet: str
    index: int
    key: str
    weights: str | None
    seconds: float
    provenance: str


class Workspace:
    """Trains, unlearns and asks; keeps everything in a store.

    Args:
        store: where finished work is.
        dataset: the records.
        design: their roles.
        recipe: how models are trained.
        runtime: device, threads.
        seed: root of all randomness.
        progress: told of steps.
        subject: the user's own model definition, for a recipe of architecture "subject".
        engine: who computes; this process by default.
        trainer: the method that trains all models itself, where one does: then "before", "retrained" and what that
            method leaves behind are models of its kind.
    """

    def __init__(
        self,
        store: Store,
        dataset: "Dataset",
        design: Design,
        recipe: Recipe,
        *,
        runtime: Runtime,
        seed: int,
        progress: Progress | None = None,
        subject: "Subject | None" = None,
        engine: Engine | None = None,
        trainer: "TrainsItself | None" = None,
    ) -> None:
        self.store, self.dataset, self.design, self.recipe = store, dataset, design, recipe
        self.runtime, self.seed = runtime, seed
        self.trainer = trainer
        self._bench = Bench(store, dataset, recipe, runtime, subject, trainer)
        self._running = Running(engine or SerialEngine(), self._bench, progress or no_progress)
        self._fleets: dict[str, tuple[ModelRef, ...]] = {}

    # -- what is to be there ------------------------------------------------------------------------------------------

    @cached_property
    def _common(self) -> dict[str, Json]:
        parts: dict[str, Json] = {"data": self.dataset.digest, **platform_parts(self.runtime)}
        return parts if self.trainer is None else {**parts, "trainer": describe_method(self.trainer)}

    @cached_property
    def stack(self) -> int:
        """How many models are trained together: given, or measured once and kept in the store."""
        if self.trainer is not None:
            return 1
        sizes = [self.design.records(k, *TRAINED_ON["before"]).size for k in range(self.design.n_models)]
        if self.runtime.stack is not None:
            return choose_stack(self.recipe, self._bench.data, sizes, runtime=self.runtime)
        parts = {**self._common, "recipe": plain_json(self.recipe.key_parts()), "models": len(sizes)}
        key = content_key("stack", STACK_VERSION, parts)
        entry = self.store.get(key)
        if entry is None:
            self._running.tell("choose the stack size", 0, 1)
            chosen = choose_stack(self.recipe, self._bench.data, sizes, runtime=self.runtime)
            # When another process measured at the same time, the first commit stands for both.
            entry = self.store.put(key, {}, inputs=parts, meta={"kind": "stack", "stack": chosen})
            self._running.tell("choose the stack size", 1, 1)
        return int(str(entry.meta["stack"]))

    def orders(self, fleet: FleetName, *, replica: Replica = "A") -> tuple[ModelOrder, ...]:
        """Return what each model of a trained fleet is made of, and its key.

        Args:
            fleet: "before" (trained on background, kept and forgotten records) or "retrained" (without the forgotten).
            replica: which seeds.
        """
        if fleet not in TRAINED_ON:
            raise InvalidInput(f"fleet={fleet!r} is unknown; trained fleets are 'before' and 'retrained'")
        return fleet_orders(
            self.design, fleet, replica, recipe=self.recipe, seed=self.seed, common=self._common, stack=self.stack
        )

    # -- models -------------------------------------------------------------------------------------------------------

    def fleet(self, name: FleetName, *, replica: Replica = "A") -> tuple[ModelRef, ...]:
        """Return a trained fleet, one model for each of the design, training what the store does not hold.

        Args:
            name: "before" or "retrained".
            replica: "A" the reference, "B" the negative control, "C" the subject: other seeds, same records. "B" of
                "before" is the control of the difference games: trained again, nothing deleted.

        Raises:
            AuditError: the optimiser saw other records than the design says; training diverged; out of memory.
            StoreError: the store cannot be written; models committed before stay.
        """
        orders = self.orders(name, replica=replica)
        label = orders[0].fleet
        if label in self._fleets:
            return self._fleets[label]
        missing = {order.key for order in orders if self.store.get(order.key) is None}
        tasks: list[tuple[Task, int]] = []
        for number in sorted({order.group for order in orders if order.key in missing}):
            group = [order for order in orders if order.group == number]
            task = TrainGroup(
                tuple(order.key for order in group),
                tuple(order.ids for order in group),
                tuple(order.seed for order in group),
                tuple(order.inputs for order in group),
                tuple({"fleet": order.fleet, "model": order.index} for order in group),
            )
            tasks.append((task, sum(order.key in missing for order in group)))
        self._running.run(f"train {label}", tasks, len(orders))
        self._fleets[label] = tuple(self._ref(order.fleet, order.index, order.key) for order in orders)
        return self._fleets[label]

    @property
    def offered(self) -> Need:
        """What a method of deletion can have here."""
        offered = Need.FORGET_DATA | Need.RETAIN_DATA
        if self.design.records(0, Role.VALIDATION).size:
            offered |= Need.VALIDATION_DATA
        return offered | (Need.HISTORY if self.stack == 1 else Need.NOTHING)

    def unlearned(
        self, name: str, method: "UnlearningMethod", *, request: NextRequest | None = None
    ) -> tuple[ModelRef, ...]:
        """Return the fleet "before" after a method forgot each model's FORGOTTEN records.

        Args:
            name: the subject's name, for people; equal methods of two names are computed once.
            method: what deletes.
            request: one of several that come one after another: it says which models are deleted from, and which
                records go now. What is retained are the design's background and KEPT records all the same.

        Raises:
            MissingNeed: the method needs validation records that the design has not, or the history of models that
                were trained in a stack.
            InvalidInput: one of several requests, and a method that undoes training: it starts from the model as it was
                trained and forgets all requests so far at once.
            AuditError: it returned something else than a model of the same architecture.
        """
        check_needs([(method.name, method.needs)], self.offered)
        if request is not None and Need.HISTORY in method.needs:
            raise InvalidInput(
                f"{method.name} undoes training, so it works on models as they were trained; leave `request` out: the "
                "design of this workspace says all that is to be forgotten by now"
            )
        parents, orders = request.models if request is not None else self.fleet("before"), self.orders("before")
        # Draws of a later request are its own: the same noise twice would not be noise.
        later: tuple[str | int, ...] = ("request", request.number) if request is not None and request.number > 1 else ()
        reads = method.needs | getattr(method, "optional", Need.NOTHING)
        validation = self.design.records(0, Role.VALIDATION) if Need.VALIDATION_DATA in reads else NOTHING
        about = describe_method(method)
        keys: list[str] = []
        tasks: list[tuple[Task, int]] = []
        for parent in parents:
            forgotten = self.design.records(parent.index, Role.FORGOTTEN)
            forget = forgotten if request is None else request.forget[parent.index]
            retain = self.design.records(parent.index, Role.BACKGROUND, Role.KEPT)
            seed = child_seed(self.seed, "unlearn", method.name, parent.index, *later)
            inputs: dict[str, Json] = {
                **self._common,
                "recipe": plain_json(self.recipe.key_parts()),
                "parent": parent.key,
                "parent_weights": parent.weights,
                "method": about,
                "forget": ids_digest(forget),
                "retain": ids_digest(retain),
                "seed": seed,
            }
            if validation.size:
                inputs["validation"] = ids_digest(validation)
            history = orders[parent.index].seed if Need.HISTORY in method.needs else None
            if history is not None:
                inputs["history"] = history
            key = content_key("unlearn", UNLEARN_VERSION, inputs)
            keys.append(key)
            if self.store.get(key) is None:
                label: dict[str, Json] = {"fleet": name, "model": parent.index}
                task = UnlearnModel(key, parent.key, method, forget, retain, validation, seed, history, inputs, label)
                tasks.append((task, 1))
        self._running.run(f"unlearn {name}", tasks, len(keys))
        self._fleets[name] = tuple(
            self._ref(name, parent.index, key) for parent, key in zip(parents, keys, strict=True)
        )
        return self._fleets[name]

    def model(self, ref: ModelRef) -> "nn.Module":
        """Return a model of the store in eval mode, on the device; new on every call."""
        return self._bench.load_model(ref.key)

    def oracles(
        self, models: Sequence[ModelRef], *, white_box: bool = True, labels_only: bool = False
    ) -> tuple[ModelOracle, ...]:
        """Return live, counted access to each model; a model is loaded when it is first asked.

        At most two of the models are in memory at a time. What is asked is not kept in the store.

        Args:
            models: m models.
            white_box: whether the adversary has the parameters.
            labels_only: whether the models give their predicted class and nothing else.

        Raises:
            MissingNeed: a model of which only answers were adopted.
            InvalidInput: labels only and white box at once.
        """
        unasked = [f"model {ref.index} of {ref.fleet!r}" for ref in models if ref.weights is None]
        if unasked:
            raise MissingNeed(
                f"{len(unasked)} models cannot be asked live, only their answers were adopted: "
                f"{', '.join(unasked[:5])}; adopt weights instead, or leave out attacks that ask live"
            )
        load = lru_cache(maxsize=LOADED)(self._bench.load_model)
        return tuple(
            ModelOracle(
                partial(load, ref.key),
                self.device_data,
                self.runtime,
                labels_only=labels_only,
                white_box=white_box,
                fresh=self._fresh,
            )
            for ref in models
        )

    def _fresh(self, seed: int) -> "nn.Module":
        return self._bench.fresh_module(seed)

    def _ref(self, fleet: str, index: int, key: str) -> ModelRef:
        entry = self._entry(key)
        seconds = float(str(entry.meta.get("seconds", 0.0)))
        return ModelRef(fleet, index, key, weights_digest(entry), seconds, str(entry.meta.get("provenance")))

    def _entry(self, key: str) -> Entry:
        entry = self.store.get(key)
        if entry is None:
            raise StaleArtifact(f"entry {key[:12]} is not in the store any more; run the same command again")
        return entry

    # -- answers ------------------------------------------------------------------------------------------------------

    def answers_key(
        self, model: str, weights: str | None, ids: NDArray[np.int64], queries: Sequence[str]
    ) -> tuple[str, dict[str, Json]]:
        """Return the key of one model's answers and what it is made of."""
        inputs: dict[str, Json] = {
            "data": self.dataset.digest,
            "ids": ids_digest(ids),
            "queries": list(queries),
            "model": model,
        }
        if weights is not None:  # answers that were adopted without weights are what they are on any machine
            inputs |= {"weights": weights, "batch": self.runtime.inference_batch, **self._common}
        return content_key("answers", ANSWERS_VERSION, inputs), inputs

    def answers(
        self, models: Sequence[ModelRef], ids: NDArray[np.int64], queries: Sequence[str] = ("identity",)
    ) -> NDArray[np.float32]:
        """Return the models' logits, asking those whose answers the store does not hold.

        Args:
            models: m models.
            ids: (n,) int64 record ids, in any order.
            queries: q fixed variations.

        Returns:
            (m, n, q, c) float32, read-only; a file mapped into memory where it would take more than 2 GB.
        """
        if not models:
            raise InvalidInput("models is empty; give at least one model")
        if len(set(queries)) < len(queries) or not queries:
            raise InvalidInput(f"queries={list(queries)!r}: name at least one query, and each once")
        ids = np.asarray(ids, np.int64)
        found = [self._answers_of(model, ids, tuple(queries)) for model in models]
        tasks: list[tuple[Task, int]] = [(task, len(task.keys)) for _, task in found if task is not None]
        self._running.run(f"ask {models[0].fleet}", tasks, len(models) * len(queries))
        return self._gathered([keys for keys, _ in found], len(queries))

    def _answers_of(
        self, model: ModelRef, ids: NDArray[np.int64], queries: tuple[str, ...]
    ) -> tuple[tuple[str, ...], InferAnswers | None]:
        """Return the keys under which a model's answers lie, in the order of queries, and what has to be asked first.

        Answers are kept query by query, so that a plan with one more attack asks what that attack adds and no more.
        Where answers to these very queries lie together (adopted ones do), they are taken as they are.
        """
        if len(queries) > 1 and self.store.get(together := self.answers_key(model.key, model.weights, ids, queries)[0]):
            return (together,), None
        named = [self.answers_key(model.key, model.weights, ids, (query,)) for query in queries]
        keys = tuple(key for key, _ in named)
        missing = [place for place, key in enumerate(keys) if self.store.get(key) is None]
        if not missing:
            return keys, None
        if model.weights is None:
            raise AuditError(
                f"model {model.index} of {model.fleet!r} was adopted as answers on other records or "
                "queries; export the orders again with this plan and adopt what they ask for"
            )
        task = InferAnswers(
            tuple(keys[place] for place in missing),
            model.key,
            ids,
            tuple(queries[place] for place in missing),
            tuple(named[place][1] for place in missing),
            {"fleet": model.fleet, "model": model.index},
        )
        return keys, task

    def _gathered(self, keys: list[tuple[str, ...]], n_queries: int) -> NDArray[np.float32]:
        """Read stored answers of models, each under one key or a key a query, into one (m, n, q, c) array."""
        first = self._entry(keys[0][0]).array(LOGITS)
        shape = (len(keys), first.shape[0], n_queries, first.shape[2])
        if int(np.prod(shape)) * 4 <= IN_MEMORY:
            logits: NDArray[np.float32] = np.empty(shape, np.float32)
        else:
            name = hashlib.sha256("".join(key for row in keys for key in row).encode()).hexdigest()[:16]
            path = self.store.scratch / f"answers-{name}-{time.time_ns()}"
            logits = np.memmap(path, np.float32, "w+", shape=shape)
            path.unlink()  # the space is given back when the last array over it is gone
        for row, parts in enumerate(keys):
            at = 0
            for key in parts:
                part = self._entry(key).array(LOGITS)
                logits[row, :, at : at + part.shape[1]] = part
                at += part.shape[1]
        logits.flags.writeable = False
        return logits

    @property
    def device_data(self) -> DeviceData:
        """The records on the device."""
        return self._bench.data

    def close(self) -> None:
        """Let go of the engine's workers."""
        self._running.close()

    # -- what it was ------------------------------------------------------------------------------------------------

    @property
    def costs(self) -> tuple[Cost, ...]:
        """Seconds of each step, with how many pieces were computed now and how many were in the store."""
        return self._running.costs

    def cost_fraction(self, name: str) -> float | None:
        """Seconds a model of a subject's deletion as a fraction of retraining one (fleet "retrained A"), as recorded.

        None where one of them was not made here, or took no measurable time.
        """
        subject, retrained = self._fleets.get(name, ()), self._fleets.get("retrained A", ())
        if not subject or not retrained or any(ref.provenance != COMPUTED for ref in (*subject, *retrained)):
            return None
        spent = float(np.mean([ref.seconds for ref in subject]))
        full = float(np.mean([ref.seconds for ref in retrained]))
        return spent / full if full > 0 else None

    def fleet_digest(self, models: Sequence[ModelRef]) -> str:
        """Return "sha256:..." over the weights (or, where there are none, the keys) of models, in their order."""
        text = "\n".join(ref.weights or ref.key for ref in models)
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    @property
    def device_name(self) -> str:
        """The device in words."""
        device = self.runtime.torch_device()
        if device.type == "cuda":
            return f"{torch.cuda.get_device_name(device)} ({device})"
        return f"{device.type} ({platform.machine()})"

    def has_seen_ids(self, ref: ModelRef) -> bool:
        """Whether the trainer's record of what a model's optimiser saw is in the store; adopted models have none."""
        return SEEN in self._entry(ref.key).files

    def seen_ids(self, ref: ModelRef) -> NDArray[np.int64]:
        """Return the ids that the optimiser saw while a model was trained, ascending, as the trainer recorded them."""
        entry = self._entry(ref.key)
        if SEEN not in entry.files:
            raise AuditError(
                f"model {ref.index} of {ref.fleet!r} has no record of what its optimiser saw ({ref.provenance})"
            )
        seen: NDArray[np.int64] = entry.array(SEEN)
        return seen
