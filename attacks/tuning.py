"""Settings tuned on the attacker's own models alone: each stands in for the target, scored by the others.

The audited model's roles must never choose a setting of the attack that audits it: labels of the target make any
attack look better than it is, and labels of another model choose a setting at random. Here a simulated target is left
out of what scores it, and where a fleet member is the target it takes no part in its own tuning at all.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.blocks import over_blocks
from mnemoscope.audit.answers.views import Side
from mnemoscope.audit.errors import InvalidInput

__all__ = ["Cells", "Setting", "Simulated", "check_setting", "tuned_by_target", "tuned_setting"]

Floats = NDArray[np.float64]
Setting = float | Literal["tuned"]

RECORDS = 500
"""Records that tuning reads, spread evenly over the ids: with 20 models an AUC of 10,000 scores, error below 0.006."""

LEAST = 2
"""Models a side of a record that tuning reads, so that one remains where a simulated target is another."""


@dataclass(frozen=True, eq=False)
class Cells:
    """The part of a fleet that tuning reads.

    Attributes:
        models: (a,) int64 positions of the simulated targets.
        records: (b,) int64 positions of records.
        side: (a, b) int8 of ``Side``; every record has at least two models on the sides that are read.
    """

    models: NDArray[np.int64]
    records: NDArray[np.int64]
    side: NDArray[np.int8]


Simulated = Callable[[Cells], Callable[[float], Floats]]
"""For cells, a function from a setting to their scores (a, b), each model left out of what scores it."""


def check_setting(name: str, value: object, low: float = 0.0, high: float = 1.0) -> None:
    """Refuse what is neither "tuned" nor a number in [low, high].

    Raises:
        InvalidInput: the value, with what is allowed.
    """
    if value == "tuned":
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InvalidInput(f"{name}={value!r} must lie in [{low:g}, {high:g}], or be 'tuned'")


def tuned_setting(
    grid: Sequence[float],
    scores: Simulated,
    side: NDArray[np.int8],
    ids: NDArray[np.int64] | None,
    *,
    both: bool = False,
) -> float:
    """Return the setting with the highest AUC over simulated targets, the first of equally good ones.

    Args:
        grid: settings to try.
        scores: scores of simulated targets.
        side: (m, n) int8 of ``Side``.
        ids: (n,) int64; records are chosen by their ids, not by their order.
        both: whether the scores read IN models too.

    Raises:
        InvalidInput: no record with two models on the sides that are read, or no member or non-member at all.
    """
    return _best(grid, scores, _Usable(side, ids, both).cells(None))


def tuned_by_target(
    grid: Sequence[float],
    scores: Simulated,
    side: NDArray[np.int8],
    ids: NDArray[np.int64] | None,
    *,
    both: bool = False,
) -> Floats:
    """Return for each model (m,) the setting that ``tuned_setting`` finds on the others."""
    usable = _Usable(side, ids, both)
    targets = range(side.shape[0])
    work = len(grid) * side.shape[0] ** 2 * RECORDS
    return np.array(over_blocks(lambda k: _best(grid, scores, usable.cells(k)), targets, values=work))


class _Usable:
    """What tuning may read of a fleet; counted once, whoever the target is."""

    def __init__(self, side: NDArray[np.int8], ids: NDArray[np.int64] | None, both: bool) -> None:
        self.side, self.read = side, (Side.IN, Side.OUT) if both else (Side.OUT,)
        self.numbers = [np.count_nonzero(side == wanted, axis=0) for wanted in self.read]
        self.order = np.arange(side.shape[1]) if ids is None else np.argsort(ids)

    def cells(self, target: int | None) -> Cells:
        """Return the cells of all models, or of all but the target."""
        models = np.arange(self.side.shape[0])
        enough = np.ones(self.side.shape[1], np.bool_)
        for wanted, number in zip(self.read, self.numbers, strict=True):
            enough &= (number if target is None else number - (self.side[target] == wanted)) >= LEAST
        if target is not None:
            models = np.delete(models, target)
        usable = self.order[enough[self.order]]
        chosen = usable[:: max(1, -(-usable.size // RECORDS))]
        cells = Cells(models, chosen, self.side[np.ix_(models, chosen)])
        if not (cells.side == Side.OUT).any() or not (cells.side == Side.IN).any():
            read = " and ".join(wanted.name for wanted in self.read)
            raise InvalidInput(
                f"tuning needs records with at least {LEAST} {read} models, and members and non-members among the "
                "attacker's own models. Provide more of them, or give the setting as a number"
            )
        return cells


def _best(grid: Sequence[float], scores: Simulated, cells: Cells) -> float:
    counts, scored = [], scores(cells)
    members, others = (np.flatnonzero(cells.side == wanted) for wanted in (Side.IN, Side.OUT))
    for setting in grid:
        score = scored(setting)
        inside, outside = np.sort(score.take(members)), np.sort(score.take(others))
        # Whole counts, so that equally good settings are equal whatever the order of models and records.
        below = np.searchsorted(outside, inside, "left")
        tied = outside.take(below, mode="clip") == inside
        at_most = np.searchsorted(outside, inside[tied], "right").sum() + below[~tied].sum()
        counts.append(int(below.sum() + at_most))
    return float(grid[int(np.argmax(counts))])
