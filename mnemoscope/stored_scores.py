"""``evidence/scores.npz``: every score a verdict rests on, as plain arrays, and an index that says which is which.

The index is a text array named ``index`` that holds JSON. Rows of arrays are positions; the array ``pseudonyms`` names
the audited records. Scores of cells that take no part in a game are stored as 0.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.games import GAMES
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.fleet import FleetScores
from mnemoscope.audit.verdict.basis import Basis
from mnemoscope.audit.verdict.onemodel_decision import Exposure, ModelScores, OneModelScores, Retained
from mnemoscope.audit.verdict.onemodel_rates import Board
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.procedure_decision import SharedScores, SubjectScores
from mnemoscope.audit.work.keys import canonical_json
from mnemoscope.audit.work.side_arrays import ArrayWriter, SideArrays

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["Index", "ScoreWriter", "StoredScores"]

VERSION = 1
Mode = Literal["procedure", "one-model", "membership"]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class FleetIndex:
    """Names of the arrays of ``SharedScores``."""

    role: str
    fold: str
    retrained: dict[str, str]
    no_op: str | None
    before: str | None
    retained: str | None
    correct: str | None


@dataclass(frozen=True)
class SubjectIndex:
    """Names of the arrays of ``SubjectScores``, and what its word rests on beside them."""

    name: str
    fleet: int
    after: dict[str, str]
    margin: str | None
    retained: str | None
    correct: str | None
    trained_against: tuple[str, ...]
    basis: Basis


@dataclass(frozen=True)
class BoardIndex:
    """Names of the arrays of a ``Board``."""

    group: str
    sets: str
    judged: str


@dataclass(frozen=True)
class AttackIndex:
    """Names of the arrays of ``ModelScores``; ``pairs`` is (models, 2, records)."""

    after: str
    before: str | None
    pairs: str | None


@dataclass(frozen=True)
class ExposureIndex:
    """Names of the arrays of ``Exposure``."""

    margin: str
    others: str
    side: str


@dataclass(frozen=True)
class RetainedIndex:
    """Names of the arrays of ``Retained``."""

    attack: str
    pairs: str | None
    board: BoardIndex


@dataclass(frozen=True)
class ModelIndex:
    """Names of the arrays of ``OneModelScores``, and what its word rests on beside them."""

    name: str
    primary: str
    board: BoardIndex
    attacks: dict[str, AttackIndex]
    exposure: ExposureIndex | None
    retained: RetainedIndex | None
    correct: str
    correct_retrained: str | None
    basis: Basis


@dataclass(frozen=True)
class Index:
    """Which array is what.

    Attributes:
        version: of this layout.
        mode: of the audit.
        plan: digest of the plan.
        policy: all fields of the policy.
        primary: the attack that decides WITHIN.
        alpha: the endpoints' FPR.
        attacks: the attacks with their settings, as a plan gives them; empty in procedure mode, whose plan is kept.
        fleets, subjects: of procedure mode.
        models: of the other modes.
    """

    version: int
    mode: Mode
    plan: str
    policy: dict[str, Any]
    primary: str
    alpha: float | None
    attacks: tuple[dict[str, Any], ...] = ()
    fleets: tuple[FleetIndex, ...] = ()
    subjects: tuple[SubjectIndex, ...] = ()
    models: tuple[ModelIndex, ...] = ()


class ScoreWriter:
    """Writes scores as they are made; nothing but the index is kept in memory.

    Args:
        file: the open ``scores.npz``; None writes nothing.
        pseudonyms: (n,) keyed names of the audited records.
    """

    def __init__(self, file: ArrayWriter | None, pseudonyms: NDArray[np.str_]) -> None:
        self._file = file
        self._fleets: list[FleetIndex] = []
        self._known: WeakKeyDictionary[SharedScores, int] = WeakKeyDictionary()
        self._subjects: list[SubjectIndex] = []
        self._models: list[ModelIndex] = []
        if file is not None and pseudonyms.size:
            file.add("pseudonyms", pseudonyms)

    def subject(self, name: str, scores: SubjectScores, basis: Basis) -> None:
        """Store what one deletion procedure is judged by."""
        if self._file is None:
            return
        put, i = self._file.add, len(self._subjects)
        if scores.shared not in self._known:
            self._known[scores.shared] = len(self._fleets)
            self._fleets.append(self._fleet(len(self._fleets), scores.shared))
        self._subjects.append(
            SubjectIndex(
                name=name,
                fleet=self._known[scores.shared],
                after=self._named(f"subject{i}.after", scores.after),
                margin=None if scores.margin is None else put(f"subject{i}.margin", scores.margin),
                retained=None if scores.retained is None else put(f"subject{i}.retained", _played(scores.retained)),
                correct=None if scores.correct is None else put(f"subject{i}.correct", scores.correct),
                trained_against=tuple(scores.trained_against),
                basis=basis,
            )
        )

    def _fleet(self, i: int, shared: SharedScores) -> FleetIndex:
        assert self._file is not None
        put = self._file.add

        def maybe(name: str, scores: FleetScores | None) -> str | None:
            return None if scores is None else put(f"fleet{i}.{name}", _played(scores))

        return FleetIndex(
            role=put(f"fleet{i}.role", shared.role),
            fold=put(f"fleet{i}.fold", shared.fold),
            retrained=self._named(f"fleet{i}.retrained", shared.retrained),
            no_op=maybe("no_op", shared.no_op),
            before=maybe("before", shared.before),
            retained=maybe("retained", shared.retained),
            correct=None if shared.correct is None else put(f"fleet{i}.correct", shared.correct),
        )

    def _named(self, start: str, scores: Mapping[str, FleetScores]) -> dict[str, str]:
        assert self._file is not None
        return {
            attack: self._file.add(f"{start}.{k}-{_slug(attack)}", _played(one))
            for k, (attack, one) in enumerate(scores.items())
        }

    def model(self, name: str, scores: OneModelScores, basis: Basis) -> None:
        """Store what one model is judged by."""
        if self._file is None:
            return
        put, start = self._file.add, f"model{len(self._models)}"
        exposure = retained = None
        if (x := scores.exposure) is not None:
            exposure = ExposureIndex(
                put(f"{start}.margin", x.margin), put(f"{start}.others", x.others), put(f"{start}.side", x.side)
            )
        if (kept := scores.retained) is not None:
            pairs = put(f"{start}.retained.pairs", np.array(kept.pairs, np.float64)) if kept.pairs else None
            retained = RetainedIndex(kept.attack, pairs, self._board(f"{start}.retained", kept.board))
        attacks = {}
        for k, (attack, found) in enumerate(scores.attacks.items()):
            at = f"{start}.{k}-{_slug(attack)}"
            attacks[attack] = AttackIndex(
                put(f"{at}.after", found.after),
                None if found.before is None else put(f"{at}.before", found.before),
                put(f"{at}.pairs", np.array(found.pairs, np.float64)) if found.pairs else None,
            )
        right = scores.correct_retrained
        self._models.append(
            ModelIndex(
                name=name,
                primary=scores.primary,
                board=self._board(start, scores.board),
                attacks=attacks,
                exposure=exposure,
                retained=retained,
                correct=put(f"{start}.correct", scores.correct),
                correct_retrained=None if right is None else put(f"{start}.correct_retrained", right),
                basis=basis,
            )
        )

    def _board(self, start: str, board: Board) -> BoardIndex:
        assert self._file is not None
        put = self._file.add
        return BoardIndex(
            put(f"{start}.group", board.group), put(f"{start}.sets", board.sets), put(f"{start}.judged", board.judged)
        )

    def close(
        self,
        mode: Mode,
        *,
        plan: str,
        policy: Policy,
        primary: str,
        alpha: float | None,
        attacks: tuple[dict[str, Any], ...] = (),
    ) -> None:
        """Write the index; arguments as in ``Index``."""
        if self._file is None:
            return
        index = Index(
            VERSION, mode, plan, asdict(policy), primary, alpha, attacks,
            tuple(self._fleets), tuple(self._subjects), tuple(self._models),
        )  # fmt: skip
        self._file.add("index", np.array(canonical_json(asdict(index)).decode("utf-8")))


def _slug(name: str) -> str:
    return re.sub("[^a-z0-9]+", "-", name.lower())[:40].strip("-") or "attack"


def _played(scores: FleetScores) -> Floats:
    return np.where(scores.side >= 0, scores.score, 0.0)


@cache
def _adapter() -> "TypeAdapter[Index | None]":
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(Index | None, config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))


class StoredScores:
    """Read what ``ScoreWriter`` wrote; whoever made the file, it is plain numbers within bounds.

    Args:
        data: the file's bytes, or its path.

    Raises:
        InvalidInput: no such file, or one of another layout.
    """

    def __init__(self, data: bytes | Path) -> None:
        from pydantic import ValidationError

        self._arrays = SideArrays(data)
        text = str(self._arrays.get("index", kind="U", ndim=0)[()])
        try:
            index = _adapter().validate_json(text)
        except (ValidationError, ValueError, RecursionError) as error:
            raise InvalidInput(f"scores.npz: its index is none of this release ({str(error)[:200]})") from error
        if index is None or index.version != VERSION:
            raise InvalidInput("scores.npz: written by another release; recompute it with that one")
        self.index = index
        try:
            values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in index.policy.items()}
            self.policy = Policy(**values)
        except TypeError as error:
            raise InvalidInput(f"scores.npz: its policy is none of this release ({error})") from error
        self._fleets: dict[int, SharedScores] = {}

    def close(self) -> None:
        """Close the file."""
        self._arrays.close()

    def subject(self, index: SubjectIndex) -> SubjectScores:
        """Return the scores of one deletion procedure."""
        if not 0 <= index.fleet < len(self.index.fleets):
            raise InvalidInput(f"scores.npz: {index.name}: there is no fleet {index.fleet}")
        shared = self._shared(index.fleet)
        return SubjectScores(
            shared=shared,
            after={a: self._scores(name, "forgetting", shared.role, shared.fold) for a, name in index.after.items()},
            margin=None if index.margin is None else self._like(index.margin, shared.role.shape),
            retained=None
            if index.retained is None
            else self._scores(index.retained, "retention", shared.role, shared.fold),
            correct=None if index.correct is None else self._arrays.get(index.correct, kind="b", ndim=2),
            trained_against=index.trained_against,
        )

    def _shared(self, number: int) -> SharedScores:
        if number not in self._fleets:
            at = self.index.fleets[number]
            role = self._arrays.get(at.role, kind="i", ndim=2).astype(np.int8)
            fold = self._arrays.get(at.fold, kind="iu", ndim=1)

            def one(name: str | None, game: str) -> FleetScores | None:
                return None if name is None else self._scores(name, game, role, fold)

            self._fleets = {  # one at a time: subjects of a fleet follow each other
                number: SharedScores(
                    role=role,
                    fold=fold,
                    primary=self.index.primary,
                    alpha=self.index.alpha,
                    retrained={a: self._scores(n, "forgetting", role, fold) for a, n in at.retrained.items()},
                    no_op=one(at.no_op, "forgetting"),
                    before=one(at.before, "membership"),
                    retained=one(at.retained, "retention"),
                    correct=None if at.correct is None else self._arrays.get(at.correct, kind="b", ndim=2),
                )
            }
        return self._fleets[number]

    def _scores(self, name: str, game: str, role: NDArray[np.int8], fold: NDArray[np.integer]) -> FleetScores:
        return FleetScores(self._like(name, role.shape), GAMES[game].side(role), fold)

    def _like(self, name: str, shape: tuple[int, ...]) -> Floats:
        values: Floats = self._arrays.get(name, kind="f", ndim=len(shape))
        if values.shape != shape or values.dtype != np.float64 or not np.isfinite(values).all():
            raise InvalidInput(f"scores.npz: {name}: {values.dtype} {values.shape}; expected finite float64 {shape}")
        return values

    def model(self, index: ModelIndex) -> OneModelScores:
        """Return the scores of one model."""
        board = self._board(index.board)
        n = board.group.shape
        exposure = retained = None
        if (x := index.exposure) is not None:
            side = self._arrays.get(x.side, kind="i", ndim=2).astype(np.int8)
            exposure = Exposure(self._like(x.margin, n), self._like(x.others, (side.shape[0], *n)), side)
        if (kept := index.retained) is not None:
            at = self._board(kept.board)
            retained = Retained(kept.attack, self._pairs(kept.pairs, at.group.size), at)
        right = index.correct_retrained
        return OneModelScores(
            primary=index.primary,
            alpha=index.basis.alpha,
            board=board,
            attacks={
                name: ModelScores(
                    self._like(one.after, n),
                    None if one.before is None else self._like(one.before, n),
                    self._pairs(one.pairs, board.group.size),
                )
                for name, one in index.attacks.items()
            },
            exposure=exposure,
            retained=retained,
            correct=self._arrays.get(index.correct, kind="b", ndim=1),
            correct_retrained=None if right is None else self._arrays.get(right, kind="b", ndim=2),
        )

    def _board(self, index: BoardIndex) -> Board:
        parts = [
            self._arrays.get(name, kind="i", ndim=1).astype(np.int8) for name in (index.group, index.sets, index.judged)
        ]
        if len({part.size for part in parts}) != 1:
            raise InvalidInput(f"scores.npz: {index.group}: group, sets and judged differ in length")
        return Board(*parts)

    def _pairs(self, name: str | None, n: int) -> tuple[tuple[Floats, Floats], ...]:
        if name is None:
            return ()
        values = self._arrays.get(name, kind="f", ndim=3)
        values = self._like(name, (values.shape[0], 2, n))
        return tuple((pair[0], pair[1]) for pair in values)

    @cached_property
    def pseudonyms(self) -> NDArray[np.str_]:
        """(n,) keyed names of the records."""
        return self._arrays.get("pseudonyms", kind="U", ndim=1)
