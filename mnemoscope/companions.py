"""Models that stand beside the user's own: retrained references and shadows, read from a folder or trained here."""

import dataclasses
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.models.recipes import RECIPES, SUBJECT, Recipe, Runtime
from mnemoscope.audit.rng import child_seed
from mnemoscope.audit.work.keys import content_key, ids_digest
from mnemoscope.progress import Progress

if TYPE_CHECKING:
    from torch import nn

    from mnemoscope.audit.models.data import DeviceData
    from mnemoscope.audit.records.datasets import Dataset
    from mnemoscope.audit.work.store import Store

__all__ = ["CHECKPOINTS", "Workbench", "checkpoints_in", "choose_recipe", "shadow_sides"]

CHECKPOINTS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
VERSION = 1
TRIAL_STEPS = 8


def choose_recipe(name: str | None, *, subject: str, is_image: bool) -> Recipe:
    """Return how the user's architecture is trained.

    Args:
        name: of ``RECIPES``, or a TOML file with fields of ``Recipe``; None takes one that suits the kind of data.
        subject: digest of the user's ``subject.py``, which replaces the recipe's architecture.
        is_image: whether the records are images.

    Raises:
        InvalidInput: no such name or file, or a field that a recipe does not have.
    """
    own: dict[str, Any] = {"architecture": SUBJECT, "subject": subject}
    if name is None:
        name = "cifar-small-cnn" if is_image else "location-mlp"
    if name in RECIPES:
        return dataclasses.replace(RECIPES[name], **own)
    path = Path(name)
    if path.suffix != ".toml" or not path.is_file():
        raise InvalidInput(f"recipe={name!r}: must be one of {', '.join(RECIPES)}, or a TOML file of recipe fields")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"recipe={name}: cannot be read as TOML ({error})") from error
    allowed = {field.name for field in dataclasses.fields(Recipe)} - set(own)
    unknown = sorted(set(values) - allowed)
    if unknown:
        raise InvalidInput(f"recipe={name}: unknown {', '.join(unknown)}; allowed: {', '.join(sorted(allowed))}")
    if "milestones" in values:
        values["milestones"] = tuple(values["milestones"])
    try:
        return Recipe(**values, **own)
    except TypeError as error:
        raise InvalidInput(f"recipe={name}: a value has a wrong type ({error})") from error


def checkpoints_in(folder: Path) -> list[Path]:
    """List the checkpoints of a folder by name; an empty one is refused."""
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is no folder; give a folder of checkpoints ({', '.join(CHECKPOINTS)})")
    found = sorted(path for path in folder.iterdir() if path.suffix in CHECKPOINTS)
    if not found:
        raise InvalidInput(f"{folder} holds no checkpoint; files must end in {', '.join(CHECKPOINTS)}")
    return found


def shadow_sides(n_models: int, n_records: int, *, rng: np.random.Generator) -> NDArray[np.int8]:
    """Draw which records each shadow model is trained on: each record in half of the models, exactly.

    Returns:
        (n_models, n_records) int8, 1 = trained on, 0 = not; column sums differ by at most one.

    >>> shadow_sides(4, 3, rng=np.random.default_rng(0)).sum(axis=0).tolist()
    [2, 2, 2]
    """
    order = rng.random((n_models, n_records)).argsort(axis=0)
    half = n_models // 2 + (rng.random(n_records) < 0.5) * (n_models % 2)
    return (order < half).astype(np.int8)


@dataclass(frozen=True, eq=False)
class Workbench:
    """Trains the user's architecture, and asks any of its models.

    Attributes:
        data: the records on the device, with the user's subject.
        dataset: the same records with their digests.
        store: where trained models are kept, each committed on its own.
        runtime: device, threads.
        seed: root seed.
        progress: told of each model.
    """

    data: "DeviceData"
    dataset: "Dataset"
    store: "Store"
    runtime: Runtime
    seed: int
    progress: Progress

    def load(self, path: Path) -> "nn.Module":
        """Build the user's model and read a checkpoint into it."""
        from mnemoscope.audit.models.checkpoints import load_into

        module = self.fresh()
        load_into(module, path)
        return module

    def fresh(self) -> "nn.Module":
        """Build the user's model untrained."""
        from mnemoscope.audit.models.training import fresh_model

        assert self.data.subject is not None
        recipe = Recipe(SUBJECT, subject=self.data.subject.digest)
        return fresh_model(recipe, self.data, seed=self.seed)

    def answers(self, module: "nn.Module", ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Ask a model that was trained here: (n, 1, c) logits in the order of ids, classes as in the data set."""
        from mnemoscope.audit.models.inference import infer_logits

        return infer_logits(module, self.data, ids, runtime=self.runtime)

    def delivered(self, path: Path, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Ask a checkpoint of the user's: (n, 1, c) logits, its outputs brought into the data set's class order."""
        logits = self.answers(self.load(path), ids)
        assert self.data.subject is not None
        own, classes = self.data.subject.classes, self.dataset.classes
        if own is None:
            return logits
        unknown = sorted(set(classes) - set(own))
        if unknown or len(own) != logits.shape[-1]:
            raise InvalidInput(
                f"subject.py: classes names {len(own)} outputs and the model has {logits.shape[-1]}; "
                f"classes of the data that it does not name: {', '.join(unknown[:5]) or 'none'}. Name every output once"
            )
        order = [own.index(name) for name in classes]
        return logits[..., order + [i for i in range(len(own)) if i not in order]]

    def estimate(self, recipe: Recipe, n_records: int) -> float:
        """Measure a few steps and return the seconds that training one model will take."""
        from mnemoscope.audit.models.training import fit

        module, ids = self.fresh(), self.data.ids
        steps = -(-n_records // recipe.batch_size) * recipe.epochs

        def seconds(count: int) -> float:
            begun = time.perf_counter()
            fit(module, recipe, self.data, ids, seed=0, runtime=self.runtime, max_steps=count)
            return time.perf_counter() - begun

        short = seconds(1)  # what happens once: kernels are chosen, memory is taken
        return short + max(seconds(1 + TRIAL_STEPS) - seconds(1), 0.0) / TRIAL_STEPS * steps

    def train(
        self, what: str, recipe: Recipe, train_ids: Sequence[NDArray[np.int64]], ask: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], int, str]:
        """Train models that are not in the store yet, after telling how long it takes, and ask them all.

        Args:
            what: kind of model, part of the key: another kind has other seeds.
            recipe: how.
            train_ids: one array of ids a model.
            ask: (n,) ids to ask.

        Returns:
            Logits (models, n, 1, c); how many models were trained now; a digest over the models' files.
        """
        keys = [self._key(what, recipe, ids, k) for k, ids in enumerate(train_ids)]
        missing = sum(self.store.get(key) is None for key in keys)
        if missing:
            each = self.estimate(recipe, max(ids.size for ids in train_ids))
            self.progress.note(
                f"training {missing} {what} models on about {train_ids[0].size:,} records each: "
                f"{each:.0f} s a model, {missing * each / 60:.1f} min in all"
            )
        logits, digests = [], []
        for k, (key, ids) in enumerate(zip(keys, train_ids, strict=True)):
            self.progress.step(f"train {what} models", k, len(keys))
            path, digest = self._model(what, key, recipe, ids, k)
            logits.append(self.answers(self.load(path), ask))
            digests.append(digest)
        self.progress.step(f"train {what} models", len(keys), len(keys))
        return np.stack(logits), missing, content_key(what, VERSION, {"models": digests})

    def _seed(self, what: str, k: int) -> int:
        return child_seed(self.seed, "compare", what, k)

    def _key(self, what: str, recipe: Recipe, ids: NDArray[np.int64], k: int) -> str:
        import torch

        parts = {
            "what": what,
            "recipe": recipe.key_parts(),
            "data": self.dataset.digest,
            "ids": ids_digest(np.sort(ids)),
            "seed": self._seed(what, k),
            "torch": torch.__version__,
            "device": self.data.device.type,
            "threads": self.runtime.threads or torch.get_num_threads(),
        }
        return content_key("compare-train", VERSION, parts)

    def _model(self, what: str, key: str, recipe: Recipe, ids: NDArray[np.int64], k: int) -> tuple[Path, str]:
        from mnemoscope.audit.models.checkpoints import model_bytes
        from mnemoscope.audit.models.training import train_model

        entry = self.store.get(key)
        if entry is None:
            trained = train_model(recipe, self.data, ids, seed=self._seed(what, k), runtime=self.runtime)
            if not np.array_equal(trained.seen_ids, np.sort(ids)):
                raise InvalidInput(
                    f"{what} model {k}: the optimiser saw {trained.seen_ids.size} of {ids.size} records; "
                    "give the recipe at least one epoch"
                )
            content = model_bytes(trained.module)
            entry = self.store.put(key, {"model.safetensors": content}, inputs={"what": what, "model": k})
        return entry.path("model.safetensors"), entry.files["model.safetensors"].sha256
