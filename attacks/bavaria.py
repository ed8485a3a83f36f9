"""BaVarIA: LiRA with a conjugate prior in place of a choice between pooled and per-record variances.

Source: Brannvall 2026 (arXiv 2603.11799), the released formulas and constants: a normal-inverse-gamma prior for each
side, its mean and variance those of all signals of that side over records and models, kappa0 = 1, alpha0 = 1 for the
Gaussian score (-n) and 2 for the posterior predictive (-t). Offline, every record's IN side is the prior.

A left-out target leaves the prior too. The release also leaves out the target's partner, the model with the opposite
roles, so that a record has as many IN as OUT models; fleets here need not come in such pairs. Deviations: counts that
only the left-out target made unequal are evened (``evened_counts``), else the published variances, which fall with the
count, name the target's side (AUC 0.23 with six models a side and no leak); where all records have the same counts
the formulas are the published ones. Signals are brought into [-limit, limit] before pooling, because one infinite
margin would be the variance of everybody's prior.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from mnemoscope.attacks.moments import Moments, evened_counts, left_out_moments, moments, record_blocks
from mnemoscope.audit.answers.blocks import over_blocks
from mnemoscope.audit.answers.signals import SIGNALS
from mnemoscope.audit.answers.views import Need, Reference, Side, View
from mnemoscope.audit.errors import InvalidInput

__all__ = ["BaVarIA"]

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

KAPPA0 = 1.0
"""Records that the prior's mean counts for."""

ALPHA0 = {"n": 1.0, "t": 2.0}
"""Shape of the prior of the variance."""

VARIANCE_FLOOR = 1e-10
"""In squared units of the signal, as released."""


class Prior(NamedTuple):
    """Mean and variance of one side over records and models: () each, or (m, 1) with the model of each row left out."""

    mean: Floats
    variance: Floats


class Density(NamedTuple):
    """A density of one side for every record, () where it is the prior's.

    Attributes:
        location: in the signal's unit.
        scale2: squared scale of the distance.
        constant: what the distance is taken from.
        degrees: degrees of freedom of Student's t; None for a Gaussian.
    """

    location: Floats
    scale2: Floats
    constant: Floats
    degrees: Floats | None

    def at(self, positions: NDArray[np.int64]) -> "Density":
        """Return those of the records at ``positions``; what all records share stays as it is."""
        location, scale2, constant = (part if part.ndim == 0 else part[positions] for part in self[:3])
        degrees = self.degrees
        if degrees is not None and degrees.ndim > 0:
            degrees = degrees[positions]
        return Density(location, scale2, constant, degrees)


class Weights(NamedTuple):
    """What the counts of a side alone decide about its density, broadcastable to the moments.

    Attributes:
        between: of the squared distance between the record's mean and the prior's.
        within: of the record's own squares.
        scale: of their sum with the prior's variance.
        widening: of the squared distance of a scored signal, for the error of the mean of fewer models.
        pull: of the location, from the prior's mean to the record's; None is 1.
        constant: what the counts add to the log density; None is 0.
        degrees: of freedom of Student's t; None for a Gaussian.
    """

    between: Floats
    within: Floats
    scale: Floats
    widening: Floats
    pull: Floats | None
    constant: Floats | None
    degrees: Floats | None

    def take(self, index: NDArray[np.int64]) -> "Weights":
        """Return those at flat positions."""
        return Weights(
            np.take(self.between, index),
            np.take(self.within, index),
            np.take(self.scale, index),
            np.take(self.widening, index),
            *(None if part is None else np.take(part, index) for part in (self.pull, self.constant, self.degrees)),
        )


@dataclass(frozen=True)
class BaVarIA:
    """Log ratio of both sides' densities under a shared prior: Gaussian (-n), or Student's t as it predicts (-t).

    Attributes:
        form: "n" is the better one at low false-positive rates, "t" in AUC with at most 8 models (as published).
        online: uses IN and OUT models of the record; offline its OUT models, and of IN models what they say of other
            records.
        signal: key of ``SIGNALS``; several queries are scored each by itself and averaged.
        limit: signals are brought into [-limit, limit] first; in the signal's unit.
    """

    form: Literal["n", "t"] = "n"
    online: bool = True
    signal: str = "margin"
    limit: float = 50.0
    needs = Need.SCORES | Need.SHADOW_IN | Need.SHADOW_OUT

    least_models = 0
    """A record without models on a side takes the prior."""

    def __post_init__(self) -> None:
        if self.form not in ALPHA0:
            raise InvalidInput(f"form={self.form!r} must be 'n' or 't'")
        if self.signal not in SIGNALS:
            raise InvalidInput(f"signal={self.signal!r} is unknown; known signals: {', '.join(sorted(SIGNALS))}")
        if not 0 < self.limit < np.inf:
            raise InvalidInput(f"limit={self.limit!r} must be positive and finite")

    @property
    def name(self) -> str:
        """``bavaria_n`` or ``bavaria_t``, with ``_offline``."""
        return f"bavaria_{self.form}" + ("" if self.online else "_offline")

    def fit(self, reference: Reference, *, rng: np.random.Generator) -> "BavariaScorer":
        """Fit the prior and both densities of every record; nothing is drawn from ``rng``."""
        _require_sides(reference.side, 1)
        fitted = []
        for phi in self._queries(reference):
            masks = [reference.side == side for side in (Side.IN, Side.OUT)]
            priors, both = [_prior(phi, mask) for mask in masks], [moments(phi, mask) for mask in masks]
            counts = evened_counts(*(own.number for own in both))
            weights = [self._weights(own.number, weight) for own, weight in zip(both, counts, strict=True)]
            fitted.append(self._densities(priors, both, weights))
        return BavariaScorer(self, reference, tuple(fitted))

    def score_fleet(self, reference: Reference, *, rng: np.random.Generator) -> Floats:
        """Score every model against all the others, in closed form."""
        _require_sides(reference.side, 2)
        side = reference.side
        total = np.zeros(side.shape)
        table, place = self._left_out_weights(side)
        rows = np.arange(side.shape[0])[:, None] * table[0].between.shape[1]
        for phi in self._queries(reference):
            priors = [_left_out_prior(phi, side == which) for which in (Side.IN, Side.OUT)]

            def work(records: slice, phi: Floats = phi, priors: Sequence[Prior] = priors) -> None:
                of_models, of_records = phi[:, records], side[:, records]
                both = [left_out_moments(of_models, of_records == which) for which in (Side.IN, Side.OUT)]
                index = place[records] - of_records
                index += rows
                inside, outside = self._densities(priors, both, [weights.take(index) for weights in table])
                score = _log_density(of_models, inside)
                score -= _log_density(of_models, outside)
                total[:, records] += score

            over_blocks(work, record_blocks(*side.shape), values=side.size)
        total /= reference.logits.shape[-2]
        return total

    def _left_out_weights(self, side: NDArray[np.int8]) -> tuple[list[Weights], NDArray[np.int64]]:
        """Return the weights of both sides with each model left out, for every combination of counts that occurs.

        Returns:
            Weights (m, 3 k) for k combinations of IN and OUT counts and the side of the model, in the order IN, OUT,
            neither; and for each record (n,) the column of a model that is OUT.
        """
        number = [np.count_nonzero(side == which, axis=0) for which in (Side.IN, Side.OUT)]
        own = [np.count_nonzero(side == which, axis=1) for which in (Side.IN, Side.OUT)]
        found, place = np.unique(number[0] * (side.shape[0] + 1) + number[1], return_inverse=True)
        combined = np.repeat(np.stack(np.divmod(found, side.shape[0] + 1)), 3, axis=1)
        combined[0, ::3] -= 1
        combined[1, 1::3] -= 1
        # No record has fewer than nothing: that column is of models that are on the side.
        inside, outside = np.broadcast_to(np.maximum(combined, 0)[:, None], (2, side.shape[0], combined.shape[1]))
        left = [float(counts.sum()) - counts_own for counts, counts_own in zip(number, own, strict=True)]
        weights = evened_counts(
            inside.astype(np.float64), outside.astype(np.float64), (left[0] / (left[0] + left[1]))[:, None]
        )
        table = [
            self._weights(counts.astype(np.float64), weight)
            for counts, weight in zip((inside, outside), weights, strict=True)
        ]
        return table, 3 * place + 1

    def _queries(self, answers: View | Reference) -> Floats:
        """Signals with the queries in front."""
        phi = np.moveaxis(answers.signal(self.signal), -1, 0)
        return np.clip(phi, -self.limit, self.limit)

    def _densities(
        self, priors: Sequence[Prior], both: Sequence[Moments], weights: Sequence[Weights]
    ) -> tuple[Density, Density]:
        """Return the IN and OUT densities of every record."""
        outside = self._posterior(priors[1], both[1], weights[1])
        if self.online:
            return self._posterior(priors[0], both[0], weights[0]), outside
        nothing = np.zeros(())
        empty = Moments(nothing, nothing, nothing)
        return self._posterior(priors[0], empty, self._weights(nothing, nothing)), outside

    def _weights(self, number: Floats, weight: Floats) -> Weights:
        """Return the weights of a side with ``number`` models that weigh as ``weight`` do."""
        kappa, alpha = KAPPA0 + weight, ALPHA0[self.form] + weight / 2.0
        # Where counts were evened: squares of as many models as they weigh, and below a distance on that scale, because
        # the mean of fewer models is further off by chance. Both factors are 1 elsewhere. A single model has no
        # squares; where the target's side decides whether one or two are left, neither case may have any.
        share = np.where(weight > 2.0 - 1e-9, (weight - 1.0) / np.maximum(number - 1.0, 1.0), 0.0)
        if self.form == "n":
            pull, constant, nu = None, None, None
            scale, pull2 = 1.0 / np.where(alpha > 1.0, alpha - 1.0, 1.0), np.ones(())
        else:
            pull, nu = weight / kappa, 2.0 * alpha
            scale, pull2 = (kappa + 1.0) / (alpha * kappa), pull * pull
            constant = gammaln((nu + 1.0) / 2.0) - gammaln(nu / 2.0) - 0.5 * np.log(nu)
        widening = (1.0 + pull2 / np.maximum(number, 1.0)) / (1.0 + pull2 / np.maximum(weight, 1.0))
        return Weights(KAPPA0 * weight / (2.0 * kappa), share / 2.0, scale, widening, pull, constant, nu)

    def _posterior(self, prior: Prior, own: Moments, weights: Weights) -> Density:
        """Return the density of a side: the prior after the models of ``own``."""
        apart = np.where(own.number > 0, own.mean - prior.mean, 0.0)
        location = apart + prior.mean if weights.pull is None else apart * weights.pull + prior.mean
        beta: Floats = apart * apart
        beta *= weights.between
        beta += own.squares * weights.within
        beta += prior.variance
        beta *= weights.scale
        constant = np.log(beta)
        constant *= -0.5
        if weights.constant is not None:
            constant += weights.constant
        beta *= weights.widening
        return Density(location, beta, constant, weights.degrees)


@dataclass(frozen=True, eq=False)
class BavariaScorer:
    """Fitted BaVarIA: the IN and OUT densities of every record, a pair a query; 0 is even odds."""

    attack: BaVarIA
    reference: Reference
    densities: tuple[tuple[Density, Density], ...]
    threshold: float = 0.0

    def score(self, view: View) -> Floats:
        """Return (n,) float64."""
        at = self.reference.positions(view.ids)
        total = np.zeros(view.n_records)
        for phi, (inside, outside) in zip(self.attack._queries(view), self.densities, strict=True):
            total += _log_density(phi, inside.at(at)) - _log_density(phi, outside.at(at))
        return total / len(self.densities)


def _require_sides(side: NDArray[np.int8], least: int) -> None:
    """Refuse a fleet in which a side's prior would rest on no model once ``least`` - 1 of them are taken out."""
    for wanted in (Side.IN, Side.OUT):
        if int((side == wanted).any(axis=1).sum()) < least:
            raise InvalidInput(
                f"the prior of the {wanted.name} side needs at least {least} models with {wanted.name} records. "
                "Provide more models, or use an attack that needs none on that side"
            )


def _prior(phi: Floats, mask: Mask) -> Prior:
    values = phi[mask]
    return Prior(np.asarray(values.mean()), np.asarray(max(values.var(), VARIANCE_FLOOR)))


def _left_out_prior(phi: Floats, mask: Mask) -> Prior:
    """Prior (m, 1) without each model: summed from what each of the others contributes, so that no digits cancel."""
    count = np.count_nonzero(mask, axis=1).astype(np.float64)

    def total_of(records: slice) -> Floats:
        summed: Floats = np.einsum("ij,ij->i", phi[:, records], mask[:, records].astype(np.float64))
        return summed

    mean: Floats = np.sum(over_blocks(total_of, record_blocks(*mask.shape), values=mask.size), axis=0)
    mean /= np.maximum(count, 1.0)

    def squares_of(records: slice) -> Floats:
        deviation = phi[:, records] - mean[:, None]
        deviation *= mask[:, records]
        summed: Floats = np.einsum("ij,ij->i", deviation, deviation)
        return summed

    squares: Floats = np.sum(over_blocks(squares_of, record_blocks(*mask.shape), values=mask.size), axis=0)
    others = 1.0 - np.eye(count.size)
    total = others @ count
    pooled = others @ (count * mean) / total
    spread = others @ squares + (others * count * (mean - pooled[:, None]) ** 2).sum(axis=1)
    return Prior(pooled[:, None], np.maximum(spread / total, VARIANCE_FLOOR)[:, None])


def _log_density(phi: Floats, density: Density) -> Floats:
    """Log density without log(2 pi) / 2 or log(pi) / 2, which both sides share."""
    gap: Floats = phi - density.location
    gap *= gap
    gap /= density.scale2
    if density.degrees is None:
        gap *= -0.5
    else:
        gap /= density.degrees
        np.log1p(gap, out=gap)
        gap *= -0.5 * (density.degrees + 1.0)
    gap += density.constant
    return gap
