"""Roles of records in models, fixed before anything is trained."""

import hashlib
import io
import operator
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mnemoscope.audit.errors import InvalidInput, StaleArtifact
from mnemoscope.audit.records.balance import balanced_roles, fold_of_models
from mnemoscope.audit.rng import generator

__all__ = ["Design", "Role", "fixed_request_design", "random_design"]

Ids = NDArray[np.int64]


class Role(IntEnum):
    """What one record is to one model; exactly one role for each (model, record) pair."""

    BACKGROUND = 0
    """Always trained on, never scored."""
    KEPT = 1
    """Trained on, stays."""
    FORGOTTEN = 2
    """Trained on, then deleted."""
    NEVER = 3
    """Not seen by this model in any way."""
    POPULATION = 4
    """The attacker's own non-members (RMIA's Z, Attack-P), seen by no model."""
    CALIBRATION = 5
    """Thresholds; seen by no model."""
    TEST = 6
    """Utility; seen by no model."""
    UNUSED = 7
    """Out of play."""
    VALIDATION = 8
    """A method of deletion may train on it, so it can stand for nothing unseen."""


AUDITED_ROLES = (Role.KEPT, Role.FORGOTTEN, Role.NEVER)


@dataclass(frozen=True, eq=False)
class Design:
    """One role for each (model, record) pair.

    Attributes:
        ids: (n,) int64 record ids of the data set, ascending.
        role: (m, n) int8 of ``Role``.
        fold: (m,) int8, folds of models in which every record's role counts are balanced as far as they divide.
        seed: root seed it was drawn from.
    """

    ids: Ids
    role: NDArray[np.int8]
    fold: NDArray[np.int8]
    seed: int

    def __post_init__(self) -> None:
        if self.ids.ndim != 1 or (np.diff(self.ids) <= 0).any():
            raise InvalidInput("Design: ids must be (n,), unique and ascending")
        if self.role.shape != (self.fold.size, self.ids.size) or self.fold.ndim != 1:
            raise InvalidInput(
                f"Design: role {self.role.shape} must be (models, records) = ({self.fold.size}, {self.ids.size})"
            )
        if self.role.size and not 0 <= self.role.min() <= self.role.max() <= max(Role):
            raise InvalidInput(f"Design: roles must lie in 0..{max(Role)}, found {self.role.min()}..{self.role.max()}")

    @property
    def n_models(self) -> int:
        """Number of models."""
        return int(self.role.shape[0])

    @property
    def audited(self) -> Ids:
        """Ids of records that are KEPT, FORGOTTEN or NEVER in some model, ascending."""
        return self.ids[np.isin(self.role, AUDITED_ROLES).any(axis=0)]

    @property
    def digest(self) -> str:
        """``sha256:...`` of ids, roles, folds and seed; the same on every machine."""
        sha = hashlib.sha256(f"design 1 {self.role.shape} {self.seed}\n".encode())
        for array, kind in ((self.ids, "<i8"), (self.role, "i1"), (self.fold, "i1")):
            sha.update(np.ascontiguousarray(array, kind).tobytes())
        return f"sha256:{sha.hexdigest()}"

    def records(self, model: int, *roles: Role) -> Ids:
        """Ids with one of the roles in a model, ascending."""
        return self.ids[np.isin(self.role[model], roles)]

    def models_with(self, record_id: int, role: Role) -> NDArray[np.int64]:
        """Models in which a record has a role."""
        return np.flatnonzero(self.roles_of(np.array([record_id]))[:, 0] == role)

    def roles_of(self, ids: Ids) -> NDArray[np.int8]:
        """Roles of the given ids, (m, len(ids)) int8, in the order given; unknown ids raise ``InvalidInput``."""
        wanted = np.asarray(ids, np.int64)
        column = np.searchsorted(self.ids, wanted)
        known = column < self.ids.size
        known[known] = self.ids[column[known]] == wanted[known]
        if not known.all():
            raise InvalidInput(f"record ids {wanted[~known][:5].tolist()} are not in this design")
        return self.role[:, column]

    def to_bytes(self) -> bytes:
        """Return an ``.npz`` file (arrays only, no pickle); equal designs give equal bytes."""
        buffer = io.BytesIO()
        np.savez(buffer, version=np.int64(1), ids=self.ids, role=self.role, fold=self.fold, seed=np.int64(self.seed))
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Design":
        """Read what ``to_bytes`` wrote.

        Raises:
            StaleArtifact: a damaged file, one of another kind, or of another version.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                version = int(file["version"])
                parts = [file[name] for name in ("ids", "role", "fold", "seed")]
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise StaleArtifact(f"this is no stored design ({error}); draw the design again") from error
        ids, role, fold, seed = parts
        if version != 1 or [a.dtype for a in (ids, role, fold)] != [np.int64, np.int8, np.int8]:
            raise StaleArtifact(f"stored design of version {version} cannot be read; draw the design again")
        return cls(ids, role, fold, int(seed))


def random_design(
    labels: ArrayLike,
    *,
    n_models: int = 72,
    audited: int | Ids,
    background: int | Ids = 0,
    population: int | Ids = 0,
    calibration: int | Ids = 0,
    test: int | Ids = 0,
    validation: int | Ids = 0,
    counts: Sequence[float] = (1 / 3, 1 / 3, 1 / 3),
    folds: int = 2,
    seed: int,
) -> Design:
    """Draw random roles with fixed counts, the design of U-LiRA (Hayes et al. 2024, arXiv 2403.01218).

    Every audited record is KEPT, FORGOTTEN and NEVER in exactly the same number of models as every other audited
    record (and in each fold, when the counts divide), so that what is left when one model is left out does not betray
    its role; every model has the same number of KEPT and of FORGOTTEN records (up to one where they do not divide).
    Records are drawn in proportion to the classes; those that are not asked for are UNUSED.

    Deviation: a random forget set of fixed size in each model leaves random counts for each record; under exact
    retraining a leave-one-out attack then reads the role off the counts (AUC about 0.41 where it must be 0.5).

    Args:
        labels: (n,) classes of all records, int or str; record ids are 0..n-1.
        n_models: number of models, at least 2.
        audited: how many records are audited, or their ids. Ids serve one-model audits: hand forget and holdout
            records over together, so that both go through the same design.
        background: how many (or which) records every model is trained on, never scored.
        population: how many (or which) records the attacker has as non-members.
        calibration: how many (or which) records set thresholds.
        test: how many (or which) records measure utility.
        validation: how many (or which) records methods of deletion may train on; no role is taken by them but this.
        counts: KEPT, FORGOTTEN, NEVER for each record: fractions that add up to 1, or whole numbers that add up to
            ``n_models``.
        folds: folds of models in which the counts balance.
        seed: root seed, a non-negative integer.

    Returns:
        The design over all n records.

    Raises:
        InvalidInput: a size that is no whole number, more records than there are, ids named twice, fewer than 2
            models, counts that are not whole for this number of models.

    >>> design = random_design([0, 1] * 50, n_models=6, audited=30, background=20, test=10, seed=0)
    >>> [int((design.role == role).sum()) for role in (Role.KEPT, Role.FORGOTTEN, Role.NEVER)]
    [60, 60, 60]
    """
    y = np.asarray(labels)
    models, n_folds = _whole("n_models", n_models), _whole("folds", folds)
    if models < 2:
        raise InvalidInput(f"n_models={models}: a random design needs at least 2 models (72 by default)")
    if not 1 <= n_folds <= models:
        raise InvalidInput(f"folds={n_folds} must lie in 1..n_models={models}")
    whole = _role_counts(counts, models)
    pools = _draw_pools(
        y,
        {
            "audited": audited,
            "background": background,
            "population": population,
            "calibration": calibration,
            "test": test,
            "validation": validation,
        },
        generator(_seed(seed), "design", "pools"),
    )
    if not pools["audited"].size:
        raise InvalidInput("audited=0: at least one record must be audited")
    fold = fold_of_models(models, n_folds)
    role = np.full((models, y.size), Role.UNUSED, np.int8)
    for name, shared in SHARED_POOLS.items():
        role[:, pools[name]] = shared
    rng = generator(_seed(seed), "design", "roles")
    role[:, pools["audited"]] = balanced_roles(pools["audited"].size, AUDITED_ROLES, whole, fold, rng)
    return Design(np.arange(y.size, dtype=np.int64), role, fold, _seed(seed))


def fixed_request_design(
    ids: Ids,
    *,
    forget: Ids,
    retain: Ids,
    holdout: Ids,
    population: Ids | None = None,
    calibration: Ids | None = None,
    test: Ids | None = None,
    background: Ids | None = None,
    validation: Ids | None = None,
    n_models: int,
    seed: int,
) -> Design:
    """Return the design of one deletion request repeated over seeds: the same roles in every model.

    Args:
        ids: (n,) int64, all ids of the data set.
        forget: ids FORGOTTEN in every model.
        retain: ids KEPT in every model, which may be scored.
        holdout: ids NEVER seen by any model.
        population: ids of the attacker's non-members.
        calibration: ids that set thresholds.
        test: ids that measure utility.
        background: ids trained on in every model and never scored.
        validation: ids that methods of deletion may train on.
        n_models: number of models (seeds), at least 1.
        seed: root seed of the models.

    Raises:
        InvalidInput: unknown ids, ids in two roles, an empty forget set, no model.
    """
    models = _whole("n_models", n_models)
    if models < 1:
        raise InvalidInput(f"n_models={models} must be at least 1")
    every = np.unique(np.asarray(ids, np.int64))
    sets = {
        "forget": (forget, Role.FORGOTTEN),
        "retain": (retain, Role.KEPT),
        "holdout": (holdout, Role.NEVER),
        "population": (population, Role.POPULATION),
        "calibration": (calibration, Role.CALIBRATION),
        "test": (test, Role.TEST),
        "background": (background, Role.BACKGROUND),
        "validation": (validation, Role.VALIDATION),
    }
    given = {name: _id_set(name, part, every) for name, (part, _) in sets.items() if part is not None}
    _refuse_shared(given)
    if not given["forget"].size:
        raise InvalidInput("forget is empty: name at least one record to forget")
    row = np.full(every.size, Role.UNUSED, np.int8)
    for name, part in given.items():
        row[np.searchsorted(every, part)] = sets[name][1]
    fold = fold_of_models(models, min(2, models))
    return Design(every, np.tile(row, (models, 1)), fold, _seed(seed))


SHARED_POOLS = {
    "background": Role.BACKGROUND,
    "population": Role.POPULATION,
    "calibration": Role.CALIBRATION,
    "test": Role.TEST,
    "validation": Role.VALIDATION,
}


def _whole(name: str, value: object) -> int:
    if isinstance(value, (bool, np.bool_)):
        raise InvalidInput(f"{name}={value!r} must be a whole number")
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise InvalidInput(f"{name}={value!r} must be a whole number: it is obeyed exactly and never rounded") from None


def _seed(seed: int) -> int:
    whole = _whole("seed", seed)
    if not 0 <= whole < 2**63:
        raise InvalidInput(f"seed={whole} must lie in 0..2**63-1")
    return whole


def _role_counts(counts: Sequence[float], n_models: int) -> tuple[int, ...]:
    given = tuple(float(c) for c in counts)
    if len(given) != 3 or not all(np.isfinite(given)) or min(given) < 0:
        raise InvalidInput(f"counts={tuple(counts)!r} must be three numbers >= 0: KEPT, FORGOTTEN, NEVER")
    if abs(sum(given) - n_models) < 1e-9:
        exact = list(given)
    elif abs(sum(given) - 1) < 1e-9:
        exact = [c * n_models for c in given]
    else:
        raise InvalidInput(
            f"counts={tuple(counts)!r} add up to {sum(given):g}: they must add up to 1 (fractions of the models) "
            f"or to n_models={n_models}"
        )
    whole = tuple(round(c) for c in exact)
    if any(abs(c - w) > 1e-6 for c, w in zip(exact, whole, strict=True)):
        kept, forgotten = int(exact[0]), int(exact[1])
        raise InvalidInput(
            f"n_models={n_models} with counts={tuple(round(c, 4) for c in given)} asks for "
            f"{', '.join(f'{c:.2f}' for c in exact)} models a record, which are not whole numbers; give whole ones, "
            f"for example counts=({kept}, {forgotten}, {n_models - kept - forgotten}), or another n_models"
        )
    if whole[2] < 1 or whole[0] + whole[1] < 1:
        raise InvalidInput(f"counts={whole}: every record must be in and out of the training data of some model")
    return whole


def _id_set(name: str, part: ArrayLike, every: Ids) -> Ids:
    given = np.asarray(part)
    if given.ndim != 1 or (given.size and not np.issubdtype(given.dtype, np.integer)):
        raise InvalidInput(f"{name}: ids must be a one-dimensional array of whole numbers, given {given.dtype}")
    ids = np.sort(given.astype(np.int64))
    if (np.diff(ids) == 0).any():
        raise InvalidInput(f"{name}: ids {ids[1:][np.diff(ids) == 0][:5].tolist()} are named twice")
    unknown = ids[~np.isin(ids, every)]
    if unknown.size:
        raise InvalidInput(f"{name}: {unknown.size} ids are not in the data set, the first {unknown[:5].tolist()}")
    return ids


def _refuse_shared(sets: Mapping[str, Ids]) -> None:
    names = list(sets)
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            both = np.intersect1d(sets[first], sets[second])
            if both.size:
                raise InvalidInput(
                    f"{first} and {second} share {both.size} ids, the first {both[:5].tolist()}; "
                    "every record has one role"
                )


def _draw_pools(y: NDArray[np.generic], asked: Mapping[str, int | Ids], rng: np.random.Generator) -> dict[str, Ids]:
    """Return disjoint pools of ids, ascending: the ids that were named, and the rest drawn by class."""
    if y.ndim != 1:
        raise InvalidInput(f"labels must be (n,), given {y.shape}")
    every = np.arange(y.size, dtype=np.int64)
    pools = {name: _id_set(name, part, every) for name, part in asked.items() if not np.isscalar(part)}
    _refuse_shared(pools)
    sizes = {name: _whole(name, part) for name, part in asked.items() if name not in pools}
    for name, size in sizes.items():
        if size < 0:
            raise InvalidInput(f"{name}={size} must not be negative")
    free = np.setdiff1d(every, np.concatenate([np.empty(0, np.int64), *pools.values()]))
    if sum(sizes.values()) > free.size:
        raise InvalidInput(
            f"{' + '.join(f'{name} {size}' for name, size in sizes.items())} = {sum(sizes.values())} records, "
            f"but only {free.size} are free; ask for fewer"
        )
    order = free[_by_class(y[free], rng)]
    start = 0
    for name, size in sizes.items():
        pools[name] = np.sort(order[start : start + size])
        start += size
    return pools


def _by_class(y: NDArray[np.generic], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return a random order of which every stretch holds the classes in proportion, to within a record or two."""
    # Systematic sampling: the members of a class, shuffled, stand at equal distances with a random start.
    place = np.empty(y.size, np.float64)
    classes, label = np.unique(y, return_inverse=True)
    for number in range(classes.size):
        members = np.flatnonzero(label == number)
        place[rng.permutation(members)] = (np.arange(members.size) + rng.random()) / members.size
    return np.lexsort((rng.random(y.size), place))
