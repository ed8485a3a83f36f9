"""Two corrections of few-model LiRA (Jalko et al. 2026, arXiv 2605.25819): the finite pool, and one level for all.

Finite pool: models trained on random parts of one pool differ less than models trained on fresh draws from the
population, by the share of the pool that a model does not see. ``LiRAFinitePopulation`` widens both variances of every
record accordingly; claims about training sets from the population, and not about this pool, need it.

One level: a threshold on log ratios gives each record a false-positive rate of its own. ``LiRACalibrated`` scores
u = (phi - mu0) / (s0 sqrt(1 + 1/n)) as the normal quantile of its t distribution with n - 1 degrees of freedom, so that
one threshold has the same rate for every record, whatever its spread and its number n of OUT models. Deviation: the
paper takes u times the sign of mu1 - mu0; both hold the same mu0, so that the product leans to the positive where
nothing leaks. By default "in" points up, and ``direction="record"`` is the paper's.
"""

from dataclasses import dataclass
from typing import Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln, gammaln, ndtr, ndtri, ndtri_exp, stdtr

from mnemoscope.attacks.lira import (
    LEAST_FOR_OWN,
    Normals,
    Variance,
    log_ratio,
    normals_of,
    over_left_out_normals,
    shared_variance,
    variance_flags,
)
from mnemoscope.attacks.moments import Moments, left_out_moments, moments, record_blocks
from mnemoscope.audit.answers.blocks import over_blocks
from mnemoscope.audit.answers.signals import SIGNALS
from mnemoscope.audit.answers.views import Need, Reference, Side, View, require_models
from mnemoscope.audit.errors import InvalidInput

__all__ = ["LiRACalibrated", "LiRAFinitePopulation", "gaussian_power", "pool_factor"]

Floats = NDArray[np.float64]
VARIANCE_FLOOR = 1e-6
"""In squared logits, as in ``lira``."""

KNOTS, LAST_KNOT = 16_385, 16.0
"""Of the tables of normal quantiles: between knots a thousandth apart a cubic is right to 1e-14."""

LEAST_CELLS = 4
"""Scores for each knot from which a table is worth its making."""


def pool_factor(inclusion: float | Floats, seed_share: float = 0.0) -> Floats:
    """Return the variance between models of one pool, as a share of that between models of the population.

    rho + (1 - rho)(1 - inclusion): only the variance due to which records are in shrinks with the pool; the share rho
    that seeds and the order of training cause does not.

    Args:
        inclusion: share of the pool that a model trains on, in [0, 1); n / (N - 1) for n of N records.
        seed_share: rho in [0, 1], e.g. measured as the variance between models of one fixed training set over the
            variance between the reference models. 0 is the paper's correction, the largest possible.

    >>> pool_factor(0.5).item()
    0.5
    """
    return np.asarray(seed_share + (1.0 - seed_share) * (1.0 - np.asarray(inclusion, np.float64)), np.float64)


def gaussian_power(gap: Floats, spread: Floats, fpr: float) -> Floats:
    """Power of the best test of N(mu, spread) against N(mu + gap, spread) at a false-positive rate, for each record.

    Args:
        gap: (n,) float64, mu1 - mu0.
        spread: (n,) float64 variances; divide them by ``pool_factor`` for the population's.
        fpr: in (0, 1).
    """
    power: Floats = ndtr(np.abs(gap) / np.sqrt(spread) + ndtri(fpr))
    return power


@dataclass(frozen=True)
class LiRAFinitePopulation:
    """LiRA with both variances of every record divided by the finite-population factor of the models' pool.

    Attributes:
        online: as in ``LiRA``.
        variance: as in ``LiRA``. Each record's own by default, as in the paper: with "shrunk" both sides share a
            variance, every log ratio shrinks by the factor and the order stays as it is.
        inclusion: share of the pool that a model trains on. An audit of a fleet fills in what its design knows, see
            ``inclusion_of``. Elsewhere None reads it off the sides, IN / (IN + OUT) over all reference models and
            records: right where every record of the pool is audited and none is left out; a flag says where one is.
        seed_share: share of the variance that is not due to which records are in, in [0, 1]; see ``pool_factor``.
        signal: as in ``LiRA``.
    """

    online: bool = True
    variance: Variance = "per-record"
    inclusion: float | None = None
    seed_share: float = 0.0
    signal: str = "margin"
    name = "lira_finite_population"

    def __post_init__(self) -> None:
        if self.variance not in get_args(Variance):
            raise InvalidInput(f"variance={self.variance!r} is unknown; allowed: {', '.join(get_args(Variance))}")
        if self.signal not in SIGNALS:
            raise InvalidInput(f"signal={self.signal!r} is unknown; known signals: {', '.join(sorted(SIGNALS))}")
        if self.inclusion is not None and not 0 <= self.inclusion < 1:
            raise InvalidInput(f"inclusion={self.inclusion!r} must lie in [0, 1): the share of the pool in training")
        if not 0 <= self.seed_share <= 1:
            raise InvalidInput(f"seed_share={self.seed_share!r} must lie in [0, 1]")

    @property
    def needs(self) -> Need:
        """OUT models; IN models online, and where the inclusion share is to be read off the sides."""
        members = self.online or self.inclusion is None
        return Need.SCORES | Need.SHADOW_OUT | (Need.SHADOW_IN if members else Need.NOTHING)

    def fit(self, reference: Reference, *, rng: np.random.Generator) -> "NormalsScorer":
        """Fit both distributions of every record; nothing is drawn from ``rng``."""
        require_models(reference.side, 1, self.online, reference.ids)
        factor, fitted = self._factor(reference.side), []
        for phi in np.moveaxis(reference.signal(self.signal), -1, 0):
            inside = moments(phi, reference.side == Side.IN) if self.online else None
            normals = normals_of(inside, moments(phi, reference.side == Side.OUT), self.variance)
            fitted.append(_widened(normals, factor))
        threshold = 0.0 if self.online else None
        return NormalsScorer(reference, self.signal, tuple(fitted), threshold, self.flags(reference))

    def score_fleet(self, reference: Reference, *, rng: np.random.Generator) -> Floats:
        """Score every model against all the others, in closed form."""
        require_models(reference.side, 2, self.online, reference.ids)
        total, phi = np.zeros(reference.side.shape), reference.signal(self.signal)
        factor = self._left_out_factor(reference.side)
        for query in np.moveaxis(phi, -1, 0):

            def score(records: slice, fitted: Normals, query: Floats = query) -> None:
                total[:, records] += log_ratio(query[:, records], _widened(fitted, factor))

            over_left_out_normals(score, query, reference.side, online=self.online, variance=self.variance)
        total /= phi.shape[-1]
        return total

    def flags(self, reference: Reference, *, left_out: bool = False) -> tuple[str, ...]:
        """As of ``LiRA``, and where the sides do not show the share that the correction is made with."""
        left = float((reference.side == Side.LEAVE_OUT).mean())
        said: tuple[str, ...] = ()
        if self.inclusion is None and left:
            said = (
                f"the share of the pool in training was read off the sides, {left:.0%} of which are left out; "
                "set inclusion where it is known",
            )
        if self.variance != "per-record":
            return said
        return (*variance_flags(reference, online=self.online, left_out=left_out), *said)

    def _factor(self, side: NDArray[np.int8]) -> Floats:
        """The factor () that a whole reference shows."""
        if self.inclusion is not None:
            return pool_factor(self.inclusion, self.seed_share)
        inside, outside = int((side == Side.IN).sum()), int((side == Side.OUT).sum())
        return pool_factor(inside / (inside + outside), self.seed_share)

    def _left_out_factor(self, side: NDArray[np.int8]) -> Floats:
        """The factor () or (m, 1) that the others of each model show."""
        if self.inclusion is not None:
            return pool_factor(self.inclusion, self.seed_share)
        inside, outside = ((side == wanted).sum(axis=1) for wanted in (Side.IN, Side.OUT))
        inside, outside = inside.sum() - inside, outside.sum() - outside
        return pool_factor((inside / (inside + outside))[:, None], self.seed_share)


def _widened(normals: Normals, factor: Floats) -> Normals:
    mean, spread = normals.outside
    inside = None if normals.inside is None else (normals.inside[0], normals.inside[1] / factor)
    return Normals(inside, (mean, spread / factor), normals.common)


@dataclass(frozen=True, eq=False)
class NormalsScorer:
    """Fitted Gaussians of every record; ``threshold`` is the likelihood ratio's own, ``flags`` as of the attack."""

    reference: Reference
    signal: str
    normals: tuple[Normals, ...]
    threshold: float | None
    flags: tuple[str, ...]

    def score(self, view: View) -> Floats:
        """Return (n,) float64."""
        at = self.reference.positions(view.ids)
        total = np.zeros(view.n_records)
        for phi, normals in zip(view.signal(self.signal).T, self.normals, strict=True):
            total += log_ratio(phi, normals.at(at))
        return total / len(self.normals)


@dataclass(frozen=True)
class LiRACalibrated:
    """Each record's normal quantile under its OUT models: one threshold has one false-positive rate for all records.

    Attributes:
        direction: "up": members have the higher signal. "record": the sign of the record's mean IN minus mean OUT
            signal, as in the paper; needs IN models, and its rate where nothing leaks is above the nominal one
            (1.6 % for 1 % with eight models a side).
        signal: key of ``SIGNALS``; several queries are averaged first.
    """

    direction: Literal["up", "record"] = "up"
    signal: str = "margin"
    name = "lira_calibrated"

    def __post_init__(self) -> None:
        if self.direction not in ("up", "record"):
            raise InvalidInput(f"direction={self.direction!r} must be 'up' or 'record'")
        if self.signal not in SIGNALS:
            raise InvalidInput(f"signal={self.signal!r} is unknown; known signals: {', '.join(sorted(SIGNALS))}")

    @property
    def needs(self) -> Need:
        """OUT models, and IN models for the direction of each record."""
        return Need.SCORES | Need.SHADOW_OUT | (Need.SHADOW_IN if self.direction == "record" else Need.NOTHING)

    def fit(self, reference: Reference, *, rng: np.random.Generator) -> "CalibratedScorer":
        """Fit the OUT distribution of every record; nothing is drawn from ``rng``."""
        require_models(reference.side, 1, self._both, reference.ids)
        phi = reference.averaged(self.signal)
        inside = moments(phi, reference.side == Side.IN) if self._both else None
        outside = moments(phi, reference.side == Side.OUT)
        return CalibratedScorer(reference, self.signal, inside, outside, self.flags(reference))

    def score_fleet(self, reference: Reference, *, rng: np.random.Generator) -> Floats:
        """Score every model against all the others, in closed form."""
        require_models(reference.side, 2, self._both, reference.ids)
        phi = reference.averaged(self.signal)
        # A shared variance is of all records together: they can be taken by parts only where it is not needed.
        few = self.flags(reference, left_out=True)
        parts = [slice(None)] if few else record_blocks(*phi.shape)
        tables = None if few else _Tables.worth_making(reference.side == Side.OUT)
        scores = np.empty(phi.shape)

        def work(records: slice) -> None:
            own, side = phi[:, records], reference.side[:, records]
            inside = left_out_moments(own, side == Side.IN) if self._both else None
            scores[:, records] = _calibrated(own, inside, left_out_moments(own, side == Side.OUT), tables=tables)

        over_blocks(work, parts, values=phi.size)
        return scores

    def flags(self, reference: Reference, *, left_out: bool = False) -> tuple[str, ...]:
        """As of ``LiRA``."""
        return variance_flags(reference, online=False, left_out=left_out)

    @property
    def _both(self) -> bool:
        return self.direction == "record"


@dataclass(frozen=True, eq=False)
class CalibratedScorer:
    """Moments (n,) of each record; for a false-positive rate alpha decide "in" at score >= ndtri(1 - alpha)."""

    reference: Reference
    signal: str
    inside: Moments | None
    outside: Moments
    flags: tuple[str, ...]

    def score(self, view: View) -> Floats:
        """Return (n,) float64, standard normal for a non-member whose OUT models are Gaussian."""
        at = self.reference.positions(view.ids)
        inside = None if self.inside is None else Moments(*(part[at] for part in self.inside))
        outside = Moments(*(part[at] for part in self.outside))
        # Pooled over the whole reference, whichever of its records are scored.
        return _calibrated(view.averaged(self.signal), inside, outside, self.outside)


class _Tables:
    """Normal quantiles of Student's t by cubics between knots, for whole degrees of freedom from ``least`` to ``most``.

    A fleet has few different numbers of OUT models and many scores.
    """

    def __init__(self, least: int, most: int) -> None:
        self.least, self.step = least, LAST_KNOT / (KNOTS - 1)
        nu = np.arange(least, most + 1, dtype=np.float64)[:, None]
        u = np.linspace(0.0, LAST_KNOT, KNOTS)
        z = normal_quantile(np.broadcast_to(u, (nu.size, KNOTS)), nu)
        log_t = gammaln((nu + 1) / 2) - gammaln(nu / 2) - np.log(nu * np.pi) / 2 - (nu + 1) / 2 * np.log1p(u * u / nu)
        slope = self.step * np.exp(log_t + z * z / 2 + np.log(2 * np.pi) / 2)
        self.z, self.slope = z.reshape(-1), slope.reshape(-1)

    @classmethod
    def worth_making(cls, outside: NDArray[np.bool_]) -> Self | None:
        """Return the tables for a fleet (m, n) with each model left out, or None where it has too few scores."""
        number = np.count_nonzero(outside, axis=0)
        least, most = int(number.min()) - 2, int(number.max()) - 1
        worth = least >= 1 and outside.size >= LEAST_CELLS * KNOTS * (most - least + 1)
        return cls(least, most) if worth else None

    def __call__(self, u: Floats, degrees: Floats) -> Floats:
        """Return ``normal_quantile(u, degrees)``."""
        place = np.abs(u)
        place *= 1.0 / self.step
        far = np.flatnonzero(place >= KNOTS - 2)
        np.minimum(place, KNOTS - 2, out=place)
        at = place.astype(np.int64)
        place -= at
        at += (degrees.astype(np.int64) - self.least) * KNOTS
        low, slope = self.z.take(at), self.slope.take(at)
        at += 1
        rise, bend = self.z.take(at), self.slope.take(at)
        rise -= low
        # low + t (slope + t (3 rise - 2 slope - end + t (slope + end - 2 rise))), t the place between two knots
        bend += slope
        bend -= 2.0 * rise
        rise -= slope
        rise -= bend
        z = place * bend
        z += rise
        z *= place
        z += slope
        z *= place
        z += low
        if far.size:
            z.reshape(-1)[far] = normal_quantile(np.abs(u.reshape(-1)[far]), degrees.reshape(-1)[far])
        signed: Floats = np.copysign(z, u, out=z)
        return signed


def _calibrated(
    phi: Floats,
    inside: Moments | None,
    outside: Moments,
    pool: Moments | None = None,
    tables: _Tables | None = None,
) -> Floats:
    pool = outside if pool is None else pool
    degrees = np.maximum(outside.number - 1.0, 1.0)
    spread = outside.squares / degrees
    few = (pool.number < LEAST_FOR_OWN).any(axis=-1, keepdims=True)
    if few.any():
        # One shared variance has nearly all degrees of freedom that there are.
        freedom = np.maximum((pool.number - 1.0).sum(axis=-1, keepdims=True), 1.0)
        spread, degrees = np.where(few, shared_variance(pool), spread), np.where(few, freedom, degrees)
    spread = np.maximum(spread, VARIANCE_FLOOR)
    spread *= 1.0 + 1.0 / outside.number
    u = (phi - outside.mean) / np.sqrt(spread)
    if inside is not None:
        u *= np.where(inside.mean >= outside.mean, 1.0, -1.0)
    return normal_quantile(u, degrees) if tables is None else tables(u, degrees)


def normal_quantile(u: Floats, degrees: Floats) -> Floats:
    """Return the standard normal value with the tail probability of ``u`` under Student's t; finite in both tails.

    >>> normal_quantile(np.array([0.0, 1e30, 12.706205]), np.array([1.0, 60.0, 1.0])).round(3)
    array([ 0.   , 89.659,  1.96 ])
    """
    size = np.abs(u)
    with np.errstate(divide="ignore"):
        log_tail = np.log(stdtr(degrees, -size))
    far = log_tail < -600.0
    if far.any():
        nu = np.broadcast_to(degrees, u.shape)[far]
        log_tail[far] = _log_far_tail(size[far], nu)
    z: Floats = np.copysign(ndtri_exp(log_tail), u)
    return z


def _log_far_tail(u: Floats, nu: Floats) -> Floats:
    """Log of Student's tail P(T > u) where it is below 1e-260, to 1e-5 and better for any degrees of freedom.

    P(T > u) = I_x(nu/2, 1/2) / 2 with x = nu / (nu + u^2) = 1 - y: x^(nu/2) sqrt(y) / (nu B(nu/2, 1/2)) times a series
    in x. Its terms fall by a share that rises from r = (nu + 1) / (nu + 2) times x to x: the geometric series with r
    is what it is here, where u^2 is a thousand or more, but for a share of 2 / u^4.
    """
    log_u2_nu = 2.0 * np.log(u) - np.log(nu)
    # u^2 itself may overflow; log(1 + u^2 / nu) by its logarithm does not.
    log_x = -np.logaddexp(0.0, log_u2_nu)
    log_y = log_u2_nu + log_x
    series = -np.log(np.exp(log_y) + np.exp(log_x) / (nu + 2.0))
    tail: Floats = nu / 2.0 * log_x + log_y / 2.0 + series - np.log(nu) - betaln(nu / 2.0, 0.5)
    return tail
