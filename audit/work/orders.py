"""Which models a trained fleet must have: what each is trained on, with which seed, in which stack, under which key."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.models.recipes import Recipe
from mnemoscope.audit.records.design import Design, Role
from mnemoscope.audit.rng import child_seed
from mnemoscope.audit.work.keys import Json, canonical_json, content_key, ids_digest, plain_json
from mnemoscope.audit.work.tasks import TRAIN_VERSION

__all__ = ["TRAINED_ON", "FleetName", "ModelOrder", "Replica", "fleet_orders"]

FleetName = Literal["before", "retrained"]
Replica = Literal["A", "B", "C"]
TRAINED_ON = {
    "before": (Role.BACKGROUND, Role.KEPT, Role.FORGOTTEN),
    "retrained": (Role.BACKGROUND, Role.KEPT),
}
"""Roles of the records that a model of each trained fleet is trained on."""


@dataclass(frozen=True, eq=False)
class ModelOrder:
    """One model that must exist: what it is trained on, and the key it will have.

    Attributes:
        fleet: "before", "retrained A", ...
        index: the model's number in the design.
        ids: (k,) int64 training ids, ascending.
        forget: (f,) int64 ids that will be, or were, forgotten.
        seed: of the training.
        key: its key.
        inputs: what the key is made of.
        group: which stack it is trained in, and the place there.
    """

    fleet: str
    index: int
    ids: NDArray[np.int64]
    forget: NDArray[np.int64]
    seed: int
    key: str
    inputs: dict[str, Json]
    group: int


def fleet_orders(
    design: Design,
    fleet: FleetName,
    replica: Replica,
    *,
    recipe: Recipe,
    seed: int,
    common: Mapping[str, Json],
    stack: int,
) -> tuple[ModelOrder, ...]:
    """Return one order for each model of the design.

    Args:
        design: the roles of the records.
        fleet: "before" (trained on background, kept and forgotten records) or "retrained" (without the forgotten).
        replica: which seeds.
        recipe: how models are trained.
        seed: root of all randomness.
        common: parts of the keys that all models share: the data and the machine.
        stack: how many models of equal size are trained together.
    """
    name = fleet if (fleet, replica) == ("before", "A") else f"{fleet} {replica}"
    count = design.n_models
    ids = [design.records(k, *TRAINED_ON[fleet]) for k in range(count)]
    forget = [design.records(k, Role.FORGOTTEN) for k in range(count)]
    seeds = [child_seed(seed, "train", fleet, replica, k) for k in range(count)]
    parts: list[dict[str, Json]] = [
        {
            **common,
            "recipe": plain_json(recipe.key_parts()),
            "ids": ids_digest(ids[k]),
            "seed": seeds[k],
        }
        for k in range(count)
    ]
    orders: dict[int, ModelOrder] = {}
    for number, members in enumerate(_stacks([int(i.size) for i in ids], stack)):
        # Bits depend on who shares a stack: its composition is part of every member's key.
        together = hashlib.sha256(canonical_json([[parts[k]["ids"], seeds[k]] for k in members])).hexdigest()
        for place, k in enumerate(members):
            within: Json = None if len(members) == 1 else {"size": len(members), "members": together, "place": place}
            inputs = {**parts[k], "stack": within}
            key = content_key("train", TRAIN_VERSION, inputs)
            orders[k] = ModelOrder(name, k, ids[k], forget[k], seeds[k], key, inputs, number)
    return tuple(orders[k] for k in range(count))


def _stacks(sizes: list[int], stack: int) -> list[list[int]]:
    by_size: dict[int, list[int]] = {}
    for index, size in enumerate(sizes):
        by_size.setdefault(size, []).append(index)
    return [group[at : at + stack] for group in by_size.values() for at in range(0, len(group), stack)]
