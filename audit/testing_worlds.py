"""Toy fleets for measures of forgetting: what they remember is known. Torch is loaded when models are trained."""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.games import GAMES
from mnemoscope.audit.answers.views import Answers, Reference
from mnemoscope.audit.records.balance import balanced_roles, fold_of_models
from mnemoscope.audit.records.design import Role
from mnemoscope.audit.statistics.measures import Canaries, Worlds
from mnemoscope.audit.testing_training import descended, drawn_weights

if TYPE_CHECKING:
    from torch import Tensor

    from mnemoscope.audit.models.data import DeviceData

__all__ = ["toy_worlds", "trained_worlds"]

Floats = NDArray[np.float64]

MEMBER = 4.0
"""What a training record's true-class logit gains, in logits."""
SHARED, OWN = 0.4, 0.7
"""Standard deviations of what the training set adds to a record's logit, the same in all fleets, and the seed."""

FEATURES, HIDDEN, CLASSES, STEPS = 24, 32, 3, 120
"""Sizes of the trained models, and of their training: full batches, enough to know every record by heart."""
FEW_STEPS = 15
"""Steps on the retained records that stand for a deletion which leaves most behind."""
NOISE = 0.7
"""Standard deviation of the planted noise, in units of the features."""


def toy_worlds(
    leak: float,
    *,
    n_models: int = 36,
    n_records: int = 60,
    n_population: int = 60,
    n_classes: int = 4,
    n_queries: int = 1,
    n_folds: int = 3,
    shift: float = 0.0,
    seed: int = 0,
) -> Worlds:
    """Draw the fleets of one design: kept records gain 4 logits, forgotten ones ``leak``, in retrained models nothing.

    A record's true-class logit is its difficulty plus what its training set adds, the same in all four fleets, plus
    normal noise of the seed. Roles are balanced thirds for every record and fold. Before deletion forgotten records
    gain 4 logits like kept ones.

    Args:
        leak: logits that forgotten records keep after deletion; 0 is exact retraining.
        n_models: a multiple of three times the folds.
        n_records: audited records, ids 1000, 1001, ... in random order.
        n_population: records of no model.
        n_classes: at least 2.
        n_queries: answers a record.
        n_folds: folds of models.
        shift: logits that the deletion adds to all records alike, forgotten, kept and never seen.
        seed: of everything.
    """
    rng = np.random.default_rng(seed)
    fold = fold_of_models(n_models, n_folds)
    third = n_models // 3
    role = balanced_roles(n_records, (Role.KEPT, Role.FORGOTTEN, Role.NEVER), (third,) * 3, fold, rng)
    ids = rng.permutation(n_records).astype(np.int64) + 1000
    others = np.arange(n_population, dtype=np.int64)
    hard, hard_others = rng.normal(0.5, 1.0, n_records), rng.normal(0.5, 1.0, n_population)
    shared = rng.normal(0.0, SHARED, role.shape)

    def answers(known: NDArray[np.int64], raised: Floats) -> Answers:
        labels = known % n_classes
        logits = rng.normal(0.0, OWN, (*raised.shape, n_queries, n_classes))
        logits += raised[..., None, None] * (labels[:, None] == np.arange(n_classes))[:, None, :]
        return Answers(known, labels, logits.astype(np.float32))

    def fleet(forgotten: float, added: float, before: Reference | None = None) -> Reference:
        gain = np.where(role == Role.KEPT, MEMBER, np.where(role == Role.FORGOTTEN, forgotten, 0.0))
        audited = answers(ids, hard + shared + gain + added)
        population = answers(others, np.tile(hard_others + added, (n_models, 1)))
        side = GAMES["forgetting"].side(role)
        return Reference(
            audited.ids, audited.labels, audited.logits, side=side, population=population, before=before, fold=fold
        )

    before = fleet(MEMBER, 0.0)
    retrained, control = fleet(0.0, 0.0, before), fleet(0.0, 0.0, before)
    return Worlds(fleet(leak, shift, before), retrained, control, before, role)


def trained_worlds(
    leak: bool, *, n_models: int = 12, n_records: int = 48, n_background: int = 48, seed: int = 0
) -> Worlds:
    """Train tiny fleets with live oracles on records of random labels; the audited ones are canaries.

    Audited record i is a normal vector with normal noise on top; the vector without noise, its source, is in the data
    but in no training set. Training is done once for each set of arguments; oracles are new in every call.

    Args:
        leak: whether deletion is a few steps on the retained records, or exact retraining with seeds of its own.
        n_models: a multiple of 6.
        n_records: audited records.
        n_background: records that every model is trained on.
        seed: of everything.
    """
    import torch
    from torch import nn

    from mnemoscope.audit.models.inference import infer_logits
    from mnemoscope.audit.models.oracle import ModelOracle
    from mnemoscope.audit.models.recipes import Runtime

    data, role, weights = _trained(leak, n_models, n_records, n_background, seed)
    sources = np.arange(n_records, dtype=np.int64)
    ids = sources + n_records
    runtime, fold = Runtime(device="cpu"), fold_of_models(n_models, 2)

    def fleet(place: str) -> Reference:
        modules = []
        for k in range(n_models):
            # Layers draw weights when they are made; the global state is not ours to move.
            with torch.random.fork_rng(devices=[]):
                module = nn.Sequential(nn.Flatten(), nn.Linear(FEATURES, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, CLASSES))
            module.load_state_dict({name: value[k] for name, value in weights[place].items()})
            modules.append(module.eval())
        logits = np.stack([infer_logits(module, data, ids, runtime=runtime) for module in modules])
        labels = data.y.numpy()[ids]
        oracles = tuple(ModelOracle(module, data, runtime) for module in modules)
        return Reference(ids, labels, logits, side=GAMES["forgetting"].side(role), fold=fold, oracles=oracles)

    background = np.arange(2 * n_records, 2 * n_records + n_background, dtype=np.int64)
    after, retrained, control, before = (fleet(place) for place in ("after", "retrained", "control", "before"))
    return Worlds(after, retrained, control, before, role, canaries=Canaries(ids, sources), background=background)


@cache
def _trained(
    leak: bool, n_models: int, n_records: int, n_background: int, seed: int
) -> "tuple[DeviceData, NDArray[np.int8], dict[str, dict[str, Tensor]]]":
    from mnemoscope.audit.models.data import DeviceData
    from mnemoscope.audit.records.datasets import Dataset

    rng = np.random.default_rng(seed)
    third = n_models // 3
    role = balanced_roles(
        n_records, (Role.KEPT, Role.FORGOTTEN, Role.NEVER), (third,) * 3, fold_of_models(n_models, 2), rng
    )
    total = 2 * n_records + n_background
    values = rng.normal(0.0, 1.0, (total, FEATURES))
    values[n_records : 2 * n_records] = values[:n_records] + rng.normal(0.0, NOISE, (n_records, FEATURES))
    labels = rng.integers(0, CLASSES, total)
    labels[n_records : 2 * n_records] = labels[:n_records]
    dataset = Dataset(
        name="toy",
        kind="table",
        ids=np.arange(total, dtype=np.int64),
        keys=tuple(str(k) for k in range(total)),
        labels=labels,
        classes=tuple(str(k) for k in range(CLASSES)),
        digests=np.zeros((total, 32), np.uint8),
        values=values.astype(np.float32),
    )
    data = DeviceData(dataset)

    def mask(*roles: Role) -> NDArray[np.bool_]:
        chosen = np.isin(role, roles)
        outside, inside = (np.full((n_models, n), value) for n, value in ((n_records, False), (n_background, True)))
        return np.concatenate([outside, chosen, inside], axis=1)

    whole, retained = mask(Role.KEPT, Role.FORGOTTEN), mask(Role.KEPT)
    weights = {"before": _fitted(data, whole, STEPS, seed=seed)}
    for number, place in enumerate(("retrained", "control"), 1):
        weights[place] = _fitted(data, retained, STEPS, seed=seed + number)
    if leak:
        weights["after"] = _fitted(data, retained, FEW_STEPS, start=weights["before"])
    else:
        weights["after"] = _fitted(data, retained, STEPS, seed=seed + 3)
    role.flags.writeable = False
    return data, role, weights


def _fitted(
    data: "DeviceData",
    mask: NDArray[np.bool_],
    steps: int,
    *,
    seed: int = 0,
    start: "dict[str, Tensor] | None" = None,
) -> "dict[str, Tensor]":
    """Train all models at once, each on its row of the mask, from ``start`` or from weights drawn from ``seed``."""
    import torch

    if start is None:
        start = drawn_weights(mask.shape[0], FEATURES, HIDDEN, CLASSES, seed=1000 + seed)
    x = data.inputs(torch.arange(mask.shape[1]))
    (weights,) = descended(start, x, data.y, mask, steps=(steps,), activation=torch.tanh)
    return weights
