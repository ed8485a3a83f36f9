"""Roles of records in models, fixed before anything is trained."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

__all__ = ["Design", "Role"]


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


@dataclass(frozen=True, eq=False)
class Design:
    """One role for each (model, record) pair.

    Attributes:
        ids: (n,) int64 record ids of the data set, ascending.
        role: (m, n) int8 of ``Role``.
        fold: (m,) int8, folds of models in which every record's role counts are balanced as far as they divide.
        seed: root seed it was drawn from.
    """

    ids: NDArray[np.int64]
    role: NDArray[np.int8]
    fold: NDArray[np.int8]
    seed: int

    @property
    def n_models(self) -> int:
        """Number of models."""
        return int(self.role.shape[0])

    @property
    def audited(self) -> NDArray[np.int64]:
        """Ids of records that are KEPT, FORGOTTEN or NEVER in some model, ascending."""
        return self.ids[np.isin(self.role, (Role.KEPT, Role.FORGOTTEN, Role.NEVER)).any(axis=0)]

    def records(self, model: int, *roles: Role) -> NDArray[np.int64]:
        """Ids with one of the roles in a model, ascending."""
        return self.ids[np.isin(self.role[model], roles)]

    def models_with(self, record_id: int, role: Role) -> NDArray[np.int64]:
        """Models in which a record has a role."""
        column = int(np.searchsorted(self.ids, record_id))
        return np.flatnonzero(self.role[:, column] == role)

    def roles_of(self, ids: NDArray[np.int64]) -> NDArray[np.int8]:
        """Roles of the given ids, (m, len(ids)) int8, in the order given."""
        return self.role[:, np.searchsorted(self.ids, ids)]
