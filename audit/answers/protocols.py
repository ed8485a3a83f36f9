"""The shapes of plug-ins, and the one function that checks every call of an attack."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.blocks import over_blocks
from mnemoscope.audit.answers.oracle import Oracle
from mnemoscope.audit.answers.views import Answers, Need, Reference, View
from mnemoscope.audit.errors import AuditError, InvalidInput, MissingNeed

__all__ = [
    "Attack",
    "FleetAttack",
    "Scorer",
    "check_classes",
    "check_needs",
    "decision_threshold",
    "flags_of",
    "fleet_thresholds",
    "offered_by",
    "queries_of",
    "score_fleet",
    "score_target",
]


class Scorer(Protocol):
    """A fitted attack: one fit serves many targets.

    May also have ``threshold: float`` (decide "in" at score >= threshold, set without the target's truth).
    """

    def score(self, view: View) -> NDArray[np.float64]:
        """Return (n,) float64, higher = more likely in."""
        ...


@runtime_checkable
class Attack(Protocol):
    """A frozen dataclass of settings with a name, its needs and a fit; it never sees the target's truth.

    May also have ``queries: tuple[str, ...]``, the questions whose answers it reads, in that order, by the names that
    ``infer_logits`` knows; without it, it is given the answers to whatever questions the audit asks. May also have
    ``least_models: int``, how many models a side every record must have in what it is fitted on, see ``least_models``.
    """

    @property
    def name(self) -> str:
        """The name in tables and in the registry."""
        ...

    @property
    def needs(self) -> Need:
        """What must be offered by the view and the reference."""
        ...

    def fit(self, reference: Reference, *, rng: np.random.Generator) -> Scorer:
        """Learn from the attacker's own models; ``reference`` holds none for attacks that need none."""
        ...


@runtime_checkable
class FleetAttack(Attack, Protocol):
    """An attack that scores every fleet member in turn with itself left out, in closed form.

    ``score_fleet(reference, rng=rng)[k]`` equals ``fit(reference.without([k])).score(reference.target(k))``.
    """

    def score_fleet(self, reference: Reference, *, rng: np.random.Generator) -> NDArray[np.float64]:
        """Return (m, n) float64, higher = more likely in."""
        ...


NEED_REMEDIES = {
    Need.SHADOW_IN: "shadow models trained with the audited records",
    Need.SHADOW_OUT: "reference models trained without the audited records",
    Need.POPULATION: "population records that no model was trained on",
    Need.BEFORE: "the answers of the model before deletion",
    Need.KNOWN: "records of the target with known membership",
    Need.SCORES: "the model's scores (it answers with labels only)",
    Need.ORACLE: "live access to the model",
    Need.GRADIENT: "live access to the model's parameters and gradients",
    Need.FORGET_DATA: "the forget records themselves",
    Need.RETAIN_DATA: "the retained records",
    Need.VALIDATION_DATA: "validation records (design.validation in a plan), which may then not serve as never-seen",
    Need.HISTORY: "the training history, which models have that were trained one by one (runtime.stack = 1)",
}


def check_needs(consumers: Iterable[tuple[str, Need]], offered: Need) -> None:
    """Raise ``MissingNeed`` that lists everything missing, for all consumers at once.

    Args:
        consumers: (name, needs) of each attack or method.
        offered: what the inputs provide.
    """
    lines = []
    for name, needs in consumers:
        missing = [need for need in NEED_REMEDIES if need in needs and need not in offered]
        if missing:
            lines.append(f"{name} needs " + "; ".join(NEED_REMEDIES[need] for need in missing))
    if lines:
        raise MissingNeed("cannot run: " + " | ".join(lines) + ". Provide them or leave these out")


def offered_by(reference: Reference, view: View | None = None) -> Need:
    """Return what the reference (and the view) provide, as flags."""
    offered = Need.NOTHING
    if (reference.side == 1).any():
        offered |= Need.SHADOW_IN
    if (reference.side == 0).any():
        offered |= Need.SHADOW_OUT
    population: Answers | None = reference.population if view is None else view.population
    if population is not None:
        offered |= Need.POPULATION
    if (reference.before if view is None else view.before) is not None:
        offered |= Need.BEFORE
    if view is not None and view.known is not None:
        offered |= Need.KNOWN
    if not (reference.labels_only if view is None else view.labels_only):
        offered |= Need.SCORES
    oracles: tuple[Oracle | None, ...] = (reference.oracles or (None,)) if view is None else (view.oracle,)
    if None not in oracles:
        offered |= Need.ORACLE
        if all(oracle.white_box for oracle in oracles if oracle is not None):
            offered |= Need.GRADIENT
    return offered


def check_classes(attack: Attack, reference: Reference, view: View | None = None) -> None:
    """Refuse versions and models whose numbers of classes differ, where an attack would compare them.

    Args:
        attack: one with ``any_records`` reads shadow models of any data set, and says itself what it cannot carry over.
        reference: the attacker's own models.
        view: the target; without it the reference's models are the targets.

    Raises:
        InvalidInput: a model before deletion, or shadow models, with another number of classes than the target.
    """
    target = reference if view is None else view
    compared = reference.n_models > 0 and bool(attack.needs & (Need.SHADOW_IN | Need.SHADOW_OUT))
    if view is not None and compared and not getattr(attack, "any_records", False):
        _same_classes(attack.name, "the shadow models have", reference, "the target", view)
    if Need.BEFORE in attack.needs and target.before is not None:
        _same_classes(attack.name, "the model before deletion has", target.before, "the model after it", target)
    if Need.BEFORE in attack.needs and compared and reference.before is not None:
        _same_classes(
            attack.name, "the shadow models before deletion have", reference.before, "those after it", reference
        )


def _same_classes(name: str, what: str, one: Answers, other_name: str, other: Answers) -> None:
    if one.n_classes != other.n_classes:
        raise InvalidInput(
            f"{name} compares answers of both: {what} {one.n_classes} classes and {other_name} {other.n_classes}. A "
            "model that lost or gained classes must answer for all of them: give a class that it no longer knows a "
            "logit of its own below all others, or audit the records of the shared classes on the shared outputs"
        )


def queries_of(attack: Attack) -> tuple[str, ...] | None:
    """Return the questions that an attack reads, or None where it takes whatever was asked."""
    queries: Sequence[str] | None = getattr(attack, "queries", None)
    return None if queries is None else tuple(queries)


def flags_of(attack: Attack, reference: Reference, *, left_out: bool = False) -> tuple[str, ...]:
    """Return where a fit is not what the attack's settings ask for, in words; () for attacks that never fall back.

    Args:
        attack: may have ``flags(reference, left_out=...)``.
        reference: what ``fit`` would read.
        left_out: whether each model is left out of it in turn, as ``score_fleet`` does.
    """
    flags = getattr(attack, "flags", None)
    return tuple(flags(reference, left_out=left_out)) if callable(flags) else ()


def decision_threshold(scorer: Scorer) -> float | None:
    """Return the score from which a fitted attack says "in", or None where it names none."""
    threshold = getattr(scorer, "threshold", None)
    return None if threshold is None else float(threshold)


DECIMALS = 11
"""Scores of attacks that leave each model out in closed form are kept to so many: far above rounding errors of means,
far below what such scores tell records apart by."""

CHECKED = 64_000
"""Scores checked at a time."""


def _checked(attack: Attack, scores: object, shape: tuple[int, ...]) -> NDArray[np.float64]:
    name, array = attack.name, np.asarray(scores)
    if array.shape != shape or array.dtype != np.float64:
        given = f"{array.dtype} {array.shape}"
        raise AuditError(f"attack {name!r} returned {given}; it must return float64 {shape}")
    # Where all models answer alike, means with and without the target differ by rounding errors, and their sign names
    # the target's side: such scores are equal, and must tie. Others keep their digits: a loss or an entropy has its
    # surest records, those that low false positive rates are about, far below.
    rounded = isinstance(attack, FleetAttack)
    kept = np.empty(shape) if rounded else array.copy()
    flat: NDArray[np.float64] = kept.reshape(-1)
    raw: NDArray[np.float64] = array.reshape(-1)

    def keep(part: slice) -> int:
        if rounded:
            np.round(raw[part], DECIMALS, out=flat[part])
        return int(np.count_nonzero(~np.isfinite(raw[part])))

    parts = [slice(start, min(start + CHECKED, flat.size)) for start in range(0, flat.size, CHECKED)]
    bad = sum(over_blocks(keep, parts, values=flat.size))
    if bad:
        raise AuditError(
            f"attack {name!r} returned {bad} scores that are not finite; "
            "leave out records it cannot score, with a count, before it runs"
        )
    return kept


def score_target(attack: Attack, reference: Reference, view: View, *, rng: np.random.Generator) -> NDArray[np.float64]:
    """Fit on the reference and score one target; shape, dtype and finiteness are checked.

    Returns:
        (n,) float64, higher = more likely in.

    Raises:
        MissingNeed: what the attack reads is not there; nothing ran.
        InvalidInput: versions or models of other numbers of classes; nothing ran.
    """
    check_needs([(attack.name, attack.needs)], offered_by(reference, view))
    check_classes(attack, reference, view)
    return _checked(attack, attack.fit(reference, rng=rng).score(view), (view.n_records,))


def score_fleet(
    attack: Attack,
    reference: Reference,
    *,
    rng: np.random.Generator,
    on_fit: Callable[[Scorer, NDArray[np.int64]], None] | None = None,
) -> NDArray[np.float64]:
    """Score every fleet member in turn, its own answers never used to fit what scores it.

    Closed-form attacks leave the target out exactly; others are fitted once for each fold of models and score
    it; attacks that need no model are fitted on none.

    Args:
        attack: see ``Attack``.
        reference: the fleet.
        rng: for the attack's own randomness.
        on_fit: is shown each fit for a fold of models with the models that it scores.

    Returns:
        (m, n) float64, higher = more likely in.
    """
    check_needs([(attack.name, attack.needs)], offered_by(reference))
    check_classes(attack, reference)
    shape = (reference.n_models, reference.n_records)
    if isinstance(attack, FleetAttack):
        return _checked(attack, attack.score_fleet(reference, rng=rng), shape)
    scores = np.empty(shape, np.float64)
    for scorer, held in _fits(attack, reference, rng):
        if on_fit is not None and held.size < reference.n_models:
            on_fit(scorer, held)
        for model in held:
            scores[model] = _checked(attack, scorer.score(reference.target(int(model))), shape[1:])
    return scores


def fleet_thresholds(attack: Attack, reference: Reference, *, rng: np.random.Generator) -> NDArray[np.float64] | None:
    """Return each member's decision threshold, learned on other models only, for its row of ``score_fleet``.

    Returns:
        (m,) float64, or None where the attack names no threshold for these inputs.
    """
    check_needs([(attack.name, attack.needs)], offered_by(reference))
    thresholds = np.full(reference.n_models, np.nan)
    for scorer, held in _fits(attack, reference, rng, thresholds=True):
        threshold = decision_threshold(scorer)
        if threshold is None:
            return None
        thresholds[held] = threshold
    return thresholds


def _fits(
    attack: Attack, reference: Reference, rng: np.random.Generator, *, thresholds: bool = False
) -> Iterator[tuple[Scorer, NDArray[np.int64]]]:
    """Yield each fitted scorer with the models it may score: those that it was not fitted on."""
    fold = reference.fold
    learns = bool(attack.needs & (Need.SHADOW_IN | Need.SHADOW_OUT))
    if fold is None or np.unique(fold).size < 2:
        if learns:
            raise AuditError(f"attack {attack.name!r} learns from models: the design must have at least 2 folds")
        fold = None
    if fold is None or not (learns or thresholds):
        # Scores that need no model must not depend on any, so that they are the same in every fleet.
        yield attack.fit(reference.select([]), rng=rng), np.arange(reference.n_models)
        return
    for part in np.unique(fold):
        held = np.flatnonzero(fold == part)
        yield attack.fit(reference.without(held), rng=rng), held
