"""How far the models after deletion lie from retrained ones, record by record, with the same for retrained ones.

A statistic compares two samples of one record's signal: models that were to forget it, and models that never saw it.
Its mean over records is biased upwards by the noise of few models; the same statistic of another retrained fleet has
the same bias, and the difference of the two has none.

The variance is V_model + V_record - V_cell as for rates of a fleet (Cameron, Gelbach and Miller 2011, JBES 29:238). The
statistic is no mean over models, so the parts by model and by cell come from a jackknife that leaves out groups of
models (Efron and Stein 1981), in every fleet the same ones: twins share their training records.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.records.design import Role
from mnemoscope.audit.statistics.measures import Worlds
from mnemoscope.audit.statistics.trials import Estimate, Interval

__all__ = ["Contrast", "Oracles", "Statistic", "contrast", "jackknifed"]

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Statistic = Callable[[Floats, Mask, Floats, Mask], Floats]
"""(m, n) signals of the first fleet, (m, n) which of them count, the same of the second -> (n,), one a record."""

Oracles = Literal["forgotten", "unseen"]
"""Retrained models to compare with: the twins that were to forget the record, or all that never saw it."""

METHOD = "jackknife over groups of models, clustered by record"
GROUPS = 12
"""Groups of models left out in turn: enough for an interval, few enough for a costly statistic."""
LEAST = 3
"""Models a side: with one left out, two must remain to show a spread."""


@dataclass(frozen=True, eq=False)
class Contrast:
    """A statistic of models after deletion, and of others in their place, all against the same retrained fleet.

    Attributes:
        value: mean over records for the models after deletion.
        floor: for another fleet of retrained models.
        excess: value minus floor, paired.
        no_op: for the models before deletion.
        per_record: (r,) float64 statistic of the models after deletion.
        floor_per_record: (r,) of the other retrained models.
        ids: (r,) int64 records that some model was to forget.
        models: fewest models a record has after deletion, and among the retrained.
    """

    value: Estimate
    floor: Estimate
    excess: Estimate
    no_op: Estimate
    per_record: Floats
    floor_per_record: Floats
    ids: NDArray[np.int64]
    models: tuple[int, int]


def contrast(
    worlds: Worlds,
    statistic: Statistic,
    *,
    signal: str = "margin",
    oracles: Oracles = "unseen",
    level: float = 0.95,
) -> Contrast:
    """Compare three fleets with the retrained one.

    Args:
        worlds: the fleets.
        statistic: of two samples of each record's signal.
        signal: key of ``SIGNALS``; several queries are averaged first.
        oracles: which retrained models count.
        level: confidence of the intervals.

    Raises:
        InvalidInput: no record was to be forgotten, or one by fewer than three models.
    """
    forgotten = worlds.role == Role.FORGOTTEN
    unseen = forgotten | (worlds.role == Role.NEVER) if oracles == "unseen" else forgotten
    records = np.flatnonzero(forgotten.any(axis=0))
    ids = worlds.after.ids[records]
    if records.size == 0:
        raise InvalidInput("no record of this design was to be forgotten by any model; name records to forget")
    counts = forgotten[:, records].sum(axis=0)
    if counts.min() < LEAST:
        few = ids[counts < LEAST]
        raise InvalidInput(
            f"{few.size} records were to be forgotten by fewer than {LEAST} models, which shows no spread: "
            f"ids {', '.join(map(str, few[:10].tolist()))}. Train more models or leave these records out"
        )
    fleets = (worlds.after, worlds.control, worlds.before)
    compared = [fleet.signal(signal).mean(axis=-1)[:, records] for fleet in fleets]
    oracle = worlds.retrained.signal(signal).mean(axis=-1)[:, records]
    forgotten, unseen = forgotten[:, records], unseen[:, records]
    group = _groups(forgotten)
    full, deleted = [], []
    for phi in compared:
        full.append(statistic(phi, forgotten, oracle, unseen))
        deleted.append(
            np.stack(
                [
                    statistic(phi[keep], forgotten[keep], oracle[keep], unseen[keep])
                    for keep in (group != g for g in range(int(group.max()) + 1))
                ]
            )
        )
    estimates = [jackknifed(whole, parts, level) for whole, parts in zip(full, deleted, strict=True)]
    excess = jackknifed(full[0] - full[1], deleted[0] - deleted[1], level)
    models = int(counts.min()), int(unseen.sum(axis=0).min())
    return Contrast(estimates[0], estimates[1], excess, estimates[2], full[0], full[1], ids, models)


def jackknifed(full: Floats, deleted: Floats, level: float) -> Estimate:
    """Return the mean of a statistic over records, with an interval clustered by model and by record.

    Args:
        full: (n,) float64 statistic of each record.
        deleted: (g, n) the same with each group of models left out, g >= 2.
        level: confidence.

    Returns:
        Two-sided t interval with min(g, n) - 1 degrees of freedom (g - 1 for a single record).
    """
    groups, n = deleted.shape
    cells = (groups - 1) / groups * (deleted.mean(axis=0) - deleted) / n
    correction = groups / (groups - 1)
    by_model = cells.sum(axis=1)
    v_model = correction * float(by_model @ by_model)
    v_cell = correction * float(np.einsum("ij,ij->", cells, cells))
    v_record = float(full.var(ddof=1)) / n if n > 1 else 0.0
    # Near the null the statistics are quadratic in the noise, of which a jackknife sees twice the variance; that part
    # is the cells' own and cancels between the first two terms. The clustering by record holds it exactly.
    variance = v_record + max(v_model - v_cell, 0.0) if n > 1 else v_model
    freedom = groups - 1 if n == 1 else min(groups, n) - 1
    half = float(stdtrit(freedom, 0.5 + level / 2)) * variance**0.5
    value = float(full.mean())
    return Estimate(value, Interval(value - half, value + half, level, "two", METHOD), n=n)


def _groups(forgotten: Mask) -> NDArray[np.int64]:
    """Deal the models to groups, so that without any group two models remain for every record."""
    m = forgotten.shape[0]
    if m > GROUPS:
        group = np.arange(m) % GROUPS
        within = np.stack([forgotten[group == g].sum(axis=0) for g in range(GROUPS)])
        if (forgotten.sum(axis=0) - within).min() >= LEAST - 1:
            return group
    return np.arange(m)
