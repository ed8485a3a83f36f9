"""Pairs: originals, each with several versions of itself from which other records were deleted.

The design of the attack on the difference of two versions (Chen et al. 2021, arXiv 2005.02205): half of the records
serve the attacker's own originals, the other half the originals under attack, and in each half a pool of records is
kept out of all training. Beside a version's deleted records stand as many that stayed (in-in controls) and as many that
neither model saw. Deviation: a version's records are drawn without replacement within its original, so that no record
of an original counts twice; the release draws the never-seen ones with replacement.
"""

import hashlib
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.records.design import Role
from mnemoscope.audit.rng import generator

__all__ = ["Half", "PairsDesign", "pairs_design"]

Ids = NDArray[np.int64]


class Half(IntEnum):
    """Whose originals a record serves."""

    SHADOW = 0
    """The attacker's own: attacks learn from these."""
    TARGET = 1
    """Under attack."""


@dataclass(frozen=True, eq=False)
class PairsDesign:
    """Which records each original is trained on, and which are named, deleted and asked in each of its versions.

    Attributes:
        half: (o,) int8 of ``Half``, one for each original; shadow originals come first.
        train: (o, k) int64 ids that each original is trained on, ascending.
        original: (v,) int64 original of each version, ascending.
        removed: (v,) bool: False in controls, which are trained again with nothing deleted.
        named: (v, g) int64 ids named for deletion; in controls as if they were to be deleted.
        kept: (v, g) int64 ids of the same original that stay.
        never: (v, g) int64 ids in no training set at all.
        seed: root seed it was drawn from.
    """

    half: NDArray[np.int8]
    train: Ids
    original: Ids
    removed: NDArray[np.bool_]
    named: Ids
    kept: Ids
    never: Ids
    seed: int

    @property
    def n_originals(self) -> int:
        """Number of originals, of both halves."""
        return int(self.half.size)

    @property
    def n_versions(self) -> int:
        """Number of versions, controls included."""
        return int(self.original.size)

    @property
    def group(self) -> int:
        """Records deleted at once."""
        return int(self.named.shape[1])

    @property
    def asked(self) -> Ids:
        """(v, 3g) int64 ids: a version's named, kept and never-seen records, in the order of ``roles``."""
        return np.concatenate([self.named, self.kept, self.never], axis=1)

    @property
    def roles(self) -> NDArray[np.int8]:
        """(3g,) int8 of ``Role``: FORGOTTEN, KEPT, NEVER; in controls the FORGOTTEN ones are named only."""
        return np.repeat(np.array([Role.FORGOTTEN, Role.KEPT, Role.NEVER], np.int8), self.group)

    @property
    def digest(self) -> str:
        """``sha256:...`` of everything here; the same on every machine."""
        sha = hashlib.sha256(f"pairs 1 {self.train.shape} {self.named.shape} {self.seed}\n".encode())
        for array, kind in (
            (self.half, "i1"),
            (self.train, "<i8"),
            (self.original, "<i8"),
            (self.removed, "u1"),
            (self.named, "<i8"),
            (self.kept, "<i8"),
            (self.never, "<i8"),
        ):
            sha.update(np.ascontiguousarray(array, kind).tobytes())
        return f"sha256:{sha.hexdigest()}"

    def training_ids(self, version: int) -> Ids:
        """Return the ids that a version is trained on, ascending: its original's, without what is removed."""
        ids: Ids = self.train[self.original[version]]
        return np.setdiff1d(ids, self.named[version]) if self.removed[version] else ids

    def versions_of(self, half: Half, *, removed: bool = True) -> Ids:
        """Return the versions (or with ``removed=False`` the controls) of one half's originals, ascending."""
        return np.flatnonzero((self.half[self.original] == half) & (self.removed == removed))


def pairs_design(
    labels: ArrayLike,
    *,
    originals: int = 10,
    versions: int = 20,
    group: int = 1,
    records: int = 2_000,
    controls: int = 0,
    never_share: float = 0.2,
    seed: int,
) -> PairsDesign:
    """Draw a pairs design; the defaults are the paper's.

    Args:
        labels: (n,) classes of all records; record ids are 0..n-1, and halves are drawn in proportion to the classes.
        originals: in each half.
        versions: of each original, with ``group`` records deleted.
        group: records deleted at once.
        records: training records of an original, drawn from its half's training pool.
        controls: further versions of each original with nothing deleted.
        never_share: share of each half that no model is trained on.
        seed: root seed, a non-negative integer.

    Raises:
        InvalidInput: a count below its least, more records than there are in a half, or too few to give every version
            records of its own.

    >>> design = pairs_design([0, 1] * 60, originals=2, versions=3, group=2, records=40, seed=0)
    >>> design.train.shape, design.named.shape, int(design.removed.sum())
    ((4, 40), (12, 2), 12)
    """
    y = np.asarray(labels)
    if y.ndim != 1:
        raise InvalidInput(f"labels must be (n,), given {y.shape}")
    least = {"originals": 1, "versions": 1, "group": 1, "records": 2, "controls": 0, "seed": 0}
    given = {
        "originals": originals,
        "versions": versions,
        "group": group,
        "records": records,
        "controls": controls,
        "seed": seed,
    }
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least[name]:
            raise InvalidInput(f"{name}={value!r} must be a whole number, at least {least[name]}")
    if not 0.0 < never_share < 1.0:
        raise InvalidInput(f"never_share={never_share!r} must lie between 0 and 1")
    halves = _halves(y, generator(seed, "pairs", "halves"))
    each = versions + controls
    parts: dict[str, list[NDArray[np.int64]]] = {name: [] for name in ("train", "named", "kept", "never")}
    for half, pool in zip(Half, halves, strict=True):
        n_never = round(never_share * pool.size)
        rng = generator(seed, "pairs", half.name)
        shuffled = rng.permutation(pool)
        never_pool, train_pool = shuffled[:n_never], shuffled[n_never:]
        _require_enough(half, train_pool.size, never_pool.size, records, each * group)
        for _ in range(originals):
            train = rng.choice(train_pool, records, replace=False)
            parts["named"].append(train[: each * group].reshape(each, group))
            parts["kept"].append(train[each * group : 2 * each * group].reshape(each, group))
            parts["never"].append(rng.choice(never_pool, (each, group), replace=False))
            parts["train"].append(np.sort(train))
    arrays = {name: np.concatenate(part) for name, part in parts.items() if name != "train"}
    return PairsDesign(
        half=np.repeat(np.array([Half.SHADOW, Half.TARGET], np.int8), originals),
        train=np.stack(parts["train"]),
        original=np.repeat(np.arange(2 * originals, dtype=np.int64), each),
        removed=np.tile(np.arange(each) < versions, 2 * originals),
        seed=int(seed),
        **arrays,
    )


def _halves(y: NDArray[np.generic], rng: np.random.Generator) -> tuple[Ids, Ids]:
    """Deal the records of each class to both halves in turn; sizes differ by at most one."""
    order = rng.permutation(y.size)
    dealt = order[np.argsort(np.unique(y[order], return_inverse=True)[1], kind="stable")]
    return np.sort(dealt[0::2]), np.sort(dealt[1::2])


def _require_enough(half: Half, n_train: int, n_never: int, records: int, per_original: int) -> None:
    if records > n_train:
        raise InvalidInput(
            f"records={records}: the {half.name.lower()} half has {n_train} training records; ask for fewer"
        )
    if 2 * per_original >= records:
        raise InvalidInput(
            f"(versions + controls) x group = {per_original} records to delete and as many to keep need more than "
            f"{2 * per_original} training records; there are records={records}"
        )
    if per_original > n_never:
        raise InvalidInput(
            f"(versions + controls) x group = {per_original} never-seen records are needed for each original; the "
            f"{half.name.lower()} half has {n_never}. Raise never_share, or ask for fewer versions or a smaller group"
        )
