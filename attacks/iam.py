"""IAM, interpolated approximate measurement of unlearning (Wang et al. 2025, arXiv 2506.06112).

Between what a model says of a record that it merely generalises to, and what it says of one that it has fitted, lies a
path of hypothetical models. Where on it does this model stand? The first end is every reference model that never saw
the record, the other the model before deletion (online) or a perfect fit (offline). One reference model is enough.

For each place alpha on the path, a Gumbel distribution is fitted by moments to the interpolated signals, with a
standard deviation pooled over models *and* records; its distribution function at the model's own signal, averaged over
the path with weights alpha, shifted by one step as in the release, is the confidence that the record is still in.

Online, the far end is the adversary's knowledge of the first model: it lies higher for records which that model was
trained on, so exact retraining does *not* score the null among never-seen records. Read it beside the retrained row.

Deviations: the signal is computed from log p in float64; the Gumbel's mean uses Euler's constant, not 0.5772; a pooled
standard deviation below 1e-6 is raised to it. The reference models are those before deletion where they are given
(online), because the paper's are never unlearned.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.views import Answers, Need, Reference, Side, View, require_models
from mnemoscope.audit.errors import InvalidInput, MissingNeed

__all__ = ["IAM", "Fitted", "IamScorer", "fitness"]

Floats = NDArray[np.float64]
Fitted = Literal["before", "perfect", "members"]

NEARLY_ONE, NEARLY_ZERO = 1e-2, 1e-5
"""The signal's offsets e1 and e2; the release raises e1 to 1e-1 for tables of purchases and for language models."""
PLACES = 100
SPREAD_FLOOR = 1e-6
BLOCK = 4096
"""Records at a time: what stays in the fast memory of a core."""


@dataclass(frozen=True)
class IAM:
    """Where a record stands between merely generalised and fitted, as a confidence that it is still in.

    Attributes:
        fitted: the far end of the path. "before" is the same model before deletion (online). "perfect" is probability
            1 (offline, as released). "members" is the mean signal of each reference model, before deletion where that
            is given, over the records it holds (offline, as the paper describes it).
        offset: e1 of the signal -log(e1 - log(e2 + p)), in (0, 1].
    """

    fitted: Fitted = "before"
    offset: float = NEARLY_ONE

    def __post_init__(self) -> None:
        if self.fitted not in get_args(Fitted):
            raise InvalidInput(f"fitted={self.fitted!r} is unknown; allowed: {', '.join(get_args(Fitted))}")
        if not 1e-4 <= self.offset <= 1:
            raise InvalidInput(f"offset={self.offset!r} must lie in [1e-4, 1]; the release has 1e-2 and 1e-1")

    @property
    def name(self) -> str:
        """``iam`` or ``iam_offline``."""
        return "iam" if self.fitted == "before" else "iam_offline"

    @property
    def needs(self) -> Need:
        """OUT models, online the answers before deletion, for "members" IN models."""
        extra = {"before": Need.BEFORE, "perfect": Need.NOTHING, "members": Need.SHADOW_IN}
        return Need.SCORES | Need.SHADOW_OUT | extra[self.fitted]

    def fit(self, reference: Reference, *, rng: np.random.Generator) -> "IamScorer":
        """Sum up the near and far ends of all paths; nothing is drawn from ``rng``."""
        require_models(reference.side, 1, False, reference.ids)
        signals, ends = self._known(reference)
        return IamScorer(self, reference, _sums(signals, reference.side == Side.OUT, ends))

    def score_fleet(self, reference: Reference, *, rng: np.random.Generator) -> Floats:
        """Score every model with its own path left out, exactly."""
        require_models(reference.side, 2, False, reference.ids)
        signals, ends = self._known(reference)
        counts = reference.side == Side.OUT
        sums = _sums(signals, counts, ends)
        own = _mean(fitness(reference, self.offset))
        before = _before(reference, self.offset) if self.fitted == "before" else None
        scores = np.empty(reference.side.shape)
        for k in range(reference.n_models):
            one = slice(k, k + 1)
            own_part = _sums(signals[one], counts[one], ends[one])
            others = _Sums(*(whole - part for whole, part in zip(sums, own_part, strict=True)))
            scores[k] = _confidence(own[k], others if before is None else others.towards(before[k]))
        return scores

    def _known(self, reference: Reference) -> tuple[Floats, Floats]:
        """Signals (m, n) of the reference models, and the far end (m,) of each one's path, not used online."""
        plain = self.fitted == "perfect" or reference.before is None
        signals = _mean(fitness(reference, self.offset)) if plain else _before(reference, self.offset)
        if self.fitted != "members":
            return signals, np.ones(reference.n_models)
        held = reference.side == Side.IN
        number = held.sum(axis=1)
        total = np.where(held, signals, 0.0).sum(axis=1)
        # A model without members stands for a perfect fit.
        return signals, np.where(number > 0, total / np.maximum(number, 1), 1.0)


class _Sums(NamedTuple):
    """Sums over OUT models, (n,) each: number, near ends, far ends, and the products of both."""

    number: Floats
    near: Floats
    far: Floats
    near_near: Floats
    near_far: Floats
    far_far: Floats

    def towards(self, far: Floats) -> "_Sums":
        """Return the sums for paths that all end at one signal a record, (n,)."""
        number, near, _, near_near, _, _ = self
        return _Sums(number, near, number * far, near_near, near * far, number * far * far)

    def at(self, positions: NDArray[np.int64]) -> "_Sums":
        """Return those of the records at ``positions``."""
        return _Sums(*(values[positions] for values in self))


@dataclass(frozen=True, eq=False)
class IamScorer:
    """IAM fitted on reference models."""

    attack: IAM
    reference: Reference
    sums: _Sums

    def score(self, view: View) -> Floats:
        """Return (n,) float64 in [0, 1]."""
        sums = self.sums.at(self.reference.positions(view.ids))
        if self.attack.fitted == "before":
            sums = sums.towards(_before(view, self.attack.offset))
        return _confidence(_mean(fitness(view, self.attack.offset)), sums)


def fitness(answers: Answers, offset: float = NEARLY_ONE) -> Floats:
    """Return -log(e1 - log(e2 + p_y)), scaled to 0 at p_y = 0 and 1 at p_y = 1, (n, q) or (m, n, q) float64.

    Args:
        answers: recorded logits.
        offset: e1; e2 is 1e-5.
    """
    log_p = answers.signal("negative_loss")
    ends = [-np.log(offset - np.log(NEARLY_ZERO + p)) for p in (0.0, 1.0)]
    # log(e2 + p) = log1p(e2 + (p - 1)): near p = 1 the difference keeps its digits.
    raw = -np.log(offset - np.log1p(NEARLY_ZERO + np.expm1(log_p)))
    scaled: Floats = (raw - ends[0]) / (ends[1] - ends[0])
    return np.clip(scaled, 0.0, 1.0)


def _sums(signals: Floats, counts: NDArray[np.bool_], ends: Floats) -> _Sums:
    weight = counts.astype(np.float64)
    near = weight * signals
    far = weight * ends[:, None]
    parts = (near * signals, near * ends[:, None], far * ends[:, None])
    return _Sums(*(part.sum(axis=0) for part in (weight, near, far, *parts)))


def _confidence(own: Floats, sums: _Sums) -> Floats:
    """Weighted mean over the path of the Gumbel distribution functions at ``own`` (n,)."""
    cells = float(sums.number.sum())
    near_mean, far_mean = float(sums.near.sum()) / cells, float(sums.far.sum()) / cells
    near_near = float(sums.near_near.sum()) / cells - near_mean * near_mean
    near_far = float(sums.near_far.sum()) / cells - near_mean * far_mean
    far_far = float(sums.far_far.sum()) / cells - far_mean * far_mean
    near = sums.near / sums.number
    gap, way = near - own, sums.far / sums.number - near
    alpha = np.linspace(0.0, 1.0, PLACES)
    rest = 1.0 - alpha
    variance = rest * rest * near_near + 2.0 * rest * alpha * near_far + alpha * alpha * far_far
    scale = np.maximum(np.sqrt(np.maximum(variance, 0.0)), SPREAD_FLOOR) * (math.sqrt(6.0) / math.pi)
    weights = alpha[1:] / alpha[1:].sum()
    total = np.zeros(own.size)
    for start in range(0, own.size, BLOCK):
        part = slice(start, start + BLOCK)
        for place, width, weight in zip(alpha[:-1].tolist(), scale[:-1].tolist(), weights.tolist(), strict=True):
            exponent = way[part] * (place / width)
            exponent += gap[part] * (1.0 / width)
            exponent -= np.euler_gamma
            # exp(-exp(7)) is 0 in float64 already; the bound keeps the inner exponential from overflowing.
            np.exp(np.minimum(exponent, 7.0, out=exponent), out=exponent)
            np.exp(np.negative(exponent, out=exponent), out=exponent)
            exponent *= weight
            total[part] += exponent
    return total


def _mean(signal: Floats) -> Floats:
    mean: Floats = signal.mean(axis=-1)
    return mean


def _before(answers: View | Reference, offset: float) -> Floats:
    if answers.before is None:
        raise MissingNeed("iam needs the answers of the model before deletion; iam_offline does without them")
    signal = _mean(fitness(answers.before, offset))
    at = answers.before.positions(answers.ids)
    return signal[..., at]
