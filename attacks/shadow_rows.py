"""Training rows for attackers that learn: the reference's (model, record) pairs whose side is known.

Rows stand in an order that depends on their content alone (models by a digest of their answers, records by id), and
draws are made in that order, so that no score depends on how the models or the records were listed.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.views import Reference, Side, View
from mnemoscope.audit.errors import InvalidInput, MissingNeed

__all__ = ["Features", "ShadowRows", "canonical_models", "drawn_pairs", "quotas", "shadow_rows"]

Floats = NDArray[np.float64]
Features = Callable[[View], Floats]
"""What an attacker reads of one model: (n, d) float64, one row a record, in the order of the view."""


@dataclass(frozen=True, eq=False)
class ShadowRows:
    """Rows to learn from, in canonical order.

    Attributes:
        features: (r, d) float64.
        labels: (r,) int64, true classes.
        member: (r,) bool, whether the record was in its model.
        ids: (r,) int64, record ids.
        model: (r,) int64, positions of the models in the reference.
    """

    features: Floats
    labels: NDArray[np.int64]
    member: NDArray[np.bool_]
    ids: NDArray[np.int64]
    model: NDArray[np.int64]

    def where(self, mask: NDArray[np.bool_]) -> "ShadowRows":
        """Return the rows at which the mask (r,) holds, in their order."""
        return ShadowRows(self.features[mask], self.labels[mask], self.member[mask], self.ids[mask], self.model[mask])


def shadow_rows(
    reference: Reference, features: Features, *, cap: int | None = None, rng: np.random.Generator
) -> ShadowRows:
    """Turn a reference into training rows.

    Works through one model at a time and asks for the features of the chosen records alone, so that memory holds the
    rows and one model's part.

    Args:
        reference: the attacker's own models; pairs that are left out of the game give no row.
        features: what to read of a model. Its view has the chosen records only, answers before deletion too where
            the reference has them, and the population and the oracle as they are.
        cap: at most this many rows, half of them on each side, every model alike within a side as far as it has
            rows; None takes all.
        rng: for the choice under a cap; nothing is drawn where every row is taken.

    Returns:
        Rows by model (canonical), then by record id.

    Raises:
        InvalidInput: a cap below 2, or features of another shape than (records, d), or not finite.
        MissingNeed: no pair on one of the sides.
    """
    parts: list[Floats] = []
    pairs = drawn_pairs(reference, cap=cap, rng=rng)
    for model, at in pairs:
        values = np.asarray(features(_part(reference, model, at)), np.float64)
        if values.ndim != 2 or values.shape[0] != at.size or not np.isfinite(values).all():
            raise InvalidInput(f"features must be finite, (records, d) with {at.size} records; got {values.shape}")
        parts.append(values)
    at = np.concatenate([records for _, records in pairs])
    model_of = np.concatenate([np.full(records.size, model, np.int64) for model, records in pairs])
    member = reference.side[model_of, at] == Side.IN
    return ShadowRows(np.concatenate(parts), reference.labels[at], member, reference.ids[at], model_of)


def drawn_pairs(
    reference: Reference, *, cap: int | None = None, rng: np.random.Generator
) -> list[tuple[int, NDArray[np.int64]]]:
    """Return which pairs ``shadow_rows`` takes: positions of each model in canonical order, with those of its records.

    Models without a record are left out. Arguments and errors as there.
    """
    if cap is not None and cap < 2:
        raise InvalidInput(f"cap={cap!r} must be at least 2 rows, one a side, or None for all")
    counts = {side: (reference.side == side).sum(axis=1) for side in (Side.IN, Side.OUT)}
    for side, count in counts.items():
        if not count.any():
            raise MissingNeed(
                f"no pair of a shadow model and a record lies on side {side.name}: a learned attacker needs both. "
                "Provide shadow models that trained on some audited records and not on others"
            )
    models = canonical_models(reference)
    by_id = np.argsort(reference.ids, kind="stable")
    take = {
        side: count[models] if cap is None else quotas(count[models], cap // 2, rng=rng)
        for side, count in counts.items()
    }
    pairs: list[tuple[int, NDArray[np.int64]]] = []
    for place, model in enumerate(models):
        side = reference.side[model][by_id]
        chosen = [_draw(np.flatnonzero(side == s), int(take[s][place]), rng) for s in (Side.IN, Side.OUT)]
        at = by_id[np.sort(np.concatenate(chosen))]
        if at.size:
            pairs.append((int(model), at))
    return pairs


def canonical_models(reference: Reference) -> NDArray[np.int64]:
    """Return the model positions (m,) in an order that depends on their answers and sides, not on how they stand."""
    by_id = np.argsort(reference.ids, kind="stable")
    sorted_already = bool((by_id == np.arange(by_id.size)).all())

    def digest(*arrays: NDArray[np.generic]) -> bytes:
        whole = hashlib.sha256()
        for array in arrays:
            whole.update(np.ascontiguousarray(array if sorted_already else array[by_id]).data)
        return whole.digest()

    keys = [digest(logits, side) for logits, side in zip(reference.logits, reference.side, strict=True)]
    before = reference.before
    if before is not None and len(set(keys)) < len(keys):  # alike after deletion: what they were before decides
        at = before.positions(reference.ids)
        keys = [key + digest(logits[at]) for key, logits in zip(keys, before.logits, strict=True)]
    return np.asarray(sorted(range(len(keys)), key=keys.__getitem__), np.int64)


def quotas(available: NDArray[np.int64], budget: int, *, rng: np.random.Generator) -> NDArray[np.int64]:
    """Share a budget of rows as evenly as what is available allows.

    Args:
        available: (m,) int64, rows of each model.
        budget: rows wanted in all.
        rng: decides who gets the rows that do not divide evenly; not used where all is taken.

    Returns:
        (m,) int64, at most ``available``, summing to min(budget, sum of available).

    >>> quotas(np.array([1, 10, 10]), 11, rng=np.random.default_rng(0)).tolist()
    [1, 5, 5]
    """
    if available.sum() <= budget:
        return available.astype(np.int64)
    level, above = 0, int(available.max())
    while above - level > 1:
        middle = (level + above) // 2
        if np.minimum(available, middle).sum() <= budget:
            level = middle
        else:
            above = middle
    share = np.minimum(available, level).astype(np.int64)
    more = np.flatnonzero(available > level)
    share[rng.choice(more, int(budget - share.sum()), replace=False)] += 1
    return share


def _draw(places: NDArray[np.int64], number: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return places if number == places.size else rng.choice(places, number, replace=False)


def _part(reference: Reference, model: int, at: NDArray[np.int64]) -> View:
    """Return a model's view of the records at the given positions alone."""
    view = _cut(reference.target(model), at)
    before = reference.before
    if before is None:
        return view
    earlier = _cut(before.target(model), before.positions(view.ids))
    return replace(view, before=earlier)


def _cut(view: View, at: NDArray[np.int64]) -> View:
    signals = {key: value[at] for key, value in view._signals.items()}
    return replace(
        view, ids=view.ids[at], labels=view.labels[at], logits=view.logits[at], before=None, _signals=signals
    )
