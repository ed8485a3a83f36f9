"""Answers of the models that stand beside the two checkpoints of a comparison: retrained ones and shadows."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.rng import generator
from mnemoscope.audit.verdict.onemodel_rates import Group
from mnemoscope.companions import Workbench, checkpoints_in, choose_recipe, shadow_sides
from mnemoscope.compared_records import Records

if TYPE_CHECKING:
    from mnemoscope.comparison import Comparison

__all__ = ["members_file", "retrained_answers", "shadow_answers"]

Logits = NDArray[np.float32]


def retrained_answers(question: "Comparison", bench: Workbench, records: Records) -> tuple[Logits | None, int, str]:
    """Retrained models' answers (r, n, 1, c), how many were trained now, and what is known of their data."""
    if question.retrained_models is not None:
        paths = checkpoints_in(question.retrained_models)
        logits = np.stack([bench.delivered(path, records.ids) for path in paths])
        return logits, 0, f"{len(paths)} retrained models as delivered: their training records were not checked"
    if not question.references:
        return None, 0, ""
    unseen = records.of(Group.FORGET, Group.HOLDOUT, Group.POPULATION)
    rest = np.setdiff1d(bench.dataset.ids, unseen)
    if rest.size == 0:
        raise InvalidInput("--references: no record is left to train on; --data must hold more than forget and holdout")
    assert bench.data.subject is not None
    recipe = choose_recipe(question.recipe, subject=bench.data.subject.digest, is_image=bench.data.is_image)
    logits, trained, _ = bench.train("retrained", recipe, [rest] * question.references, records.ids)
    return logits, trained, f"{question.references} retrained models saw none of {unseen.size} records held out"


def shadow_answers(
    question: "Comparison", bench: Workbench, records: Records
) -> tuple[Logits | None, NDArray[np.int8]]:
    """Shadow models' answers (m, n, 1, c) and sides (m, n)."""
    none = np.empty((0, records.ids.size), np.int8)
    if question.shadow_models is None:
        return None, none
    if not str(question.shadow_models).isdecimal():
        return _shadow_folder(Path(str(question.shadow_models)), bench, records)
    count = int(question.shadow_models)
    played = np.isin(records.group, (Group.FORGET, Group.HOLDOUT))
    side = np.full((count, records.ids.size), -1, np.int8)
    side[:, played] = shadow_sides(count, int(played.sum()), rng=generator(question.seed, "compare", "sides"))
    side[:, records.group == Group.RETAIN] = 1
    side[:, records.group == Group.POPULATION] = 0
    rest = np.setdiff1d(bench.dataset.ids, records.of(Group.FORGET, Group.HOLDOUT, Group.POPULATION))
    assert bench.data.subject is not None
    recipe = choose_recipe(question.recipe, subject=bench.data.subject.digest, is_image=bench.data.is_image)
    chosen = [np.union1d(rest, records.ids[row == 1]) for row in side]
    return bench.train("shadow", recipe, chosen, records.ids)[0], side


def _shadow_folder(folder: Path, bench: Workbench, records: Records) -> tuple[Logits, NDArray[np.int8]]:
    from mnemoscope.audit.records.request import select_records

    logits, sides = [], []
    for path in checkpoints_in(folder):
        seen = select_records(bench.dataset, str(members_file(path)), seed=0)
        sides.append(np.isin(records.ids, seen).astype(np.int8))
        logits.append(bench.delivered(path, records.ids))
    return np.stack(logits), np.stack(sides)


def members_file(checkpoint: Path) -> Path:
    """The list of records beside a shadow model's checkpoint."""
    members = checkpoint.with_suffix(".csv")
    if not members.is_file():
        raise InvalidInput(f"{checkpoint}: {members.name} is missing; it must list the records this model saw")
    return members
