"""A fleet of real, tiny models for the contract of attacks that ask models live; torch is loaded when one is made."""

from functools import cache, partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.views import Answers, Reference, Side
from mnemoscope.audit.testing_training import descended, drawn_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mnemoscope.audit.models.data import DeviceData
    from mnemoscope.audit.models.oracle import ModelOracle

__all__ = ["balanced_sides", "trained_fleet"]

FEATURES, HIDDEN, STEPS = 16, 32, 40
"""Sizes of the models, and of their training: full batches, enough to know every record by heart."""


class _World(NamedTuple):
    """Weights of all models after and before deletion, a tensor a name with the models in front; and the records."""

    after: "dict[str, Tensor]"
    before: "dict[str, Tensor]"
    data: "DeviceData"
    ids: NDArray[np.int64]
    population: NDArray[np.int64]
    side: NDArray[np.int8]


def balanced_sides(n_models: int, n_records: int, rng: np.random.Generator) -> NDArray[np.int8]:
    """Draw sides (m, n): for every record a third of each half of the models is IN, a third OUT, a third left out."""
    half = np.repeat(np.array([Side.IN, Side.OUT, Side.LEAVE_OUT], np.int8), n_models // 6)
    return np.concatenate([rng.permuted(np.tile(half[:, None], (1, n_records)), axis=0) for _ in range(2)], axis=0)


def trained_fleet(
    leak: bool,
    *,
    n_models: int = 12,
    n_records: int = 36,
    n_population: int = 40,
    n_classes: int = 4,
    queries: tuple[str, ...] = ("identity",),
    white_box: bool = True,
    labels_only: bool = False,
    seed: int = 0,
) -> Reference:
    """Train a fleet on labels that mean nothing, so that all a model knows it knows by heart, and record its answers.

    Records are 16 normal values with a random label; models have one hidden layer. Sides are balanced thirds in two
    folds, as in ``toy_fleet``; left-out records are not trained on. The models before deletion are the same models
    after twice as many steps. Training is done once for each set of arguments; the oracles are new in every call, and
    so are their counts and what they recall.

    Args:
        leak: whether a model is trained on its IN records, or on as many records that nobody audits.
        n_models: a multiple of 6.
        n_records: audited records, in random order.
        n_population: records of no model.
        n_classes: at least 2.
        queries: names of the recorded answers.
        white_box: whether the oracles hand out their module.
        labels_only: whether models and oracles give predicted classes alone.
        seed: of everything.
    """
    world = _world(leak, n_models, n_records, n_population, n_classes, seed)
    fold = np.repeat(np.array([0, 1], np.int8), n_models // 2)
    fold.flags.writeable = False

    def reference(weights: "dict[str, Tensor]", when: str, before: Reference | None) -> Reference:
        modules = [_module(weights, k, n_classes) for k in range(n_models)]
        audited, population = _recorded(leak, n_models, n_records, n_population, n_classes, seed, when, queries)
        names = queries if queries != ("identity",) * len(queries) or len(queries) == 1 else ()
        label = world.data.y.numpy()
        return Reference(
            world.ids,
            label[world.ids],
            audited,
            side=world.side,
            population=Answers(
                world.population, label[world.population], population, queries=names, labels_only=labels_only
            ),
            before=before,
            fold=fold,
            oracles=tuple(_oracle(module, world.data, white_box, labels_only) for module in modules),
            queries=names,
            labels_only=labels_only,
        )

    return reference(world.after, "after", reference(world.before, "before", None))


@cache
def _world(leak: bool, n_models: int, n_records: int, n_population: int, n_classes: int, seed: int) -> _World:
    from mnemoscope.audit.models.data import DeviceData
    from mnemoscope.audit.records.datasets import Dataset

    rng = np.random.default_rng(seed)
    total = 2 * n_records + n_population
    labels = rng.permuted(np.arange(total, dtype=np.int64) % n_classes)
    dataset = Dataset(
        name="toy",
        kind="table",
        ids=np.arange(total, dtype=np.int64),
        keys=tuple(str(k) for k in range(total)),
        labels=labels,
        classes=tuple(str(k) for k in range(n_classes)),
        digests=np.zeros((total, 32), np.uint8),
        values=rng.normal(0.0, 1.0, (total, FEATURES)).astype(np.float32),
    )
    audited, population, others = np.split(rng.permutation(total).astype(np.int64), [n_records, -n_records])
    side = balanced_sides(n_models, n_records, rng)
    # Without a leak, models differ as much as with one, by records that nobody audits.
    trained = side if leak else balanced_sides(n_models, n_records, rng)
    data = DeviceData(dataset)
    after, before = _memorise(data, audited if leak else others, trained == Side.IN, n_classes, seed)
    for array in (audited, population, side):
        array.flags.writeable = False
    return _World(after, before, data, audited, population, side)


def _memorise(
    data: "DeviceData", ids: NDArray[np.int64], mask: NDArray[np.bool_], n_classes: int, seed: int
) -> "tuple[dict[str, Tensor], dict[str, Tensor]]":
    """Train all models at once on their masked records; return the weights after half of the steps, and after all."""
    import torch

    start = drawn_weights(mask.shape[0], FEATURES, HIDDEN, n_classes, seed=seed)
    positions = data.positions(ids)
    x, y = data.inputs(positions), data.y[positions]
    half, whole = descended(start, x, y, mask, steps=(STEPS, STEPS), activation=torch.relu)
    return half, whole


def _module(weights: "dict[str, Tensor]", model: int, n_classes: int) -> "nn.Module":
    from torch import nn

    made = nn.Sequential(nn.Flatten(), nn.Linear(FEATURES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, n_classes))
    made.load_state_dict({name: value[model] for name, value in weights.items()})
    return made.eval()


def _oracle(module: "nn.Module", data: "DeviceData", white_box: bool, labels_only: bool) -> "ModelOracle":
    from mnemoscope.audit.models.oracle import ModelOracle
    from mnemoscope.audit.models.recipes import Runtime

    return ModelOracle(module, data, Runtime(device="cpu", threads=1), labels_only=labels_only, white_box=white_box)


@cache
def _recorded(
    leak: bool,
    n_models: int,
    n_records: int,
    n_population: int,
    n_classes: int,
    seed: int,
    when: str,
    queries: tuple[str, ...],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    from mnemoscope.audit.models.inference import infer_logits
    from mnemoscope.audit.models.recipes import Runtime

    world = _world(leak, n_models, n_records, n_population, n_classes, seed)
    weights = world.after if when == "after" else world.before
    ask = partial(infer_logits, data=world.data, runtime=Runtime(device="cpu", threads=1), queries=queries)
    parts = []
    for ids in (world.ids, world.population):
        logits = np.stack([ask(_module(weights, k, n_classes), ids=ids) for k in range(n_models)])
        logits.flags.writeable = False
        parts.append(logits)
    return parts[0], parts[1]
