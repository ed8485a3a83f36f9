"""LiRA, the likelihood-ratio attack (Carlini et al. 2022, arXiv 2112.03570).

The primary attack of most audits. Deviations from the released script, each because the script's choice costs power
or order: margins from float64 logits instead of a float32 softmax; means instead of medians; variances centred within
each record and taken from the side they describe; the one-sided offline score; ragged counts instead of truncation.
``variance="shrunk"`` is the few-model core of BaVarIA (arXiv 2603.11799) with a fixed prior weight.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.signals import SIGNALS
from mnemoscope.audit.answers.views import Need, Reference, Side, View, require_models
from mnemoscope.audit.errors import InvalidInput

__all__ = ["LiRA", "Variance", "lira_scores"]

Floats = NDArray[np.float64]
Variance = Literal["per-record", "shared", "shrunk"]

PRIOR_WEIGHT = 4.0
"""Degrees of freedom that the fleet's mean within-record variance counts for in ``shrunk``."""

VARIANCE_FLOOR = 1e-6
"""In squared logits: models that agree to a thousandth of a logit do not differ by anything an attacker can use."""

CANCELLED = 1e-4
"""A down-dated sum of squares below this share of the whole has lost digits and is summed afresh."""


class _Moments(NamedTuple):
    """Number, mean and sum of squared deviations of one side, broadcastable to the scored signals."""

    number: Floats
    mean: Floats
    squares: Floats


class _Normals(NamedTuple):
    """Mean and variance of both sides for every record and one query; ``inside`` is None offline.

    ``common``: both sides have one variance, up to the error of their means.
    """

    inside: tuple[Floats, Floats] | None
    outside: tuple[Floats, Floats]
    common: bool

    def at(self, positions: NDArray[np.int64]) -> "_Normals":
        """Return those of the records at ``positions``."""
        mean, spread = self.outside
        inside = None if self.inside is None else (self.inside[0][positions], self.inside[1][positions])
        return _Normals(inside, (mean[positions], spread[positions]), self.common)


@dataclass(frozen=True)
class LiRA:
    """Log ratio of two Gaussians per record (online), or standardised distance from the OUT models (offline).

    Attributes:
        online: uses IN and OUT models; offline uses OUT models alone and scores z = (phi - mean) / sd, which orders
            as log Phi(z) does and does not saturate.
        variance: "per-record"; "shared" (one within-record variance a side, centred); or "shrunk" (the record's
            pooled squares plus four degrees of freedom of the fleet's variance, times 1 + 1/K for the error of the
            mean). Recommended from 64 models a side, below 8, and otherwise.
        signal: key of ``SIGNALS``; several queries are scored each by itself and averaged.
    """

    online: bool = True
    variance: Variance = "shrunk"
    signal: str = "margin"

    def __post_init__(self) -> None:
        if self.variance not in get_args(Variance):
            raise InvalidInput(f"variance={self.variance!r} is unknown; allowed: {', '.join(get_args(Variance))}")
        if self.signal not in SIGNALS:
            raise InvalidInput(f"signal={self.signal!r} is unknown; known signals: {', '.join(sorted(SIGNALS))}")

    @property
    def name(self) -> str:
        """``lira``, with what differs from the default."""
        suffix = {"shrunk": "", "shared": "_shared", "per-record": "_per_record"}[self.variance]
        return "lira" + ("" if self.online else "_offline") + suffix

    @property
    def needs(self) -> Need:
        """OUT models, and IN models online."""
        return Need.SCORES | Need.SHADOW_OUT | (Need.SHADOW_IN if self.online else Need.NOTHING)

    def fit(self, reference: Reference, *, rng: np.random.Generator) -> "LiraScorer":
        """Fit both distributions of every record; nothing is drawn from ``rng``."""
        least = 2 if self.variance == "per-record" else 1
        require_models(reference.side, least, self.online, reference.ids)
        fitted = []
        for phi in np.moveaxis(reference.signal(self.signal), -1, 0):
            inside = _moments(phi, reference.side == Side.IN) if self.online else None
            fitted.append(_normals(inside, _moments(phi, reference.side == Side.OUT), self.variance))
        return LiraScorer(reference, self.signal, tuple(fitted), 0.0 if self.online else None)

    def score_fleet(self, reference: Reference, *, rng: np.random.Generator) -> Floats:
        """Score every model against all the others, in closed form."""
        phi = reference.signal(self.signal)
        return lira_scores(phi, reference.side, online=self.online, variance=self.variance, ids=reference.ids)


@dataclass(frozen=True, eq=False)
class LiraScorer:
    """Fitted LiRA; ``threshold`` is the likelihood ratio's own, even odds."""

    reference: Reference
    signal: str
    normals: tuple[_Normals, ...]
    threshold: float | None

    def score(self, view: View) -> Floats:
        """Return (n,) float64."""
        at = self.reference.positions(view.ids)
        total = np.zeros(view.n_records)
        for phi, normals in zip(view.signal(self.signal).T, self.normals, strict=True):
            total += _score(phi, normals.at(at))
        return total / len(self.normals)


def lira_scores(
    phi: Floats,
    side: NDArray[np.int8],
    *,
    online: bool = True,
    variance: Variance = "shrunk",
    ids: NDArray[np.int64] | None = None,
) -> Floats:
    """Score every model of a fleet with itself left out of both distributions; the hot path of permutation tests.

    Args:
        phi: (m, n) or (m, n, q) float64 signals of m models.
        side: (m, n) int8 of ``Side``; the answer for model k never depends on ``side[k]``.
        online: see ``LiRA``.
        variance: see ``LiRA``.
        ids: (n,) int64, to name records in errors; positions are named without it.

    Returns:
        (m, n) float64, also where the model itself is left out of the game.

    Raises:
        InvalidInput: a record that is left without IN (online) or OUT models once its target is taken out.
    """
    require_models(side, 3 if variance == "per-record" else 2, online, ids)
    total = np.zeros(side.shape)
    queries = phi[..., None] if phi.ndim == 2 else phi
    is_in, is_out = side == Side.IN, side == Side.OUT
    for query in np.moveaxis(queries, -1, 0):
        inside = _left_out_moments(query, is_in) if online else None
        total += _score(query, _normals(inside, _left_out_moments(query, is_out), variance))
    total /= queries.shape[-1]
    return total


def _moments(phi: Floats, mask: NDArray[np.bool_]) -> _Moments:
    count = mask.sum(axis=0, dtype=np.float64)
    mean = np.where(mask, phi, 0.0).sum(axis=0) / count
    deviation = np.where(mask, phi - mean, 0.0)
    return _Moments(count, mean, np.einsum("ij,ij->j", deviation, deviation))


def _left_out_moments(phi: Floats, mask: NDArray[np.bool_]) -> _Moments:
    """Moments (m, n) of a side without the model of each row, down-dated from the whole side's."""
    count = mask.sum(axis=0, dtype=np.float64)
    weight = mask.astype(np.float64)
    mean = np.einsum("ij,ij->j", phi, weight) / count
    deviation = (phi - mean) * weight
    squares = deviation * deviation
    whole = squares.sum(axis=0)
    left = 1.0 / np.maximum(count - 1.0, 1.0)
    squares *= -(count * left)
    squares += whole
    deviation *= -left
    deviation += mean
    lost = squares < CANCELLED * whole
    if lost.any():
        row, column = np.nonzero(lost)
        keep = mask[:, column]
        keep[row, np.arange(row.size)] = False
        _, deviation[lost], squares[lost] = _moments(phi[:, column], keep)
    return _Moments(count - weight, deviation, squares)


def _normals(inside: _Moments | None, outside: _Moments, variance: Variance) -> _Normals:
    """Turn moments into (mean, variance) of each side."""
    sides = (outside,) if inside is None else (inside, outside)
    if variance == "per-record":
        spread = [side.squares / (side.number - 1.0) for side in sides]
    elif variance == "shared":
        spread = [_pooled(side) for side in sides]
    else:
        squares = sum(side.squares for side in sides) + PRIOR_WEIGHT * _pooled(*sides)
        common = squares / (sum(side.number for side in sides) + (PRIOR_WEIGHT - len(sides)))
        spread = [common + common / side.number for side in sides]
    floored = [np.broadcast_to(np.maximum(v, VARIANCE_FLOOR), outside.mean.shape) for v in spread]
    fitted = [(side.mean, v) for side, v in zip(sides, floored, strict=True)]
    return _Normals(None if inside is None else fitted[0], fitted[-1], variance == "shrunk")


def _pooled(*sides: _Moments) -> Floats:
    """Mean within-record variance over all records, kept broadcastable; 1 where single models show none."""
    squares = np.sum([side.squares.sum(axis=-1, keepdims=True) for side in sides], axis=0)
    freedom = np.sum([(side.number - 1.0).sum(axis=-1, keepdims=True) for side in sides], axis=0)
    pooled: Floats = np.where(freedom > 0, squares / np.maximum(freedom, 1.0), 1.0)
    return pooled


def _score(phi: Floats, normals: _Normals) -> Floats:
    mean, spread = normals.outside
    if normals.inside is None:
        z: Floats = (phi - mean) / np.sqrt(spread)
        return z
    mean_in, spread_in = normals.inside
    gap, gap_in = phi - mean, phi - mean_in
    ratio: Floats = gap * gap / spread - gap_in * gap_in / spread_in
    if not normals.common:
        ratio += np.log(spread / spread_in)
    # With a common variance the logarithm holds the models' counts alone. Leave-one-out counts name the side of the
    # target; without the term the scores of both sides have one distribution where nothing leaks.
    ratio *= 0.5
    return ratio
