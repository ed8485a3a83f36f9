"""The forgetting-quality epsilon of the NeurIPS 2023 unlearning competition (Triantafillou et al., arXiv 2406.09073).

For each record, the largest epsilon that any decision rule shows between its margins under models that unlearned it
and under retrained models: log((1 - delta - FPR) / FNR) and the same with FPR and FNR exchanged, over all single
thresholds and all intervals of about the width of the narrower side. The competition's score turns it into points,
halved at every half unit.

The maximum over thousands of rules is not corrected for: two fleets retrained alike show an epsilon near 1.57 and 0.18
points, whatever their size. It is no lower bound on anything, and it means nothing without the floor beside it.

The rules are the release's, on its grids of 100 steps a unit, counted in sorted values. Deviations: each unlearned
model comes from an original of its own, not all from one; where no rule has both errors, or the release's truth test
would fail, epsilon is 0; the score's factors for utility are left to the report's own rows; in the mean over records
an epsilon counts up to the end of the competition's buckets, ceil(log(N - 1)), because a single 50 would drown the
others.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.signals import SIGNALS
from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.contrasts import Oracles, contrast
from mnemoscope.audit.statistics.measures import Measurement, Worlds

__all__ = ["Figure", "ForgettingQuality", "competition_epsilon", "competition_points"]

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Figure = Literal["epsilon", "points"]

DELTA = 1e-5
HIGHEST = 50.0
"""What the release gives where nothing confuses the two sides."""
REACH = 2.0
"""Units by which the interval's ends move around the narrower side."""
NARROW = 0.01
"""Share of the wider range below which the narrower side counts as told apart."""
BUCKET = 0.5


@dataclass(frozen=True)
class ForgettingQuality:
    """Largest epsilon of any decision rule between unlearned and retrained models, mean over forgotten records.

    Attributes:
        figure: "epsilon", or "points", the competition's score between 0 and 1, of which about 0.18 is perfect.
        oracles: "forgotten", the twins of the models that unlearned the record, as many as those, as in the
            competition; or "unseen", all retrained models that never saw it.
        steps: thresholds a unit of the signal; the release has 100.
        signal: key of ``SIGNALS``; several queries are averaged first.
    """

    figure: Figure = "epsilon"
    oracles: Oracles = "forgotten"
    steps: int = 100
    signal: str = "margin"
    name = "forgetting_quality"
    needs = Need.SCORES

    def __post_init__(self) -> None:
        if self.figure not in get_args(Figure):
            raise InvalidInput(f"figure={self.figure!r} is unknown; allowed: {', '.join(get_args(Figure))}")
        if self.oracles not in get_args(Oracles):
            raise InvalidInput(f"oracles={self.oracles!r} is unknown; allowed: {', '.join(get_args(Oracles))}")
        if not 1 <= self.steps <= 1000:
            raise InvalidInput(f"steps={self.steps!r} must lie in 1..1000 thresholds a unit; the release has 100")
        if self.signal not in SIGNALS:
            raise InvalidInput(f"signal={self.signal!r} is unknown; known signals: {', '.join(sorted(SIGNALS))}")

    def measure(self, worlds: Worlds, *, rng: np.random.Generator) -> Measurement:
        """Return the figure and its floor; nothing is drawn from ``rng``."""
        found = contrast(worlds, self._statistic, signal=self.signal, oracles=self.oracles)
        epsilon = self.figure == "epsilon"
        return Measurement(
            self.name,
            found.value,
            found.floor,
            unit="nats" if epsilon else "points",
            direction="larger is farther from retrained models" if epsilon else "larger is nearer to retrained models",
            per_record=found.per_record,
            ids=found.ids,
            note=self._note(found.per_record, found.floor_per_record, found.models),
            excess=found.excess,
            no_op=found.no_op,
        )

    def _statistic(self, p: Floats, p_counts: Mask, q: Floats, q_counts: Mask) -> Floats:
        values = np.empty(p.shape[1])
        for j in range(values.size):
            unlearned, retrained = p[p_counts[:, j], j], q[q_counts[:, j], j]
            models = min(unlearned.size, retrained.size)
            epsilon = competition_epsilon(unlearned, retrained, steps=self.steps)
            values[j] = competition_points(epsilon, models) if self.figure == "points" else min(epsilon, _most(models))
        return values

    def _note(self, values: Floats, floors: Floats, models: tuple[int, int]) -> str:
        note = (
            f"an uncorrected maximum over decision rules, no bound; {models[0]} against {models[1]} models a record "
            f"show {_most(min(models)):.2g} at most"
        )
        if self.figure == "epsilon":
            # An epsilon at the cap earns no points, as an infinite one does.
            points, best = (np.mean([competition_points(v, min(models)) for v in x]) for x in (values, floors))
            note += (
                f" and {(values >= _most(min(models))).mean():.0%} of records reach it"
                f"; competition points {points:.3g}, of retrained models {best:.3g}"
            )
        return note


def competition_epsilon(unlearned: Floats, retrained: Floats, *, steps: int = 100, delta: float = DELTA) -> float:
    """Return the largest epsilon of the competition's rules for one record, in [0, 50].

    Args:
        unlearned: (a,) float64 signals under models that unlearned the record.
        retrained: (b,) under models that never saw it.
        steps: grid points a unit of the signal.
        delta: of the epsilon.

    Raises:
        InvalidInput: an empty side.
    """
    if not (unlearned.size and retrained.size):
        raise InvalidInput(f"both sides need models; given {unlearned.size} unlearned and {retrained.size} retrained")
    sides = np.sort(unlearned), np.sort(retrained)
    narrow, wide = sorted(sides, key=_range)
    if _range(narrow) < NARROW * _range(wide):
        return HIGHEST
    positive, negative = sorted(sides, key=lambda side: float(np.median(side)), reverse=True)
    grid = _thresholds(np.concatenate(sides), steps)
    hits = _at_least(positive, grid), _at_least(negative, grid)
    best = _best(hits[0], hits[1], positive.size, negative.size, delta)
    return float(min(max(best, _intervals(narrow, wide, steps, delta), 0.0), HIGHEST))


def _thresholds(values: Floats, steps: int) -> Floats:
    """Those points of the grid from the least value up that differ in what they tell apart; at most three a value.

    Between two neighbouring values all points of the grid are one rule, so the last of them before each value is
    enough. A range of ten thousand logits would else be a million points a record.
    """
    low, high = float(values.min()), float(values.max())
    place = np.floor((values - low) * steps)
    # Its neighbours too, because rounding may have moved a point across the value.
    near = np.concatenate([place - 1.0, place, place + 1.0])
    points: Floats = low + np.clip(near, 0.0, math.floor((high - low) * steps)) / steps
    return points


def _intervals(narrow: Floats, wide: Floats, steps: int, delta: float) -> float:
    """Best of the rules "inside [l, r] is the narrower side's"."""
    ends = round(2 * REACH * steps) + 1
    # Left ends lie on one grid that slides with the right end: l of (i, j) is first + (i + j) / steps. A run of right
    # ends between two values is one rule, and meets every left end that any of them meets.
    right = narrow[-1] - REACH + np.arange(ends) / steps
    left = narrow[-1] - _range(narrow) - 2 * REACH + np.arange(2 * ends - 1) / steps
    up_to = [np.searchsorted(side, right, "right") for side in (narrow, wide)]
    below = [np.searchsorted(side, left, "left") for side in (narrow, wide)]
    first, last = _runs(*up_to)
    first_left, last_left = _runs(*below)
    meets = (first_left <= last[:, None] + ends - 1) & (last_left >= first[:, None])
    hits = [
        np.maximum(ended[first][:, None] - begun[first_left], 0)[meets]
        for ended, begun in zip(up_to, below, strict=True)
    ]
    return _best(hits[0], hits[1], narrow.size, wide.size, delta)


def _runs(a: NDArray[np.int64], b: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last position of each run in which neither array changes."""
    starts = np.flatnonzero(np.concatenate([[True], (a[1:] != a[:-1]) | (b[1:] != b[:-1])]))
    return starts, np.concatenate([starts[1:] - 1, [a.size - 1]])


def _best(true: NDArray[np.int64], false: NDArray[np.int64], n_positive: int, n_negative: int, delta: float) -> float:
    """Largest epsilon over rules with the given hits; rules with exactly one error of zero do not count."""
    fnr, fpr = 1.0 - true / n_positive, false / n_negative
    if ((true == n_positive) & (false == 0)).any():
        return math.inf
    kept = (true < n_positive) & (false > 0)
    if not kept.any():
        return 0.0
    fnr, fpr = fnr[kept], fpr[kept]
    return max(_log_ratio(1.0 - delta - fpr, fnr), _log_ratio(1.0 - delta - fnr, fpr))


def _log_ratio(above: Floats, below: Floats) -> float:
    kept = above > 0
    return float(np.max(np.log(above[kept]) - np.log(below[kept]), initial=0.0))


def _at_least(ascending: Floats, grid: Floats) -> NDArray[np.int64]:
    return np.asarray(ascending.size - np.searchsorted(ascending, grid, "left"), np.int64)


def _range(ascending: Floats) -> float:
    return float(ascending[-1] - ascending[0])


def competition_points(epsilon: float, models: int) -> float:
    """Return 2^-k for an epsilon in [k / 2, (k + 1) / 2), and 0 above ceil(log(models - 1)).

    >>> [competition_points(e, 512) for e in (0.49, 0.5, 1.2, 7.0)]
    [1.0, 0.5, 0.25, 0.0]
    """
    bucket = math.floor(epsilon / BUCKET)
    return 2.0**-bucket if (bucket + 1) * BUCKET <= _most(models) else 0.0


def _most(models: int) -> float:
    """Where the competition's buckets end, ceil(log(models - 1)): more cannot be told by so few models."""
    return float(math.ceil(math.log(models - 1))) if models > 2 else 0.0
