"""Measures of forgetting: functions of whole fleets that score no record for an attacker.

Unlike an attack, a measure is the auditor's own: it knows the roles. For several of them perfect forgetting does not
score zero, so each comes with its floor, the same number for models that were retrained and never saw the records.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.views import Need, Reference
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.trials import Estimate

__all__ = ["Canaries", "Measure", "Measurement", "Worlds"]


@dataclass(frozen=True, eq=False)
class Canaries:
    """Records that are other records plus noise which the auditor drew.

    Attributes:
        ids: (c,) int64 ids of the canaries, whose roles are in ``Worlds.role``.
        sources: (c,) int64 ids of the records as they were, in the same order; no model was trained on them.
    """

    ids: NDArray[np.int64]
    sources: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.ids.ndim != 1 or self.ids.size == 0 or self.sources.shape != self.ids.shape:
            raise InvalidInput(f"Canaries: ids {self.ids.shape} and sources {self.sources.shape} must both be (c,)")
        if np.unique(self.ids).size != self.ids.size or (self.ids == self.sources).any():
            raise InvalidInput("Canaries: ids must be unique, and no canary may be its own source")


@dataclass(frozen=True, eq=False)
class Worlds:
    """Fleets of one design: model k of each has the same roles; its seed differs between ``retrained`` and ``control``.

    Attributes:
        after: the models after deletion.
        retrained: fleet A, trained without what was to be forgotten.
        control: fleet B, like A with other seeds; measured in the place of ``after`` it gives the floor.
        before: the models before deletion.
        role: (m, n) int8 of ``Role`` for the records of the references.
        canaries: records among them that carry noise which the auditor planted, where there are any.
        background: (b,) int64 ids of records that every model was and stays trained on, for measures that train.
    """

    after: Reference
    retrained: Reference
    control: Reference
    before: Reference
    role: NDArray[np.int8]
    canaries: Canaries | None = None
    background: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        fleets = (("after", self.after), ("retrained", self.retrained), ("control", self.control))
        for name, fleet in (*fleets, ("before", self.before)):
            if fleet.logits.shape != self.after.logits.shape or not np.array_equal(fleet.ids, self.after.ids):
                raise InvalidInput(
                    f"Worlds: fleet {name!r} answers {fleet.logits.shape}, the models after deletion "
                    f"{self.after.logits.shape}; all must hold the same models on the same records in one order"
                )
        if self.role.shape != self.after.side.shape:
            raise InvalidInput(f"Worlds: role {self.role.shape} must be (models, records) = {self.after.side.shape}")


@dataclass(frozen=True, eq=False)
class Measurement:
    """What a measure says of one deletion procedure.

    Attributes:
        name: of the measure, the column in tables.
        value: over the forgotten records, with its interval.
        floor: the same for fleet B in the place of the unlearned models: what perfect forgetting scores here.
        unit: e.g. "nats", "advantage", "points".
        direction: what a larger value means, in a few words.
        per_record: (n,) float64 value of each record, NaN-free, or None where there is none; ``ids`` names them.
        ids: (n,) int64 record ids, or None.
        note: what the reader must know, e.g. the ceiling with this many models.
        excess: value minus floor, paired by model and record, so that what both share cancels; its interval says
            whether the procedure differs from retraining at all. None where the two have no common scale.
        no_op: the same for the models before deletion, the positive control: what doing nothing scores here.
    """

    name: str
    value: Estimate
    floor: Estimate
    unit: str
    direction: str
    per_record: NDArray[np.float64] | None = None
    ids: NDArray[np.int64] | None = None
    note: str = ""
    excess: Estimate | None = None
    no_op: Estimate | None = None


class Measure(Protocol):
    """A frozen dataclass of settings with a name, its needs and one function."""

    @property
    def name(self) -> str:
        """The name in tables and in the registry."""
        ...

    @property
    def needs(self) -> Need:
        """``SCORES``; ``ORACLE`` or ``GRADIENT`` where the references must carry oracles."""
        ...

    def measure(self, worlds: Worlds, *, rng: np.random.Generator) -> Measurement:
        """Return value and floor.

        Raises:
            InvalidInput: fleets of different shape, too few models or records.
            MissingNeed: references without the oracles that ``needs`` names.
        """
        ...
