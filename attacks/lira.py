"""LiRA, the likelihood-ratio attack (Carlini et al. 2022, arXiv 2112.03570).

The primary attack of most audits. Deviations from the released script, each because the script's choice costs power
or order: margins from float64 logits instead of a float32 softmax; means instead of medians; variances centred within
each record and taken from the side they describe; the one-sided offline score; ragged counts instead of truncation.
``variance="shrunk"`` is the few-model core of BaVarIA (arXiv 2603.11799) with a fixed prior weight.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from mnemoscope.attacks.moments import Moments, left_out_moments, left_out_squares, moments, record_blocks
from mnemoscope.audit.answers.blocks import over_blocks
from mnemoscope.audit.answers.signals import SIGNALS
from mnemoscope.audit.answers.views import Need, Reference, Side, View, require_models
from mnemoscope.audit.errors import InvalidInput

__all__ = [
    "LEAST_FOR_OWN",
    "LiRA",
    "LiraScorer",
    "Normals",
    "Pool",
    "Variance",
    "lira_scores",
    "log_ratio",
    "normals_of",
    "over_left_out_normals",
    "shared_variance",
    "variance_flags",
]

Floats = NDArray[np.float64]
Variance = Literal["per-record", "shared", "shrunk"]

PRIOR_WEIGHT = 4.0
"""Degrees of freedom that the fleet's mean within-record variance counts for in ``shrunk``."""

LEAST_FOR_OWN = 2
"""Models on a side that a record's own variance needs."""

VARIANCE_FLOOR = 1e-6
"""In squared logits: models that agree to a thousandth of a logit do not differ by anything an attacker can use."""


class Normals(NamedTuple):
    """Mean and variance of both sides for every record and one query; ``inside`` is None offline.

    ``common``: both sides have one variance, up to the error of their means.
    """

    inside: tuple[Floats, Floats] | None
    outside: tuple[Floats, Floats]
    common: bool

    def at(self, positions: NDArray[np.int64]) -> "Normals":
        """Return those of the records at ``positions``."""
        mean, spread = self.outside
        inside = None if self.inside is None else (self.inside[0][positions], self.inside[1][positions])
        return Normals(inside, (mean[positions], spread[positions]), self.common)


class Pool(NamedTuple):
    """Sum of squared deviations of one side over all records, and their degrees of freedom; () or (m, 1) left out."""

    squares: Floats
    freedom: Floats

    @classmethod
    def of(cls, side: Moments) -> "Pool":
        """Return what the moments of all records show."""
        return cls(*(part.sum(axis=-1, keepdims=True) for part in (side.squares, side.number - 1.0)))


@dataclass(frozen=True)
class LiRA:
    """Log ratio of two Gaussians per record (online), or standardised distance from the OUT models (offline).

    Attributes:
        online: uses IN and OUT models; offline uses OUT models alone and scores z = (phi - mean) / sd, which orders
            as log Phi(z) does and does not saturate.
        variance: "per-record"; "shared" (one within-record variance a side, centred); or "shrunk" (the record's
            pooled squares plus four degrees of freedom of the fleet's variance, times 1 + 1/K for the error of the
            mean). Recommended from 64 models a side, below 8, and otherwise. With fewer than 2 models for a record on a
            side, the target left out, "per-record" falls back to "shared" for all records and ``flags`` says so. Where
            nothing leaks, "per-record" online has an AUC below one half: the target is left out of its own side, whose
            variance then has one degree of freedom less, and the log density of a new draw under k models' own mean
            and variance falls steeply as k does. Expected are 0.444, 0.488, 0.497, 0.4996 with 4, 8, 16, 32 models a
            side; the others, with many degrees of freedom, stay at one half within 0.003.
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
        require_models(reference.side, 1, self.online, reference.ids)
        fitted = []
        for phi in np.moveaxis(reference.signal(self.signal), -1, 0):
            inside = moments(phi, reference.side == Side.IN) if self.online else None
            fitted.append(normals_of(inside, moments(phi, reference.side == Side.OUT), self.variance))
        return LiraScorer(reference, self.signal, tuple(fitted), 0.0 if self.online else None, self.flags(reference))

    def score_fleet(self, reference: Reference, *, rng: np.random.Generator) -> Floats:
        """Score every model against all the others, in closed form."""
        phi = reference.signal(self.signal)
        return lira_scores(phi, reference.side, online=self.online, variance=self.variance, ids=reference.ids)

    def flags(self, reference: Reference, *, left_out: bool = False) -> tuple[str, ...]:
        """Say where the fit is not what the settings ask for; empty where it is.

        Args:
            reference: what ``fit`` would read.
            left_out: whether each model is left out of it in turn, as ``score_fleet`` does.
        """
        if self.variance != "per-record":
            return ()
        return variance_flags(reference, online=self.online, left_out=left_out)


@dataclass(frozen=True, eq=False)
class LiraScorer:
    """Fitted LiRA; ``threshold`` is the likelihood ratio's own, even odds; ``flags`` as of the attack."""

    reference: Reference
    signal: str
    normals: tuple[Normals, ...]
    threshold: float | None
    flags: tuple[str, ...] = ()

    def score(self, view: View) -> Floats:
        """Return (n,) float64."""
        at = self.reference.positions(view.ids)
        total = np.zeros(view.n_records)
        for phi, normals in zip(view.signal(self.signal).T, self.normals, strict=True):
            total += log_ratio(phi, normals.at(at))
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
    require_models(side, 2, online, ids)
    total = np.zeros(side.shape)
    queries = phi[..., None] if phi.ndim == 2 else phi
    for query in np.moveaxis(queries, -1, 0):

        def score(records: slice, normals: Normals, query: Floats = query) -> None:
            total[:, records] += log_ratio(query[:, records], normals)

        over_left_out_normals(score, query, side, online=online, variance=variance)
    total /= queries.shape[-1]
    return total


def over_left_out_normals(
    use: Callable[[slice, Normals], None], phi: Floats, side: NDArray[np.int8], *, online: bool, variance: Variance
) -> None:
    """Hand blocks of records with the normals (m, b) that each model's others show to ``use``, side by side.

    A fleet of more than one block is read twice, first for what all records share.

    Args:
        use: writes to what belongs to the block's records alone.
        phi: (m, n) float64.
        side: (m, n) int8 of ``Side``.
        online: see ``LiRA``.
        variance: see ``LiRA``.
    """
    blocks = list(record_blocks(*side.shape))
    wanted = (Side.IN, Side.OUT) if online else (Side.OUT,)
    if len(blocks) <= 1:
        for records in blocks:
            *inside, outside = (left_out_moments(phi, side == which) for which in wanted)
            use(records, normals_of(inside[0] if inside else None, outside, variance))
        return
    numbers = [_left_out_numbers(side, which, blocks) for which in wanted]
    few = np.any([fewest < LEAST_FOR_OWN for _, fewest in numbers], axis=0)[:, None]
    known: list[Moments | None] = [None for _ in wanted]
    pools = []
    if variance != "per-record" or few.any():
        for place, (which, (freedom, _)) in enumerate(zip(wanted, numbers, strict=True)):
            known[place], squares = _left_out_squares(phi, side, which, blocks)
            pools.append(Pool(squares[:, None], freedom[:, None]))

    def work(records: slice) -> None:
        of_models, of_records = phi[:, records], side[:, records]
        *inside, outside = (
            left_out_moments(of_models, of_records == which, None if whole is None else whole.part(records))
            for which, whole in zip(wanted, known, strict=True)
        )
        use(records, normals_of(inside[0] if inside else None, outside, variance, pools, few))

    over_blocks(work, blocks, values=side.size)


def _left_out_numbers(side: NDArray[np.int8], which: Side, blocks: Sequence[slice]) -> tuple[Floats, Floats]:
    """Degrees of freedom of all records together without each model (m,), and models of the record with the fewest."""

    def count(records: slice) -> tuple[Floats, NDArray[np.int64]]:
        mask = side[:, records] == which
        number = np.count_nonzero(mask, axis=0)
        return (number - 1).sum() - np.count_nonzero(mask, axis=1).astype(np.float64), (number - mask).min(axis=1)

    freedoms, fewest = zip(*over_blocks(count, blocks, values=side.size), strict=True)
    return np.sum(freedoms, axis=0), np.min(fewest, axis=0).astype(np.float64)


def _left_out_squares(
    phi: Floats, side: NDArray[np.int8], which: Side, blocks: Sequence[slice]
) -> tuple[Moments, Floats]:
    """Moments of all records with every model, and sums of squares (m,) over all records without each model."""
    whole = Moments(*(np.empty(side.shape[1]) for _ in range(3)))

    def work(records: slice) -> Floats:
        part, sums = left_out_squares(phi[:, records], side[:, records] == which)
        for all_records, some in zip(whole, part, strict=True):
            all_records[records] = some
        return sums

    return whole, np.sum(over_blocks(work, blocks, values=side.size), axis=0)


def normals_of(
    inside: Moments | None,
    outside: Moments,
    variance: Variance,
    pools: Sequence[Pool] = (),
    few: NDArray[np.bool_] | None = None,
) -> Normals:
    """Turn moments into (mean, variance) of each side.

    Args:
        inside: None offline.
        outside: of the same records.
        variance: see ``LiRA``.
        pools: what each side shows over all records, IN first, where the moments are of some and it is read.
        few: whether a record anywhere has too few models for a variance of its own, broadcastable; goes with ``pools``.
    """
    sides = (outside,) if inside is None else (inside, outside)
    if variance == "per-record":
        spread = _own_or_shared(sides, pools, few)
    elif variance == "shared":
        spread = [_pooled(pool) for pool in pools or map(Pool.of, sides)]
    else:
        squares = sum(side.squares for side in sides) + PRIOR_WEIGHT * _pooled(*(pools or map(Pool.of, sides)))
        common = squares / (sum(side.number for side in sides) + (PRIOR_WEIGHT - len(sides)))
        spread = [common + common / side.number for side in sides]
    floored = [np.broadcast_to(np.maximum(v, VARIANCE_FLOOR), outside.mean.shape) for v in spread]
    fitted = [(side.mean, v) for side, v in zip(sides, floored, strict=True)]
    return Normals(None if inside is None else fitted[0], fitted[-1], variance == "shrunk")


def _own_or_shared(sides: tuple[Moments, ...], pools: Sequence[Pool], few: NDArray[np.bool_] | None) -> list[Floats]:
    """Each record's own variance; the shared one for all of them as soon as a record has too few models for its own.

    Not for that record alone: whether a left-out model's side has too few is told by the side it came from.
    """
    if few is None:
        few = np.any([(side.number < LEAST_FOR_OWN).any(axis=-1, keepdims=True) for side in sides], axis=0)
    own = [side.squares / np.maximum(side.number - 1.0, 1.0) for side in sides]
    if not few.any():
        return own
    shared = [_pooled(pool) for pool in pools or map(Pool.of, sides)]
    return [np.where(few, common, v) for common, v in zip(shared, own, strict=True)]


def variance_flags(reference: Reference, *, online: bool, left_out: bool) -> tuple[str, ...]:
    """Name the records whose models are too few for variances of their own, up to ten; () where there are none."""
    sides = (Side.IN, Side.OUT) if online else (Side.OUT,)
    least = LEAST_FOR_OWN + left_out
    few = np.any([(reference.side == side).sum(axis=0) < least for side in sides], axis=0)
    if not few.any():
        return ()
    ids = np.sort(reference.ids[few])
    named = ", ".join(str(int(i)) for i in ids[:10]) + (", ..." if ids.size > 10 else "")
    return (
        f"shared variance: {ids.size} records have fewer than {least} models on a side, too few for a variance of "
        f"their own (ids {named}), so every record takes the shared one",
    )


def shared_variance(*sides: Moments) -> Floats:
    """Mean within-record variance over all records, kept broadcastable; 1 where single models show none."""
    return _pooled(*map(Pool.of, sides))


def _pooled(*pools: Pool) -> Floats:
    squares = np.sum([pool.squares for pool in pools], axis=0)
    freedom = np.sum([pool.freedom for pool in pools], axis=0)
    pooled: Floats = np.where(freedom > 0, squares / np.maximum(freedom, 1.0), 1.0)
    return pooled


def log_ratio(phi: Floats, normals: Normals) -> Floats:
    """Return the log density ratio of signals (..., n), or offline their standardised distance."""
    mean, spread = normals.outside
    if normals.inside is None:
        z: Floats = (phi - mean) / np.sqrt(spread)
        return z
    mean_in, spread_in = normals.inside
    ratio: Floats = phi - mean
    ratio *= ratio
    ratio /= spread
    inside = phi - mean_in
    inside *= inside
    inside /= spread_in
    ratio -= inside
    if not normals.common:
        ratio += np.log(spread / spread_in)
    # With a common variance the logarithm holds the models' counts alone. Leave-one-out counts name the side of the
    # target; without the term the scores of both sides have one distribution where nothing leaks.
    ratio *= 0.5
    return ratio
