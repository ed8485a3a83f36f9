"""The fleets that the contract of attacks is played on, as they are, in another order, or without what was declared."""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.protocols import Attack, queries_of
from mnemoscope.audit.answers.views import Answers, Need, Reference, Side
from mnemoscope.audit.testing_oracles import balanced_sides, trained_fleet

__all__ = ["LIVE", "answering_fleet", "apart", "quiet_fleets", "reordered", "stripped", "toy_fleet"]

Floats = NDArray[np.float64]

TOY_MODELS, TOY_RECORDS = 18, 120
LIVE = Need.ORACLE | Need.GRADIENT
"""What only a model that is asked live can give."""


def toy_fleet(
    leak: float,
    *,
    n_models: int = TOY_MODELS,
    n_records: int = TOY_RECORDS,
    n_population: int = 100,
    n_classes: int = 4,
    n_queries: int = 1,
    queries: tuple[str, ...] = (),
    seed: int = 0,
) -> Reference:
    """Draw a fleet whose models remember by a known amount; every array is read-only.

    A record's true-class logit is N(difficulty, 0.7), higher by ``leak`` in the models that trained on it. Roles are
    balanced thirds (IN, OUT, left out) for every record and two folds; the models before deletion leak twice as much.

    Args:
        leak: in logits; 0 leaks nothing, 4 is plain to every attack, correctness included.
        n_models: a multiple of 6.
        n_records: audited records, ids 1000, 1001, ... in random order.
        n_population: records of no model.
        n_classes: at least 2.
        n_queries: answers per record, where ``queries`` names none.
        queries: names of the answers per record.
        seed: of everything.
    """
    rng = np.random.default_rng(seed)
    fold = np.repeat(np.array([0, 1], np.int8), n_models // 2)
    side = balanced_sides(n_models, n_records, rng)
    difficulty = rng.normal(0.5, 1.0, n_records)

    def answers(amount: float, ids: NDArray[np.int64], hard: Floats, members: NDArray[np.bool_]) -> Answers:
        shape = (n_models, ids.size, len(queries) or n_queries, n_classes)
        labels = ids % n_classes
        logits = rng.normal(0.0, 0.7, shape)
        raised = (hard + amount * members)[..., None, None]
        logits += raised * (labels[:, None] == np.arange(n_classes))[:, None, :]
        return _frozen(Answers(ids, labels, logits.astype(np.float32), queries=queries))

    ids = rng.permutation(n_records).astype(np.int64) + 1000
    members = side == Side.IN
    audited = answers(leak, ids, difficulty, members)
    earlier = answers(2 * leak, ids, difficulty, members)
    hard_z = rng.normal(0.5, 1.0, n_population)
    outside = np.zeros((n_models, n_population), np.bool_)
    population = answers(0.0, np.arange(n_population, dtype=np.int64), hard_z, outside)
    side.flags.writeable = False
    fold.flags.writeable = False

    def reference(seen: Answers, before: Reference | None) -> Reference:
        return Reference(
            seen.ids,
            seen.labels,
            seen.logits,
            side=side,
            population=population,
            before=before,
            fold=fold,
            queries=queries,
        )

    return reference(audited, reference(earlier, None))


def answering_fleet(attack: Attack, leak: float, *, n_queries: int = 1, labels_only: bool = False) -> Reference:
    """Return a fleet that answers what the attack asks: drawn, or of real models where it asks them live."""
    named = queries_of(attack) or ()
    if not attack.needs & LIVE:
        return toy_fleet(leak, n_queries=n_queries, queries=named)
    # Oracles give no more than the attack declares.
    white = Need.GRADIENT in attack.needs
    asked = named or ("identity",) * n_queries
    return trained_fleet(leak > 0, queries=asked, white_box=white, labels_only=labels_only and not white)


def quiet_fleets(attack: Attack) -> list[Reference]:
    """Return fleets without memory, large enough for a pooled AUC of standard error 0.005 (live: 0.01).

    A classifier that is fitted on models leans to one side by chance, for all records of a fleet at once: its pooled
    AUC differs by 0.02 from fleet to fleet, with few records or many, and more fleets are what brings the mean to one
    half.
    """
    named = queries_of(attack) or ()
    if not attack.needs & LIVE:
        return [toy_fleet(0.0, n_models=48, n_records=200, queries=named, seed=seed) for seed in range(2)]
    white, asked = Need.GRADIENT in attack.needs, named or ("identity",)
    count = 6 if Need.SHADOW_IN in attack.needs else 3
    return [
        trained_fleet(False, n_models=18, n_records=80, queries=asked, white_box=white, seed=k) for k in range(count)
    ]


def _frozen(answers: Answers) -> Answers:
    for array in (answers.ids, answers.labels, answers.logits):
        array.flags.writeable = False
    return answers


def apart(reference: Reference, target: int) -> Reference:
    """Return the attacker's models for a target of the fleet: all the others."""
    return reference.without([target])


def reordered(reference: Reference, records: NDArray[np.int64], models: NDArray[np.int64]) -> Reference:
    """Return the same answers with records and models in another order."""

    def moved(part: Reference, before: Reference | None) -> Reference:
        return Reference(
            part.ids[records],
            part.labels[records],
            part.logits[:, records],
            side=part.side[:, records],
            population=part.population,
            before=before,
            fold=part.fold,
            oracles=part.oracles,
            queries=part.queries,
            labels_only=part.labels_only,
        )

    earlier = None if reference.before is None else moved(reference.before, None)
    return moved(reference, earlier).select(models)


def stripped(fleet: Reference, need: Need) -> tuple[Reference, Any]:
    """Return a reference and a view of its first model that lack one need."""
    reference, view = apart(fleet, 0), fleet.target(0)
    if need is Need.POPULATION:
        reference, view = dataclasses.replace(reference, population=None), dataclasses.replace(view, population=None)
    elif need is Need.BEFORE:
        reference, view = dataclasses.replace(reference, before=None), dataclasses.replace(view, before=None)
    elif need is Need.SCORES:
        reference = dataclasses.replace(reference, labels_only=True)
        view = dataclasses.replace(view, labels_only=True)
    elif need in LIVE:
        closed = trained_fleet(True, queries=fleet.queries or ("identity",), white_box=False)
        oracles = None if need is Need.ORACLE else closed.without([0]).oracles
        reference = dataclasses.replace(reference, oracles=oracles)
        view = dataclasses.replace(view, oracle=None if oracles is None else closed.target(0).oracle)
    else:
        gone = Side.IN if need is Need.SHADOW_IN else Side.OUT
        side = np.where(reference.side == gone, np.int8(Side.LEAVE_OUT), reference.side)
        before = None if reference.before is None else reference.before.with_side(side)
        reference = dataclasses.replace(reference, side=side, before=before)
    return reference, view
