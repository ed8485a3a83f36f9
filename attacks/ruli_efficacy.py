"""RULI's efficacy (Naderloui et al. 2025, arXiv 2506.13009): does a model behave on what it forgot as if retrained?

For every forgotten record two kernel densities of its margin, under models that unlearned it and under models that
were retrained without it; their log ratio ranks unlearned against retrained values. One half is perfect.

Deviations: the negatives are margins under *retrained* models. The released evaluator has none: it hands over the
original model's margins on records that it never saw in the place named "retrained", so that any shift caused by the
deletion, harmless or not, counts as a lack of efficacy. A model and its retrained twin share their training records,
so both are left out of both densities. Kernels and bandwidths as in ``ruli``.

The third world, records that were kept, serves the note: which of the three worlds makes a forgotten record's value
likeliest? After exact retraining "unlearned" and "never seen" share evenly what "kept" does not take by chance. The
note also has the figure for never-seen records, which the deletion should not have moved at all.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnemoscope.attacks.kernels import kernel_log_density
from mnemoscope.audit.answers.signals import SIGNALS
from mnemoscope.audit.answers.views import Need, Reference
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.records.design import Role
from mnemoscope.audit.statistics.fleet import FleetAuc, FleetScores
from mnemoscope.audit.statistics.fleet_differences import difference
from mnemoscope.audit.statistics.measures import Measurement, Worlds

__all__ = ["RuliEfficacy"]

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

LEVEL = 0.95
WORLDS = (Role.KEPT, Role.FORGOTTEN, Role.NEVER)


@dataclass(frozen=True)
class RuliEfficacy:
    """How well a forgotten record's margin after deletion is told from its margin under retrained models.

    Attributes:
        bandwidth: of the kernels, in units of the signal; 0 is Silverman's for each record and side, at least 0.1.
        signal: key of ``SIGNALS``; several queries are averaged first.
    """

    bandwidth: float = 0.0
    signal: str = "margin"
    name = "ruli_efficacy"
    needs = Need.SCORES

    def __post_init__(self) -> None:
        if not 0 <= self.bandwidth < np.inf:
            raise InvalidInput(f"bandwidth={self.bandwidth!r} must be positive, or 0 for Silverman's rule")
        if self.signal not in SIGNALS:
            raise InvalidInput(f"signal={self.signal!r} is unknown; known signals: {', '.join(sorted(SIGNALS))}")

    def measure(self, worlds: Worlds, *, rng: np.random.Generator) -> Measurement:
        """Return the AUC over all forgotten (model, record) pairs, and its floor; nothing is drawn from ``rng``."""
        forgotten = _cells(worlds, Role.FORGOTTEN)
        if not forgotten.any():
            raise InvalidInput("no record was to be forgotten by two models or more; name records to forget")
        retrained = self._phi(worlds.retrained)
        found, scores = self._auc(self._phi(worlds.after), retrained, forgotten)
        floor, _ = self._auc(self._phi(worlds.control), retrained, forgotten)
        no_op, _ = self._auc(self._phi(worlds.before), retrained, forgotten)
        records = forgotten.any(axis=0)
        return Measurement(
            self.name,
            found.estimate(LEVEL),
            floor.estimate(LEVEL),
            unit="AUC",
            direction="larger is farther from retrained models, one half cannot be told apart",
            per_record=_record_auc(*scores, forgotten)[records],
            ids=worlds.after.ids[records],
            note="; ".join([*self._likeliest(worlds), *self._moved(worlds, retrained)]),
            excess=difference(found, floor, LEVEL),
            no_op=no_op.estimate(LEVEL),
        )

    def _phi(self, reference: Reference) -> Floats:
        phi: Floats = reference.signal(self.signal).mean(axis=-1)
        return phi

    def _log_ratio(self, x: Floats, samples: tuple[Floats, Floats], counts: Mask) -> Floats:
        models = np.arange(x.shape[0])
        one, other = (
            kernel_log_density(x, sample, counts, self.bandwidth or None, left_out=models) for sample in samples
        )
        return one - other

    def _auc(self, phi: Floats, retrained: Floats, cells: Mask) -> tuple[FleetAuc, tuple[Floats, Floats]]:
        """AUC of ``phi`` against retrained values over the cells, clustered by pair of twins and by record."""
        m, n = cells.shape
        scores, kept = np.zeros((2, m, n)), cells.any(axis=0)
        for place, x in enumerate((phi, retrained)):
            samples = phi[:, kept], retrained[:, kept]
            scores[place][:, kept] = self._log_ratio(x[:, kept], samples, cells[:, kept])
        side = np.full((2, m, n), -1, np.int8)
        side[0][cells], side[1][cells] = 1, 0
        auc = FleetScores(scores.reshape(-1, n), side.reshape(-1, n), np.arange(2 * m) % 2).auc()
        influence = auc.influence.reshape(2, m, n).sum(axis=0)
        return FleetAuc(auc.value, influence, auc.n_in, auc.n_out), (scores[0], scores[1])

    def _likeliest(self, worlds: Worlds) -> list[str]:
        cells = {role: _cells(worlds, role) for role in WORLDS}
        records = np.logical_and.reduce([mask.any(axis=0) for mask in cells.values()])
        if not records.any():
            return []
        phi, models = self._phi(worlds.after)[:, records], np.arange(worlds.role.shape[0])
        density = np.stack(
            [
                kernel_log_density(phi, phi, cells[role][:, records], self.bandwidth or None, left_out=models)
                for role in WORLDS
            ]
        )
        likeliest = density.argmax(axis=0)[cells[Role.FORGOTTEN][:, records]]
        kept, unlearned, never = np.bincount(likeliest, minlength=3) / likeliest.size
        return [f"likeliest world of forgotten records: kept {kept:.0%}, unlearned {unlearned:.0%}, never {never:.0%}"]

    def _moved(self, worlds: Worlds, retrained: Floats) -> list[str]:
        never = _cells(worlds, Role.NEVER)
        if not never.any():
            return []
        moved, _ = self._auc(self._phi(worlds.after), retrained, never)
        return [f"the same for records that were never seen, which deletion should not move: {moved.value:.3f}"]


def _cells(worlds: Worlds, role: Role) -> Mask:
    """(m, n) bool, the cells of a role, of records that have it in two models or more."""
    cells: Mask = worlds.role == role
    cells &= cells.sum(axis=0) > 1
    return cells


def _record_auc(above: Floats, below: Floats, cells: Mask) -> Floats:
    """AUC (n,) of each record's own values, ties counted half; one half where it has none."""
    wins = np.zeros(cells.shape[1])
    for score, counts in zip(above, cells, strict=True):
        beaten = (score > below) + 0.5 * (score == below)
        wins += np.where(counts, (beaten * cells).sum(axis=0), 0.0)
    pairs = cells.sum(axis=0).astype(np.float64) ** 2
    auc: Floats = np.where(pairs > 0, wins / np.maximum(pairs, 1.0), 0.5)
    return auc
