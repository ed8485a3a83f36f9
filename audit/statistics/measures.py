"""Measures of forgetting: functions of whole fleets that score no record for an attacker.

Unlike an attack, a measure is the auditor's own: it knows the roles. For several of them perfect forgetting does not
score zero, so each comes with its floor, the same number for models that were retrained and never saw the records.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.views import Need, Reference
from mnemoscope.audit.statistics.trials import Estimate

__all__ = ["Measure", "Measurement", "Worlds"]


@dataclass(frozen=True, eq=False)
class Worlds:
    """Fleets of one design: model k of each has the same roles; its seed differs between ``retrained`` and ``control``.

    Attributes:
        after: the models after deletion.
        retrained: fleet A, trained without what was to be forgotten.
        control: fleet B, like A with other seeds; measured in the place of ``after`` it gives the floor.
        before: the models before deletion.
        role: (m, n) int8 of ``Role`` for the records of the references.
    """

    after: Reference
    retrained: Reference
    control: Reference
    before: Reference
    role: NDArray[np.int8]


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
    """

    name: str
    value: Estimate
    floor: Estimate
    unit: str
    direction: str
    per_record: NDArray[np.float64] | None = None
    ids: NDArray[np.int64] | None = None
    note: str = ""


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
