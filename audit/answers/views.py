"""What an attack may see: recorded answers of the target (View) and of the attacker's own models (Reference).

The truth about the target is in neither: it lives in the game and meets the scores only in ``Trials``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Flag, IntEnum, auto
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.oracle import Oracle
from mnemoscope.audit.answers.signals import compute_signal
from mnemoscope.audit.errors import InvalidInput, MissingNeed

__all__ = ["Answers", "Known", "Need", "Reference", "Side", "View", "require_models"]

Signals = dict[tuple[str, float], NDArray[np.float64]]
Array = TypeVar("Array", NDArray[np.float64], NDArray[np.float32])


class Side(IntEnum):
    """On which side of a reference model a record lies."""

    LEAVE_OUT = -1
    OUT = 0
    IN = 1


class Need(Flag):
    """What an attack reads of view and reference, or a method of the request; checked before any work."""

    NOTHING = 0
    SHADOW_IN = auto()
    SHADOW_OUT = auto()
    POPULATION = auto()
    BEFORE = auto()
    KNOWN = auto()
    SCORES = auto()
    ORACLE = auto()
    GRADIENT = auto()
    FORGET_DATA = auto()
    RETAIN_DATA = auto()
    VALIDATION_DATA = auto()
    HISTORY = auto()


@dataclass(frozen=True, eq=False)
class Answers:
    """Recorded logits of one or several models on the same records.

    Attributes:
        ids: (n,) int64 record ids, unique.
        labels: (n,) int64 true classes.
        logits: (n, q, c) for one model or (m, n, q, c) for m models; float32, q queries, c classes.
        queries: name of each query, for attacks that read certain ones; () where nobody named them.
        labels_only: the model gives its predicted class and nothing else; the arg-max of ``logits`` is that class,
            and no signal but "correctness" exists.
    """

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    logits: NDArray[np.float32]
    queries: tuple[str, ...] = field(default=(), kw_only=True)
    labels_only: bool = field(default=False, kw_only=True)
    _signals: Signals = field(default_factory=dict, repr=False, kw_only=True)

    def __post_init__(self) -> None:
        if self.ids.ndim != 1 or self.labels.shape != self.ids.shape:
            raise InvalidInput(f"ids {self.ids.shape} and labels {self.labels.shape} must both be (n,)")
        if self.logits.ndim not in (3, 4) or self.logits.shape[-3] != self.ids.size:
            raise InvalidInput(f"logits {self.logits.shape} must be (n, q, c) or (m, n, q, c) with n = {self.ids.size}")
        if self.queries and len(self.queries) != self.logits.shape[-2]:
            raise InvalidInput(f"{len(self.queries)} query names given for logits {self.logits.shape}")

    def query_positions(self, queries: Sequence[str]) -> list[int]:
        """Return where the named queries lie, in the order given.

        Raises:
            MissingNeed: a query that was not asked; without names, only the first answer is "identity".
        """
        names = self.queries or ("identity",)
        missing = [query for query in queries if query not in names]
        if missing:
            raise MissingNeed(
                f"{len(missing)} queries were not asked: {', '.join(missing[:5])}; asked were {', '.join(names[:5])}. "
                "Ask every model the queries that the attack names"
            )
        return [names.index(query) for query in queries]

    def signal(self, name: str, *, temperature: float = 1.0) -> NDArray[np.float64]:
        """Return the signal, (n, q) or (m, n, q) float64, read-only; computed once for each name.

        Raises:
            MissingNeed: a signal other than "correctness" of a model that answers with labels only.
        """
        key = (name, temperature)
        if self.labels_only and name != "correctness":
            raise MissingNeed(
                f"this model answers with labels only: the signal {name!r} needs its scores. "
                "Use attacks that read labels: correctness, label_augmentation, boundary_distance"
            )
        if key not in self._signals:
            shared = self._signals.find(self.logits, key) if isinstance(self._signals, _Shared) else None
            if shared is not None:
                shared.flags.writeable = False
                self._signals[key] = shared
                return shared
            values = compute_signal(name, self.logits, self.labels, temperature=temperature)
            values.flags.writeable = False
            self._signals[key] = values
        return self._signals[key]

    def averaged(self, name: str, *, temperature: float = 1.0) -> NDArray[np.float64]:
        """Return the signal averaged over queries, (n,) or (m, n) float64; of a single query it is the signal itself.

        Raises:
            MissingNeed: as of ``signal``.
        """
        values = self.signal(name, temperature=temperature)
        mean: NDArray[np.float64] = values[..., 0] if values.shape[-1] == 1 else values.mean(axis=-1)
        return mean

    @property
    def n_records(self) -> int:
        """Number of records."""
        return int(self.ids.size)

    @property
    def n_classes(self) -> int:
        """Number of classes of the model, not of the batch."""
        return int(self.logits.shape[-1])

    def positions(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where the given record ids lie, (len(ids),) int64, in the order given.

        Raises:
            InvalidInput: an id that is not here, or ids that are not unique; up to ten are named.
        """
        if ids is self.ids or np.array_equal(ids, self.ids):
            return np.arange(self.ids.size)
        order = np.argsort(self.ids, kind="stable")
        ranked = self.ids[order]
        if (ranked[1:] == ranked[:-1]).any():
            raise InvalidInput(f"record ids are not unique: {_named(ranked[1:][ranked[1:] == ranked[:-1]])}")
        at = np.searchsorted(ranked, ids)
        known = ranked.size > 0
        unknown = ranked[np.minimum(at, ranked.size - 1)] != ids if known else np.ones(ids.size, np.bool_)
        if unknown.any():
            raise InvalidInput(
                f"{int(unknown.sum())} records have no answers here: {_named(ids[unknown])}. "
                "Answer the same records with every model"
            )
        return np.asarray(order[at], np.int64)

    def require_disjoint(self, other: "Answers", what: str) -> None:
        """Refuse where ``other`` (``what``, e.g. "population") shares records with these: it would score itself.

        Raises:
            InvalidInput: shared record ids; up to ten are named.
        """
        # A table of the ids where their range allows it: sorting many records once for each target would cost seconds.
        shared = np.unique(other.ids[np.isin(other.ids, self.ids)])
        if shared.size:
            raise InvalidInput(
                f"{shared.size} records are both audited and {what}: {_named(shared)}. "
                f"Use {what} records that are not audited"
            )


class _Shared(Signals):
    """Signals of some models of a larger fleet, taken from it where that spares work.

    Attributes:
        whole: answers of the fleet.
        at: positions of these models in it, several or one.
        logits: theirs; answers with other logits do not ask here.
    """

    def __init__(self, whole: Answers, at: NDArray[np.int64] | int, logits: NDArray[np.float32]) -> None:
        super().__init__({key: value[at] for key, value in whole._signals.items()} if isinstance(at, int) else {})
        self.whole, self.at, self.logits = whole, at, logits

    def find(self, logits: NDArray[np.float32], key: tuple[str, float]) -> NDArray[np.float64] | None:
        """Return a signal, or None where computing that of the whole fleet would be much more work."""
        most = 0 if isinstance(self.at, int) else 2 * self.at.size
        if logits is not self.logits or (key not in self.whole._signals and most < self.whole.logits.shape[0]):
            return None
        values: NDArray[np.float64] = _rows(self.whole.signal(key[0], temperature=key[1]), self.at)
        return values


def _of_models(answers: Answers, at: NDArray[np.int64] | int) -> Answers:
    """Return the answers of some models of a fleet, or of one."""
    logits = _rows(answers.logits, at)
    return Answers(
        answers.ids,
        answers.labels,
        logits,
        queries=answers.queries,
        labels_only=answers.labels_only,
        _signals=_Shared(answers, at, logits),
    )


def _rows(array: Array, at: NDArray[np.int64] | int) -> Array:
    """Return ``array[at]``; evenly spaced rows, such as one or every other one, without a copy."""
    if isinstance(at, int) or at.size < 2:
        return array[at]
    gap = int(at[1] - at[0])
    if gap > 0 and at[0] >= 0 and (np.diff(at) == gap).all():
        return array[int(at[0]) : int(at[-1]) + 1 : gap]
    return array[at]


def require_models(side: NDArray[np.int8], least: int, both: bool, ids: NDArray[np.int64] | None = None) -> None:
    """Refuse records with too few reference models, by id and before any score exists.

    Args:
        side: (m, n) int8 of ``Side``.
        least: models that a record needs on a side.
        both: whether IN models are needed too; OUT models always are.
        ids: (n,) int64 to name; positions are named without it.

    Raises:
        InvalidInput: records with fewer models than ``least``; up to ten are named.
    """
    for wanted in (Side.IN, Side.OUT) if both else (Side.OUT,):
        few = np.flatnonzero((side == wanted).sum(axis=0) < least)
        if few.size:
            raise InvalidInput(
                f"{few.size} records have fewer than {least} {wanted.name} models: "
                f"{_named(few if ids is None else ids[few])}. "
                "Use a design that balances both sides for every record, or leave these records out"
            )


def _named(ids: NDArray[np.int64]) -> str:
    more = "" if ids.size <= 10 else f", ... ({ids.size} in all)"
    return "ids " + ", ".join(str(int(i)) for i in ids[:10]) + more


@dataclass(frozen=True, eq=False)
class Known:
    """Records of the target whose membership the adversary knows; disjoint from the audited ids."""

    members: Answers
    nonmembers: Answers


@dataclass(frozen=True, eq=False)
class View(Answers):
    """Answers of ONE model, the target; logits (n, q, c).

    Attributes:
        before: the same records answered by the model before deletion, where the adversary has it.
        population: the target's answers on population records, members of no model.
        known: records with known membership.
        oracle: live, counted access to the model, where the adversary has it.
    """

    before: "View | None" = None
    population: Answers | None = None
    known: Known | None = None
    oracle: Oracle | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.logits.ndim != 3:
            raise InvalidInput(f"a View is of one model: logits (n, q, c), given {self.logits.shape}")


@dataclass(frozen=True, eq=False)
class Reference(Answers):
    """Answers of the attacker's own m models on the audited records; logits (m, n, q, c), m may be 0.

    Attributes:
        side: (m, n) int8 of ``Side``: is model i an IN or an OUT model of record j? Filled by the game.
        population: answers of the same m models on the population records, logits (m, z, q, c).
        before: the same m models before deletion, where the attack reads both.
        fold: (m,) int8, folds of models with balanced roles, for attacks that learn.
        oracles: live, counted access to each of the m models.
    """

    side: NDArray[np.int8] = field(kw_only=True)
    population: Answers | None = None
    before: "Reference | None" = None
    fold: NDArray[np.int8] | None = None
    oracles: tuple[Oracle, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.logits.ndim != 4:
            raise InvalidInput(f"a Reference is of several models: logits (m, n, q, c), given {self.logits.shape}")
        if self.side.shape != self.logits.shape[:2]:
            raise InvalidInput(f"side {self.side.shape} must be (m, n) = {self.logits.shape[:2]}")
        if self.fold is not None and self.fold.shape != self.logits.shape[:1]:
            raise InvalidInput(f"fold {self.fold.shape} must be (m,) = {self.logits.shape[:1]}")
        if self.oracles is not None and len(self.oracles) != self.logits.shape[0]:
            raise InvalidInput(f"{len(self.oracles)} oracles given for {self.logits.shape[0]} models")

    @property
    def n_models(self) -> int:
        """Number of reference models."""
        return int(self.logits.shape[0])

    def with_side(self, side: NDArray[np.int8]) -> "Reference":
        """Return the same answers under another assignment of sides, before deletion too; signals are shared."""
        before = None if self.before is None else replace(self.before, side=side)
        return replace(self, side=side, before=before)

    def asking(self, queries: Sequence[str]) -> "Reference":
        """Return the reference with the named queries alone, in the order given."""
        names = self.queries or ("identity",)
        if tuple(queries) == names and self.logits.shape[-2] == len(names):
            return self
        at = self.query_positions(queries)
        population = self.population
        if population is not None:
            population = replace(population, logits=population.logits[:, :, at], queries=tuple(queries), _signals={})
        before = None if self.before is None else self.before.asking(queries)
        return replace(
            self,
            logits=self.logits[:, :, at],
            queries=tuple(queries),
            population=population,
            before=before,
            _signals={key: value[:, :, at] for key, value in self._signals.items()},
        )

    def select(self, models: Sequence[int] | NDArray[np.integer]) -> "Reference":
        """Return the reference restricted to the given model positions, signals carried along."""
        index = np.asarray(models, dtype=np.int64)
        logits = _rows(self.logits, index)
        return Reference(
            ids=self.ids,
            labels=self.labels,
            logits=logits,
            side=self.side[index],
            population=None if self.population is None else _of_models(self.population, index),
            before=None if self.before is None else self.before.select(index),
            fold=None if self.fold is None else self.fold[index],
            oracles=None if self.oracles is None else tuple(self.oracles[k] for k in index),
            queries=self.queries,
            labels_only=self.labels_only,
            _signals=_Shared(self, index, logits),
        )

    def without(self, models: Sequence[int] | NDArray[np.integer]) -> "Reference":
        """Return the reference without the given model positions."""
        keep = np.setdiff1d(np.arange(self.n_models), np.asarray(models, dtype=np.int64))
        return self.select(keep)

    def target(self, model: int) -> View:
        """Return model ``model`` as a target sees it: its answers, without any side."""
        model = int(model)
        logits = self.logits[model]
        return View(
            ids=self.ids,
            labels=self.labels,
            logits=logits,
            before=None if self.before is None else self.before.target(model),
            population=None if self.population is None else _of_models(self.population, model),
            oracle=None if self.oracles is None else self.oracles[model],
            queries=self.queries,
            labels_only=self.labels_only,
            _signals=_Shared(self, model, logits),
        )
