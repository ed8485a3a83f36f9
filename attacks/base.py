"""BASE, the Bayes-optimal score of a Gibbs posterior, and its two- and three-parameter relatives.

Sources: Lassila et al. 2025 (arXiv 2505.24089) for the score log p - s tau, tau the log of the mean probability that
the references give the record's class; Brannvall 2026 (arXiv 2603.11799) for the hierarchy BASE1 to BASE4, of which
BASE1 is that score with s = 1, BASE2 here is the revised one (BASE3 with every variance one), and BASE4 is LiRA with a
variance for each record (``lira_per_record``, which divides by n - 1).

BASE1 orders the records of one model as RMIA with gamma 1 does, without its ties. Deviations: online, tau averages the
mean over IN and the mean over OUT, which is the mean over all models where a record has as many of each, and does not
tell by its counts which side a left-out target came from; BASE2 and BASE3 put both distances on the scale of evened
counts for the same reason (the same counts for all records: the published formulas); s is tuned on all references in
turn, not on eight.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mnemoscope.attacks.lira import Normals, log_ratio
from mnemoscope.attacks.moments import (
    Moments,
    evened_counts,
    left_out_mean,
    left_out_moments,
    mean_over,
    moments,
    record_blocks,
)
from mnemoscope.attacks.tuning import Cells, Setting, Simulated, check_setting, tuned_by_target, tuned_setting
from mnemoscope.audit.answers.blocks import over_blocks
from mnemoscope.audit.answers.signals import SIGNALS
from mnemoscope.audit.answers.views import Need, Reference, Side, View, require_models
from mnemoscope.audit.errors import InvalidInput

__all__ = ["BASE", "LinearBASE"]

Floats = NDArray[np.float64]

LOWEST_LOG = -700.0
"""Log probabilities below it are raised to it, so that means of probabilities stay normal float64 numbers."""

SCALES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Values of s that tuning tries, closer together where offline scores are best; of equally good ones the smallest."""

VARIANCE_FLOOR = 1e-10
"""In squared logits, as released."""


@dataclass(frozen=True)
class BASE:
    """Log probability of the record's class, minus s times the log of its mean over reference models.

    Attributes:
        online: references are IN and OUT models; offline OUT models alone.
        scale: s in [0, 1]; 1 as in the paper. Offline, 1 ranks by difficulty as much as by membership; 0.33 is the
            default of a later toolbox. "tuned": the value of ``SCALES`` that tells members best where the attacker's
            own models stand in for the target, one after another.
        temperature: the logits are divided by it first; 1 as in the paper, 2 in a later toolbox.
    """

    online: bool = True
    scale: Setting = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_setting("scale", self.scale)
        if not self.temperature > 0:
            raise InvalidInput(f"temperature={self.temperature!r} must be positive")

    @property
    def name(self) -> str:
        """``base``, with ``_offline`` and ``_tuned`` where they apply."""
        return "base" + ("" if self.online else "_offline") + ("_tuned" if self.scale == "tuned" else "")

    @property
    def needs(self) -> Need:
        """Scores and OUT models; IN models online, and to tune."""
        members = self.online or self.scale == "tuned"
        return Need.SCORES | Need.SHADOW_OUT | (Need.SHADOW_IN if members else Need.NOTHING)

    def fit(self, reference: Reference, *, rng: np.random.Generator) -> "BaseScorer":
        """Compute tau of every record, and s where it is tuned; nothing is drawn from ``rng``."""
        require_models(reference.side, 1, self.online, reference.ids)
        log_p = self._signal(reference)
        p = _floored(log_p)
        means = [mean_over(p, mask) for mask in self._masks(reference.side)]
        tau = np.log(sum(means[1:], means[0]) / len(means))
        scale = self.scale
        if scale == "tuned":
            scale = tuned_setting(SCALES, self._simulated(log_p), reference.side, reference.ids, both=self.online)
        return BaseScorer(self, reference, tau, scale, 0.0 if scale == 1.0 and self.online else None)

    def score_fleet(self, reference: Reference, *, rng: np.random.Generator) -> Floats:
        """Score every model against all the others, in closed form."""
        require_models(reference.side, 2, self.online, reference.ids)
        log_p = self._signal(reference)
        scale: float | Floats
        if self.scale == "tuned":
            scale = tuned_by_target(SCALES, self._simulated(log_p), reference.side, reference.ids, both=self.online)[
                :, None
            ]
        else:
            scale = self.scale
        mean, tau = self._left_out(log_p, reference.side)
        tau *= -scale
        tau += mean
        return tau

    def _simulated(self, log_p: Floats) -> Simulated:
        """Return what scores chosen models and records with each model left out, for a value of s."""

        def of(cells: Cells) -> Callable[[float], Floats]:
            mean, tau = self._left_out(log_p[np.ix_(cells.models, cells.records)], cells.side)
            return lambda scale: mean - scale * tau

        return of

    def _left_out(self, log_p: Floats, side: NDArray[np.int8]) -> tuple[Floats, Floats]:
        """Log probability and tau (m, n) of every model against the others, averaged over queries."""
        tau = np.zeros(side.shape)

        def work(records: slice) -> None:
            masks = self._masks(side[:, records])
            for query in np.moveaxis(log_p[:, records], -1, 0):
                p = _floored(query)
                means = [left_out_mean(p, mask) for mask in masks]
                average = sum(means[1:], means[0])
                average /= len(means)
                tau[:, records] += np.log(average, out=average)

        over_blocks(work, record_blocks(*side.shape), values=log_p.size)
        tau /= log_p.shape[-1]
        return log_p[..., 0] if log_p.shape[-1] == 1 else log_p.mean(axis=-1), tau

    def _signal(self, answers: View | Reference) -> Floats:
        return answers.signal("negative_loss", temperature=self.temperature)

    def _masks(self, side: NDArray[np.int8]) -> tuple[NDArray[np.bool_], ...]:
        return (side == Side.OUT, side == Side.IN) if self.online else (side == Side.OUT,)


@dataclass(frozen=True, eq=False)
class BaseScorer:
    """Fitted BASE: tau (n, q) and s; ``threshold`` is the posterior's even odds, online and with s = 1."""

    attack: BASE
    reference: Reference
    tau: Floats
    scale: float
    threshold: float | None

    def score(self, view: View) -> Floats:
        """Return (n,) float64."""
        tau = self.tau[self.reference.positions(view.ids)]
        score: Floats = (self.attack._signal(view) - self.scale * tau).mean(axis=-1)
        return score


@dataclass(frozen=True)
class LinearBASE:
    """BASE2 and BASE3: log ratio of two Gaussians with one variance, (mu1 - mu0) (phi - midpoint) / variance.

    Attributes:
        parameters: fitted for each record: 2 (both means, variance 1) or 3 (and the variance that both sides share,
            weighted by their counts).
        signal: key of ``SIGNALS``; several queries are scored each by itself and averaged.
    """

    parameters: Literal[2, 3] = 3
    signal: str = "margin"
    needs = Need.SCORES | Need.SHADOW_IN | Need.SHADOW_OUT

    def __post_init__(self) -> None:
        if self.parameters not in (2, 3):
            raise InvalidInput(f"parameters={self.parameters!r} must be 2 or 3")
        if self.signal not in SIGNALS:
            raise InvalidInput(f"signal={self.signal!r} is unknown; known signals: {', '.join(sorted(SIGNALS))}")

    @property
    def name(self) -> str:
        """``base2`` or ``base3``."""
        return f"base{self.parameters}"

    def fit(self, reference: Reference, *, rng: np.random.Generator) -> "LinearScorer":
        """Compute slope and midpoint of every record; nothing is drawn from ``rng``."""
        require_models(reference.side, 1, True, reference.ids)
        fitted = []
        for phi in np.moveaxis(reference.signal(self.signal), -1, 0):
            inside, outside = (moments(phi, reference.side == side) for side in (Side.IN, Side.OUT))
            fitted.append(self._normals(inside, outside))
        return LinearScorer(self, reference, tuple(fitted))

    def score_fleet(self, reference: Reference, *, rng: np.random.Generator) -> Floats:
        """Score every model against all the others, in closed form."""
        require_models(reference.side, 2, True, reference.ids)
        total = np.zeros((reference.n_models, reference.n_records))
        phi = reference.signal(self.signal)
        share = _left_out_share(reference.side)

        def work(records: slice) -> None:
            of_records = reference.side[:, records]
            for query in np.moveaxis(phi[:, records], -1, 0):
                inside, outside = (left_out_moments(query, of_records == side) for side in (Side.IN, Side.OUT))
                total[:, records] += log_ratio(query, self._normals(inside, outside, share))

        over_blocks(work, record_blocks(reference.n_models, reference.n_records), values=phi.size)
        total /= phi.shape[-1]
        return total

    def _normals(self, inside: Moments, outside: Moments, share: Floats | None = None) -> Normals:
        """Return both means with the variance that they share, times 1 + 1/n for the error of each mean.

        Relative to their average, so that equal counts have no factor; ``share`` as of ``evened_counts``.
        """
        weights = evened_counts(inside.number, outside.number, share)
        common = np.ones(())
        if self.parameters == 3:
            common = np.maximum((inside.squares + outside.squares) / (inside.number + outside.number), VARIANCE_FLOOR)
        pair = []
        for own, weight in zip((inside, outside), weights, strict=True):
            pair.append((own.mean, common * ((1.0 + 1.0 / own.number) / (1.0 + 1.0 / weight))))
        return Normals(pair[0], pair[1], True)


@dataclass(frozen=True, eq=False)
class LinearScorer:
    """Fitted BASE2 or BASE3: both Gaussians of every record, a pair a query; 0 is even odds."""

    attack: LinearBASE
    reference: Reference
    normals: tuple[Normals, ...]
    threshold: float = 0.0

    def score(self, view: View) -> Floats:
        """Return (n,) float64."""
        at = self.reference.positions(view.ids)
        total = np.zeros(view.n_records)
        for phi, normals in zip(view.signal(self.attack.signal).T, self.normals, strict=True):
            total += log_ratio(phi, normals.at(at))
        return total / len(self.normals)


def _left_out_share(side: NDArray[np.int8]) -> Floats:
    """Return the share (m, 1) of IN models among all pairs of record and model, without those of each row."""
    own = [np.count_nonzero(side == which, axis=1) for which in (Side.IN, Side.OUT)]
    inside, outside = (float(number.sum()) - number for number in own)
    share: Floats = (inside / (inside + outside))[:, None]
    return share


def _floored(log_p: Floats) -> Floats:
    p = np.maximum(log_p, LOWEST_LOG)
    np.exp(p, out=p)
    return p
