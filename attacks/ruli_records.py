"""Which records to audit: RULI's vulnerable and protected ones (Naderloui et al. 2025, arXiv 2506.13009).

Vulnerable records are members that a per-record attack finds in the model before deletion at a very low false-positive
rate; protected ones are members that it cannot judge. An average over random records hides the first among the rest.

Select on one fleet and audit another: records that look vulnerable in the very models that are audited do so partly by
chance, and the audit then finds a leak in models that remember nothing. ``disjoint_halves`` cuts one fleet in two.

Deviations: every model of the selection fleet serves as target, and a record is judged by its mean over those that
hold it, where the release judges by one target; the never-seen records of the threshold are those of the design, where
the release draws them again and meets members among them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from mnemoscope.attacks.ruli import Ruli
from mnemoscope.audit.answers.protocols import score_fleet
from mnemoscope.audit.answers.views import Reference, Side
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.roc import threshold_at

__all__ = ["Selection", "disjoint_halves", "select_records"]

Ids = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Selection:
    """Records by what a membership attack says of them while they are in.

    Attributes:
        vulnerable: ids, most exposed first.
        protected: ids, nearest to even odds first.
        threshold: log ratio above which a record counts as vulnerable.
    """

    vulnerable: Ids
    protected: Ids
    threshold: float


def select_records(
    reference: Reference,
    *,
    most: int = 600,
    fpr: float = 1e-4,
    width: float = 0.1,
    attack: Ruli | None = None,
    rng: np.random.Generator,
) -> Selection:
    """Select vulnerable and protected records on a fleet that is not audited.

    Args:
        reference: models before deletion with the sides of the membership game; not those of the audit.
        most: records of each kind at most.
        fpr: false-positive rate, over all OUT cells, that a vulnerable record's mean score clears.
        width: distance from even odds up to which a record's mean probability counts as protected.
        attack: settings of the densities; RULI's by default.
        rng: handed to the attack.

    Returns:
        Disjoint sets of ids.

    Raises:
        InvalidInput: settings out of range.
    """
    if most < 1 or not 0 < fpr < 1 or not 0 < width < 0.5:
        raise InvalidInput(
            f"most={most!r} must be at least 1, fpr={fpr!r} lie in (0, 1), width={width!r} lie in (0, 0.5)"
        )
    score = score_fleet(attack or Ruli(), reference, rng=rng)
    member = reference.side == Side.IN
    threshold = threshold_at(score[reference.side == Side.OUT], fpr)
    number = member.sum(axis=0)
    mean = np.where(member, score, 0.0).sum(axis=0) / number
    odds = np.abs(np.where(member, expit(score), 0.0).sum(axis=0) / number - 0.5)
    exposed = mean >= threshold
    vulnerable = _first(reference.ids, exposed, -mean)[:most]
    protected = _first(reference.ids, ~exposed & (odds <= width), odds)[:most]
    return Selection(vulnerable, protected, float(threshold))


def disjoint_halves(reference: Reference) -> tuple[Reference, Reference]:
    """Cut a fleet by folds into models to select records on and models to audit.

    Raises:
        InvalidInput: fewer than two folds.
    """
    fold = np.zeros(reference.n_models, np.int8) if reference.fold is None else reference.fold
    folds = np.unique(fold)
    if folds.size < 2:
        raise InvalidInput("selection and audit need models of their own: the design must have at least 2 folds")
    first = np.isin(fold, folds[: folds.size // 2])
    return reference.select(np.flatnonzero(first)), reference.select(np.flatnonzero(~first))


def _first(ids: Ids, wanted: NDArray[np.bool_], key: NDArray[np.float64]) -> Ids:
    order = np.lexsort((ids, key))
    return ids[order[wanted[order]]]
