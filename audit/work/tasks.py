"""The pieces of work on models: each commits what it made to the store and returns the keys."""

import dataclasses
import importlib.metadata
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mnemoscope.audit.errors import AuditError, InvalidInput, StaleArtifact
from mnemoscope.audit.models.checkpoints import load_into, model_bytes
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.inference import infer_logits
from mnemoscope.audit.models.recipes import Recipe, Runtime
from mnemoscope.audit.models.stacking import train_stacked
from mnemoscope.audit.models.training import Trained, fresh_model, train_model
from mnemoscope.audit.rng import generator
from mnemoscope.audit.work.keys import Json, plain_json
from mnemoscope.audit.work.plugins import Plugin, load_plugin, plugin_of, source_digest
from mnemoscope.audit.work.store import Entry, Store

if TYPE_CHECKING:
    from mnemoscope.audit.models.protocol import TrainsItself, UnlearningMethod
    from mnemoscope.audit.models.subject import Subject
    from mnemoscope.audit.records.datasets import Dataset

__all__ = ["Bench", "InferAnswers", "TrainGroup", "UnlearnModel", "WEIGHTS", "describe_method", "platform_parts"]

WEIGHTS = "model.safetensors"
SEEN = "seen.npy"
LOGITS = "logits.npy"
COMPUTED = "computed"
ADOPTED = "adopted"

TRAIN_VERSION = 1
UNLEARN_VERSION = 2
ANSWERS_VERSION = 1
STACK_VERSION = 1
"""Raised by hand when code changes what a task of this kind computes."""

Ids = NDArray[np.int64]


def platform_parts(runtime: Runtime) -> dict[str, Json]:
    """Everything about this machine that can change a bit: device kind, threads, versions of what computes."""
    device = runtime.torch_device()
    if device.type == "cpu":
        kind = f"cpu {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    elif device.type == "cuda":
        kind = f"cuda {torch.cuda.get_device_name(device)}"
    else:
        kind = device.type
    return {
        "device": kind,
        "threads": runtime.threads or torch.get_num_threads(),
        "torch": torch.__version__,
        "torchvision": importlib.metadata.version("torchvision"),
        "numpy": np.__version__,
    }


@dataclass(frozen=True, eq=False)
class Bench:
    """What every task of an audit shares; it travels to a worker once.

    Attributes:
        store: where results go.
        dataset: the records.
        recipe: the training.
        runtime: device, threads.
        subject: the user's own model definition.
        trainer: the method that trains all models of this audit itself; None where the recipe does.
    """

    store: Store
    dataset: "Dataset"
    recipe: Recipe
    runtime: Runtime
    subject: "Subject | None" = None
    trainer: "TrainsItself | None" = None
    _cache: dict[str, DeviceData] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the device's copy of the records behind, and send the user's model definition by its path."""
        state = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)} | {"_cache": {}}
        if self.subject is not None:
            state["subject"] = (self.subject.path, self.subject.digest)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the state, loading the user's model definition again."""
        if state["subject"] is not None:
            from mnemoscope.audit.models.subject import load_subject

            path, digest = state["subject"]
            state["subject"] = load_subject(path)
            if state["subject"].digest != digest:
                raise StaleArtifact(f"{path} changed while the audit ran; run the same command again")
        for name, value in state.items():
            object.__setattr__(self, name, value)

    @property
    def data(self) -> DeviceData:
        """The records on the device, moved there on first use."""
        if "data" not in self._cache:
            self._cache["data"] = DeviceData(self.dataset, self.runtime.torch_device(), subject=self.subject)
        return self._cache["data"]

    def fresh_module(self, seed: int) -> nn.Module:
        """Return an untrained model of the audit."""
        if self.trainer is not None:
            return self.trainer.fresh(self.recipe, self.data)
        return fresh_model(self.recipe, self.data, seed=seed)

    def load_model(self, key: str) -> nn.Module:
        """Return the model of a key in eval mode, on the device; new on every call.

        Raises:
            StaleArtifact: it is not in the store (any more), or damaged.
            UnsupportedModel: it does not fit the recipe's architecture.
            AuditError: only its answers are known.
        """
        entry = self.store.get(key)
        if entry is None:
            raise StaleArtifact(f"model {key[:12]} is not in the store any more; run the same command again")
        if WEIGHTS not in entry.files:
            raise AuditError(
                f"of model {key[:12]} only answers were adopted; adopt weights instead, into a new store, "
                "or leave out what needs them"
            )
        module = self.fresh_module(seed=0)
        load_into(module, entry.path(WEIGHTS))
        return module.to(self.data.device).eval()


@contextmanager
def enough_memory(doing: str, remedy: str) -> Iterator[None]:
    """Turn running out of memory into a sentence; nothing is retried in another way, for that would change bits."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise AuditError(f"out of memory while {doing}; {remedy}. Everything committed before stays") from error
    except RuntimeError as error:
        if "allocate memory" not in str(error) and "out of memory" not in str(error):
            raise
        raise AuditError(f"out of memory while {doing}; {remedy}. Everything committed before stays") from error


def check_seen(seen: Ids, ids: Ids, what: str, *, drawn: bool = False) -> None:
    """Membership is what the optimiser saw: refuse a model that was trained on other records than designed.

    With ``drawn`` batches (DP-SGD) a record may stay out of every one of them by chance: about e^-epochs of them do. It
    is a member all the same, for the guarantee is about records that could be drawn.
    """
    lacking, extra = np.setdiff1d(ids, seen), np.setdiff1d(seen, ids)
    if (lacking.size and not drawn) or extra.size:
        raise AuditError(
            f"{what}: the optimiser saw {seen.size} records, the design says {ids.size}: {lacking.size} were never "
            f"used (first ids {lacking[:5].tolist()}), {extra.size} do not belong (first ids {extra[:5].tolist()}); "
            "roles would be wrong, so the model is not kept. Train at least one epoch over all records"
        )


@dataclass(frozen=True, eq=False)
class TrainGroup:
    """Train one model, or one stack of models; each commits on its own.

    Attributes:
        keys: of the members.
        ids: (k,) int64 training ids of each.
        seeds: of each.
        inputs: what each key was made of.
        labels: notes for people on each, e.g. fleet and number.
    """

    keys: tuple[str, ...]
    ids: tuple[Ids, ...]
    seeds: tuple[int, ...]
    inputs: tuple[dict[str, Json], ...]
    labels: tuple[dict[str, Json], ...]

    def __call__(self, bench: Bench) -> tuple[str, ...]:
        """Train and commit; members that are in the store already are left as they are."""
        size, runtime = len(self.keys), bench.runtime
        begun = time.perf_counter()
        remedy = "choose a smaller runtime.stack (other keys, so models trained so far are not reused) or batch_size"
        with enough_memory(f"training {size} models together", remedy):
            trained: list[Trained]
            if size == 1:
                train = train_model if bench.trainer is None else bench.trainer.train
                trained = [train(bench.recipe, bench.data, self.ids[0], seed=self.seeds[0], runtime=runtime)]
            else:
                together = dataclasses.replace(runtime, stack=size)
                trained = train_stacked(bench.recipe, bench.data, self.ids, self.seeds, runtime=together)
        seconds = (time.perf_counter() - begun) / size
        for key, ids, inputs, label, model in zip(self.keys, self.ids, self.inputs, self.labels, trained, strict=True):
            if key in bench.store and bench.store.get(key) is not None:
                continue
            check_seen(model.seen_ids, ids, f"model {key[:12]}", drawn=bench.recipe.private)
            bench.store.put(
                key,
                {WEIGHTS: model_bytes(model.module), SEEN: np.asarray(model.seen_ids, np.int64)},
                inputs=inputs,
                meta={"kind": "train", **label, "seconds": seconds, "provenance": COMPUTED, "loss": list(model.loss)},
            )
        return self.keys


@dataclass(frozen=True, eq=False)
class UnlearnModel:
    """Let a method forget in one model.

    Attributes:
        key: of the model after deletion.
        parent: key of the model before.
        method: the method.
        forget: ids to forget.
        retain: ids that stay.
        validation: ids that the method may train on.
        seed: of the method's generator.
        history: seed of the parent's training, for methods that undo it.
        inputs: what the key was made of.
        label: notes for people, e.g. fleet and number.
    """

    key: str
    parent: str
    method: "UnlearningMethod"
    forget: Ids
    retain: Ids
    validation: Ids
    seed: int
    history: int | None
    inputs: dict[str, Json]
    label: dict[str, Json]

    def __call__(self, bench: Bench) -> tuple[str, ...]:
        """Unlearn and commit."""
        from mnemoscope.audit.models.history import History
        from mnemoscope.audit.records.request import Request

        model = bench.load_model(self.parent)
        request = Request("records", self.forget, self.retain, self.validation)
        more = {}
        if self.history is not None:
            more["history"] = History(np.union1d(self.forget, self.retain), self.history)
        begun = time.perf_counter()
        with enough_memory(f"{self.method.name} unlearns model {self.parent[:12]}", "choose a smaller batch_size"):
            after = self.method.unlearn(
                model,
                request,
                recipe=bench.recipe,
                data=bench.data,
                runtime=bench.runtime,
                rng=generator(self.seed),
                **more,
            )
        seconds = time.perf_counter() - begun
        if not isinstance(after, nn.Module):
            raise AuditError(f"method {self.method.name!r} returned a {type(after).__name__}; it must return a module")
        shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        if {name: tuple(tensor.shape) for name, tensor in after.state_dict().items()} != shapes:
            raise AuditError(
                f"method {self.method.name!r} returned another architecture; keep names and shapes of tensors"
            )
        bench.store.put(
            self.key,
            {WEIGHTS: model_bytes(after)},
            inputs=self.inputs,
            meta={"kind": "unlearn", **self.label, "seconds": seconds, "provenance": COMPUTED},
        )
        return (self.key,)

    def __getstate__(self) -> dict[str, Any]:
        """Send a method from the user's own file by path, for its module has no importable name."""
        state = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        plugin = plugin_of(self.method)
        if plugin is not None:
            state["method"] = _FromFile(plugin.path, plugin.digest, type(self.method).__name__, _settings(self.method))
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the state, loading the method from its file where it came from one."""
        if isinstance(state["method"], _FromFile):
            state["method"] = state["method"].load()
        for name, value in state.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True)
class _FromFile:
    path: Path
    digest: str
    name: str
    settings: dict[str, Json]

    def load(self) -> object:
        plugin: Plugin = load_plugin(f"{self.path}:{self.name}")
        if plugin.digest != self.digest:
            raise StaleArtifact(f"{self.path} changed while the audit ran; run the same command again")
        return plugin.value(**self.settings)  # type: ignore[operator]


@dataclass(frozen=True, eq=False)
class InferAnswers:
    """Record one model's answers; those to each query are a commit of their own.

    Attributes:
        keys: of the answers, one for each query.
        model: key of the model.
        ids: (n,) int64.
        queries: q fixed variations.
        inputs: what each key was made of.
        label: notes for people, e.g. fleet and number.
    """

    keys: tuple[str, ...]
    model: str
    ids: Ids
    queries: tuple[str, ...]
    inputs: tuple[dict[str, Json], ...]
    label: dict[str, Json]

    def __call__(self, bench: Bench) -> tuple[str, ...]:
        """Ask and commit (n, 1, c) float32 logits under each key."""
        begun = time.perf_counter()
        with enough_memory("recording answers", "choose a smaller runtime.inference_batch"):
            logits = infer_logits(
                bench.load_model(self.model), bench.data, self.ids, runtime=bench.runtime, queries=self.queries
            )
        seconds = (time.perf_counter() - begun) / len(self.queries)
        for place, (key, inputs) in enumerate(zip(self.keys, self.inputs, strict=True)):
            bench.store.put(
                key,
                {LOGITS: logits[:, place : place + 1]},
                inputs=inputs,
                meta={"kind": "answers", **self.label, "seconds": seconds, "provenance": COMPUTED},
            )
        return self.keys


def _settings(method: object) -> dict[str, Json]:
    if not dataclasses.is_dataclass(method) or isinstance(method, type):
        raise InvalidInput(
            f"method {getattr(method, 'name', method)!r} is no dataclass; make it a frozen dataclass whose fields are "
            "its settings, so that other settings give another key"
        )
    values = {f.name: getattr(method, f.name) for f in dataclasses.fields(method) if f.init}
    settings = plain_json(values, f"settings of {type(method).__name__}")
    return settings if isinstance(settings, dict) else {}


def describe_method(method: "UnlearningMethod") -> dict[str, Json]:
    """Everything about a method that can change its result: name, settings, version; its source where it is not ours.

    Raises:
        InvalidInput: no dataclass, settings that JSON cannot carry, or a class without a source file.
    """
    kind = type(method)
    parts: dict[str, Json] = {"name": method.name, "class": kind.__qualname__, "settings": _settings(method)}
    plugin = plugin_of(method)
    if plugin is not None:
        return {**parts, "source": plugin.digest}
    if kind.__module__.split(".")[0] == "mnemoscope":
        return {**parts, "module": kind.__module__, "version": int(getattr(kind, "VERSION", 1))}
    import inspect

    try:
        file = inspect.getsourcefile(kind)
    except TypeError:
        file = None
    if file is None or not Path(file).is_file():
        raise InvalidInput(
            f"method {method.name!r}: class {kind.__qualname__} has no source file, so a change of its "
            "code could not be noticed; save it in a file"
        )
    return {**parts, "source": source_digest(Path(file))}


def weights_digest(entry: Entry) -> str | None:
    """Hex sha256 of a model's weights; None where only its answers are known."""
    return entry.files[WEIGHTS].sha256 if WEIGHTS in entry.files else None
