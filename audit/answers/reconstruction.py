"""Attacks that recover data instead of scoring records: what they are told, what they may touch, and who judges them.

The attack gets two versions of a model, public records, and what ``told`` lets out about the deleted ones; inputs of
secret records are refused to it. A judge that holds the truth then compares what was recovered, beside what the same
question yields without the models (chance), and the whole is repeated on pairs that never held the records (control).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.oracle import Oracle
from mnemoscope.audit.answers.protocols import check_needs
from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.answers.wrapped import WrappedOracle
from mnemoscope.audit.errors import AuditError, InvalidInput

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "Case",
    "Judged",
    "Reconstruction",
    "Secret",
    "VersionPair",
    "attack_case",
    "centred_cosine",
    "offered_by_case",
]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class VersionPair:
    """Both versions of one model and the public records, as an adversary holds them.

    Attributes:
        before: the model before deletion.
        after: the model after deletion.
        public: (z,) int64 ids of records that no version was trained on; the adversary has their inputs and labels.
        n_before: number of training records before deletion, known to the adversary.
        n_deleted: how many of them were deleted, known to the adversary.
        base: the public model from which the training of both versions started, where there is one.
    """

    before: Oracle
    after: Oracle
    public: NDArray[np.int64]
    n_before: int
    n_deleted: int
    base: Oracle | None = None

    def __post_init__(self) -> None:
        if self.public.size < 2:
            raise InvalidInput(f"{self.public.size} public records: reconstruction needs at least 2 of them")
        if not 1 <= self.n_deleted < self.n_before:
            raise InvalidInput(f"n_deleted={self.n_deleted} must lie between 1 and n_before - 1 = {self.n_before - 1}")


@dataclass(frozen=True, eq=False)
class Secret:
    """The deleted records, for the judge.

    Attributes:
        ids: (k,) int64.
        inputs: (k, ...) float32, as the model takes them.
        labels: (k,) int64.
    """

    ids: NDArray[np.int64]
    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        if not (self.ids.size == self.inputs.shape[0] == self.labels.size > 0):
            raise InvalidInput(
                f"a secret needs as many ids, inputs and labels, at least one: given {self.ids.size}, "
                f"{self.inputs.shape[0]}, {self.labels.size}"
            )


@dataclass(frozen=True, eq=False)
class Case:
    """One pair with its secret; ``of`` makes one from ids."""

    pair: VersionPair
    secret: Secret

    @classmethod
    def of(cls, pair: VersionPair, ids: NDArray[np.int64]) -> "Case":
        """Return the case of a pair whose secret records have these ids (the before-model's oracle knows them)."""
        ids = np.asarray(ids, np.int64)
        shared = np.intersect1d(ids, pair.public)
        if shared.size:
            raise InvalidInput(
                f"{shared.size} records are both secret and public, e.g. id {shared[0]}; keep them apart"
            )
        inputs, labels = pair.before.inputs(ids), pair.before.labels(ids)
        return cls(pair, Secret(ids, inputs.cpu().numpy(), labels.cpu().numpy()))


@dataclass(frozen=True, eq=False)
class Judged:
    """What the judge found, one entry a trial.

    Attributes:
        value: (t,) float64, larger = better recovered.
        chance: (t,) float64, the same without the models.
        details: further numbers for the note, e.g. "PSNR in dB", averaged over trials and cases.
    """

    value: Floats
    chance: Floats
    details: Mapping[str, float] = field(default_factory=dict)


class Reconstruction(Protocol):
    """A frozen dataclass of settings; ``recover`` never meets the truth, ``judge`` never meets the models' training.

    Optional: ``cannot(n_deleted, shape) -> str`` says from counts and shape of the inputs alone, before any work, why
    no pair can be attacked; "" where one can.
    """

    @property
    def name(self) -> str:
        """The name in tables and in the registry."""
        ...

    @property
    def needs(self) -> Need:
        """``ORACLE`` or ``GRADIENT``, and ``SCORES`` where it reads more than labels."""
        ...

    @property
    def unit(self) -> str:
        """What one unit of success is, e.g. "cosine to the deleted record"."""
        ...

    @property
    def note(self) -> str:
        """What is tried and against which chance, in one sentence for reports."""
        ...

    def told(self, secret: Secret, pair: VersionPair) -> Any:
        """Return what the adversary is told about the secret records, and nothing else of them."""
        ...

    def recover(self, pair: VersionPair, told: Any, *, rng: np.random.Generator) -> Any:
        """Attack.

        Raises:
            InvalidInput: a pair that this attack cannot work on, with the reason.
        """
        ...

    def judge(self, recovered: Any, case: Case, *, rng: np.random.Generator) -> Judged:
        """Compare what was recovered with the truth."""
        ...


def attack_case(attack: Reconstruction, case: Case, rng: np.random.Generator) -> Judged:
    """Attack one pair blindfolded and judge what came of it.

    Raises:
        InvalidInput: a pair the attack cannot work on.
        MissingNeed: oracles without the access that the attack needs.
        AuditError: an attack that asked for a secret record, or a judge that answers no finite numbers.
    """
    check_needs([(attack.name, attack.needs)], offered_by_case(case))
    pair, secret = case.pair, case.secret
    base = None if pair.base is None else _Blindfold(pair.base, secret.ids)
    seen = VersionPair(
        _Blindfold(pair.before, secret.ids),
        _Blindfold(pair.after, secret.ids),
        pair.public,
        pair.n_before,
        pair.n_deleted,
        base,
    )
    recovered = attack.recover(seen, attack.told(secret, seen), rng=rng)
    judged = attack.judge(recovered, case, rng=rng)
    if judged.value.shape != judged.chance.shape or judged.value.ndim != 1 or judged.value.size == 0:
        raise AuditError(f"{attack.name}: judged {judged.value.shape} values against {judged.chance.shape} by chance")
    if not (np.isfinite(judged.value).all() and np.isfinite(judged.chance).all()):
        raise AuditError(f"{attack.name}: a trial was judged by a number that is not finite")
    return judged


def offered_by_case(case: Case) -> Need:
    """Return what both versions of a pair allow, as flags."""
    offered = Need.ORACLE
    oracles = (case.pair.before, case.pair.after)
    if not any(getattr(oracle, "labels_only", False) for oracle in oracles):
        offered |= Need.SCORES
    if all(oracle.white_box for oracle in oracles):
        offered |= Need.GRADIENT
    return offered


def centred_cosine(a: Floats, b: Floats, centre: Floats) -> Floats:
    """Cosine of rows after a common centre is taken off: unrelated records have 0, however alike all records are.

    Args:
        a: (k, d) float64.
        b: (j, d) float64.
        centre: (d,), the public records' mean.

    Returns:
        (k, j) float64 in [-1, 1]; 0 for a row that lies on the centre.
    """

    def unit(rows: Floats) -> Floats:
        rest = rows - centre
        norm = np.linalg.norm(rest, axis=1, keepdims=True)
        turned: Floats = rest / np.where(norm > 0, norm, 1.0)
        return turned

    cosine: Floats = np.clip(unit(a) @ unit(b).T, -1.0, 1.0)
    return cosine


class _Blindfold(WrappedOracle):
    """An oracle that refuses the secret records by id, so that no attack can read what it is to recover."""

    def __init__(self, oracle: Oracle, secret: NDArray[np.int64]) -> None:
        super().__init__(oracle)
        self._secret = secret

    def _refuse(self, ids: NDArray[np.int64]) -> None:
        if np.isin(ids, self._secret).any():
            raise AuditError("a reconstruction attack asked for a record that it is to recover")

    def inputs(self, ids: NDArray[np.int64]) -> "Tensor":
        """Return the inputs of other records."""
        self._refuse(ids)
        return super().inputs(ids)

    def labels(self, ids: NDArray[np.int64]) -> "Tensor":
        """Return the labels of other records."""
        self._refuse(ids)
        return super().labels(ids)
