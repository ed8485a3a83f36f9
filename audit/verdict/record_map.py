"""Where each record stood before deletion and where it stands after: a table of counts from which none can be read off.

A record's place is the share of never-seen scores below its own, averaged over the models that forgot it: its part of
the AUC. 0.5 is the middle of records that no model saw, 1 is above all of them.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

__all__ = ["BINS", "LEAST_CELL", "RecordMap", "pooled_map", "record_map", "record_places"]

Floats = NDArray[np.float64]
BINS = 40
LEAST_CELL = 5
"""Records that a cell of a public table must hold."""
MOST_HIDDEN = 0.1
"""A public table is made coarser while more than this share of records lies in cells too small to show."""
COARSEST = 5


@dataclass(frozen=True)
class RecordMap:
    """Counts of records by their mean place before and after deletion.

    Attributes:
        attack: whose scores.
        edges: (b + 1,) ascending, the same on both axes; 0 to 1.
        counts: b rows of b counts: ``counts[i][j]`` records lie in bin i before and bin j after.
        retrained: (b,) records by their place in retrained models: what ``after`` would be under exact retraining; ()
            where there are none.
        n_records: all records, hidden ones included.
        hidden: records in cells that are too small to be shown; their cells count 0.
    """

    attack: str
    edges: tuple[float, ...]
    counts: tuple[tuple[int, ...], ...]
    retrained: tuple[int, ...]
    n_records: int
    hidden: int = 0


def record_places(score: Floats, side: NDArray[np.int8]) -> Floats:
    """Return each record's mean place among all never-seen scores.

    Args:
        score: (m, n) float64, higher = more likely in.
        side: (m, n) int8, 1 forgotten, 0 never seen, -1 takes no part.

    Returns:
        (n,) float64 in [0, 1], ties counted half; NaN for a record that no model forgot.
    """
    out = np.sort(score[side == 0])
    model, record = np.nonzero(side == 1)
    values = score[model, record]
    order = np.argsort(values)  # ascending queries are searched several times faster
    ascending = values[order]
    below = np.searchsorted(out, ascending, "left") + np.searchsorted(out, ascending, "right")
    place = np.empty(values.size)
    place[order] = below / (2.0 * max(1, out.size))
    count = np.bincount(record, minlength=score.shape[1])
    total = np.bincount(record, place, score.shape[1])
    mean: Floats = np.where(count > 0, total / np.maximum(1, count), np.nan)
    return mean


def record_map(attack: str, before: Floats, after: Floats, retrained: Floats | None = None) -> RecordMap | None:
    """Count records by their places.

    Args:
        attack: whose scores.
        before: (n,) float64 places in [0, 1]; NaN leaves a record out.
        after: (n,) the same after deletion.
        retrained: (n,) the same of retrained models.

    Returns:
        The map; None where no record has both places.
    """
    edges = np.linspace(0.0, 1.0, BINS + 1)
    known = np.isfinite(before) & np.isfinite(after)
    if not known.any():
        return None
    counts = np.histogram2d(before[known], after[known], bins=(edges, edges))[0]
    twin: tuple[int, ...] = ()
    if retrained is not None:
        twin = tuple(int(k) for k in np.histogram(retrained[np.isfinite(retrained)], edges)[0])
    return RecordMap(
        attack, tuple(float(e) for e in edges), _rows(counts.astype(np.int64)), twin, int(np.count_nonzero(known))
    )


def pooled_map(given: RecordMap, least: int = LEAST_CELL) -> RecordMap:
    """Return the map for readers who may not learn of a single record.

    Neighbouring bins are joined, two by two on both axes, while more than a tenth of the records lies in cells of
    fewer than ``least``; what is left in such cells is counted in ``hidden`` and in no cell.
    """
    edges = np.asarray(given.edges)
    counts = np.asarray(given.counts, np.int64)
    twin = np.asarray(given.retrained, np.int64)
    while _small(counts, least) > MOST_HIDDEN * given.n_records and counts.shape[0] >= 2 * COARSEST:
        counts = counts[0::2, 0::2] + counts[1::2, 0::2] + counts[0::2, 1::2] + counts[1::2, 1::2]
        twin = twin[0::2] + twin[1::2] if twin.size else twin
        edges = edges[::2]
    hidden = _small(counts, least)
    return replace(
        given,
        edges=tuple(float(e) for e in edges),
        counts=_rows(np.where(counts < least, 0, counts)),
        retrained=tuple(int(k) if k >= least else 0 for k in twin),
        hidden=given.hidden + hidden,
    )


def _small(counts: NDArray[np.int64], least: int) -> int:
    return int(counts[counts < least].sum())


def _rows(counts: NDArray[np.int64]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(k) for k in row) for row in counts)
