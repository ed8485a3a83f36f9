"""RMIA, the robust membership attack (Zarifzadeh, Liu and Shokri 2024, arXiv 2312.03262).

A record counts as a member when the target likes it more, relative to the reference models, than it likes most
population records. Evaluated by sorting: the comparison with every population record needs no n x z matrix.

Deviations from the paper's code, all of them small: plain mean of the references instead of a trimmed one; softmax
with temperature instead of the soft-margin Taylor softmax (``signal="log_taylor_softmax"`` has it); several queries
average the log ratio instead of voting; the fraction of beaten population records, a step function, is ordered inside
each step by the log ratio itself, because ties hide the tail that audits read. The release tunes the offline slope on
one pair of references; ours takes every reference in turn as the target (``mnemoscope.attacks.tuning``).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnemoscope.attacks.moments import left_out_mean, mean_over, record_blocks
from mnemoscope.attacks.tuning import Cells, Setting, Simulated, check_setting, tuned_by_target, tuned_setting
from mnemoscope.audit.answers.blocks import over_blocks
from mnemoscope.audit.answers.signals import SIGNALS
from mnemoscope.audit.answers.views import Answers, Need, Reference, Side, View, require_models
from mnemoscope.audit.errors import InvalidInput, MissingNeed
from mnemoscope.audit.statistics.places import places

__all__ = ["RMIA", "rmia_counts", "rmia_scores"]

Floats = NDArray[np.float64]

LOWEST_LOG = -700.0
"""Log probabilities below it are raised to it, so that means of probabilities stay normal float64 numbers."""

SLOPES = tuple(k / 10 for k in range(11))
"""Slopes that tuning tries; of equally good ones it takes the smallest."""

LOG_SIGNALS = ("log_taylor_softmax", "negative_loss", "top_confidence")
"""Signals that are logarithms of a probability."""


@dataclass(frozen=True)
class RMIA:
    """Share of population records beaten by a factor of gamma, and within one share the log ratio.

    Attributes:
        online: the normaliser is (mean over IN + mean over OUT) / 2; offline it is ((1 + a) mean over OUT + 1 - a) / 2,
            and for population records, which no reference has seen, their plain mean or the same line.
        gamma: factor, at least 1; 2 as in the paper's code (later toolboxes use 1). With one target it moves only
            the resolution, not the order.
        offline_a: slope of that line in [0, 1]; 0.3 is the paper's for CIFAR-10. "tuned": the slope of ``SLOPES`` that
            tells members best where the attacker's own models stand in for the target, one after another; of the
            target it reads nothing. Offline only.
        temperature: the logits are divided by it; 2 as in the paper's code.
        signal: a key of ``SIGNALS`` that is a log probability.
    """

    online: bool = True
    gamma: float = 2.0
    offline_a: Setting = 0.3
    temperature: float = 2.0
    signal: str = "negative_loss"

    def __post_init__(self) -> None:
        if not 1 <= self.gamma < math.inf:
            raise InvalidInput(f"gamma={self.gamma!r} must be at least 1")
        check_setting("offline_a", self.offline_a)
        if self.online and self.offline_a == "tuned":
            raise InvalidInput("offline_a='tuned' has no use online. Set online=False, or leave offline_a alone")
        if self.signal not in SIGNALS or self.signal not in LOG_SIGNALS:
            raise InvalidInput(f"signal={self.signal!r} is no log probability; allowed: {', '.join(LOG_SIGNALS)}")
        if not self.temperature > 0:
            raise InvalidInput(f"temperature={self.temperature!r} must be positive")

    @property
    def name(self) -> str:
        """``rmia``, ``rmia_offline`` or ``rmia_offline_tuned``."""
        return "rmia" if self.online else "rmia_offline" + ("_tuned" if self.offline_a == "tuned" else "")

    @property
    def needs(self) -> Need:
        """Scores, OUT models and population records; IN models online, and to tune."""
        members = self.online or self.offline_a == "tuned"
        return Need.SCORES | Need.SHADOW_OUT | Need.POPULATION | (Need.SHADOW_IN if members else Need.NOTHING)

    def fit(self, reference: Reference, *, rng: np.random.Generator) -> "RmiaScorer":
        """Compute the normalisers of audited and population records; nothing is drawn from ``rng``."""
        population = _population(reference)
        log_p, log_p_z = self._signal(reference), self._signal(population)
        require_models(reference.side, 1, self.online, reference.ids)
        means = [mean_over(_floored(log_p), mask) for mask in self._masks(reference.side)]
        everyone = np.ones(log_p_z.shape[:2], np.bool_)
        mean_z = mean_over(_floored(log_p_z), everyone)
        slope = self.offline_a
        if slope == "tuned":
            slope = tuned_setting(SLOPES, self._simulated(log_p), reference.side, reference.ids)
        return RmiaScorer(self, reference, self._log_normaliser(means, slope), self._log_normaliser([mean_z], slope))

    def score_fleet(self, reference: Reference, *, rng: np.random.Generator) -> Floats:
        """Score every model against all the others, in closed form."""
        log_p, log_p_z = self._signal(reference), self._signal(_population(reference))
        return rmia_scores(log_p, log_p_z, reference.side, self, ids=reference.ids)

    def _simulated(self, log_p: Floats) -> Simulated:
        """Return what scores chosen models and records with each model left out, for a slope."""

        def of(cells: Cells) -> Callable[[float], Floats]:
            chosen = log_p[np.ix_(cells.models, cells.records)]
            outside = cells.side == Side.OUT
            means = np.stack([left_out_mean(p, outside) for p in np.moveaxis(_floored(chosen), -1, 0)], axis=-1)
            return lambda slope: (chosen - self._log_normaliser([means], slope)).mean(axis=-1)

        return of

    def _signal(self, answers: Answers) -> Floats:
        return answers.signal(self.signal, temperature=self.temperature)

    def _masks(self, side: NDArray[np.int8]) -> tuple[NDArray[np.bool_], ...]:
        return (side == Side.OUT, side == Side.IN) if self.online else (side == Side.OUT,)

    def _log_normaliser(self, means: Sequence[Floats], slope: float | Floats) -> Floats:
        average = sum(means[1:], means[0]) / len(means)
        if not self.online:
            average = ((1.0 + slope) * average + (1.0 - slope)) / 2.0
        log: Floats = np.log(average)
        return log


@dataclass(frozen=True, eq=False)
class RmiaScorer:
    """Fitted RMIA: log normalisers (n, q) and (z, q)."""

    attack: RMIA
    reference: Reference
    normaliser: Floats
    normaliser_z: Floats

    def score(self, view: View) -> Floats:
        """Return (n,) float64 in (0, 1)."""
        population, known = _population(view), _population(self.reference)
        ratio = self.attack._signal(view) - self.normaliser[self.reference.positions(view.ids)]
        ratio_z = self.attack._signal(population) - self.normaliser_z[known.positions(population.ids)]
        return _score(ratio.mean(axis=-1), ratio_z.mean(axis=-1), math.log(self.attack.gamma))


def rmia_counts(log_ratio: Floats, log_ratio_z: Floats, log_gamma: float = 0.0) -> NDArray[np.int64]:
    """Count for each record the population records it beats: #{z : ratio_x / ratio_z > gamma}, strictly.

    O((n + z) log z) time and below 64 bytes x (n + z) of memory, with the same answer as the n x z comparison of
    ``log_ratio[:, None] - log_gamma > log_ratio_z``.

    Args:
        log_ratio: (n,) float64, log of P(x | target) / P(x).
        log_ratio_z: (z,) float64, the same for population records, in any order.
        log_gamma: logarithm of the factor gamma.

    Returns:
        (n,) int64 in 0..z.
    """
    return places(np.sort(log_ratio_z), log_ratio - log_gamma)


def rmia_scores(
    log_p: Floats,
    log_p_z: Floats,
    side: NDArray[np.int8],
    attack: RMIA,
    *,
    ids: NDArray[np.int64] | None = None,
) -> Floats:
    """Score every model of a fleet with itself left out of all normalisers; the hot path of permutation tests.

    Args:
        log_p: (m, n, q) float64 log probabilities of the audited records.
        log_p_z: (m, z, q) of the population records.
        side: (m, n) int8 of ``Side``; the answer for model k never depends on ``side[k]``.
        attack: the settings.
        ids: (n,) int64, to name records in errors; positions are named without it.

    Returns:
        (m, n) float64 in (0, 1).

    Raises:
        InvalidInput: a record that is left without IN (online) or OUT models once its target is taken out.
    """
    require_models(side, 2, attack.online, ids)
    slope: float | Floats
    if attack.offline_a == "tuned":
        slope = tuned_by_target(SLOPES, attack._simulated(log_p), side, ids)[:, None]
    else:
        slope = attack.offline_a
    ratio = _left_out_ratio(attack, log_p, slope, attack._masks(side))
    ratio_z = _left_out_ratio(attack, log_p_z, slope, (np.ones(log_p_z.shape[:2], np.bool_),))
    log_gamma = math.log(attack.gamma)

    def place(model: int) -> None:
        ratio[model] = _score(ratio[model], ratio_z[model], log_gamma)

    over_blocks(place, range(ratio.shape[0]), values=ratio.size)
    return ratio


def _left_out_ratio(attack: RMIA, log_p: Floats, slope: float | Floats, masks: Sequence[NDArray[np.bool_]]) -> Floats:
    """Log of each model's probability over the normaliser that the others give, averaged over queries: (m, n)."""
    n_models, n_records = log_p.shape[:2]
    ratio = np.zeros((n_models, n_records))

    def work(records: slice) -> None:
        parts = [mask[:, records] for mask in masks]
        for query in np.moveaxis(log_p[:, records], -1, 0):
            p = _floored(query)
            ratio[:, records] += query - attack._log_normaliser([left_out_mean(p, mask) for mask in parts], slope)

    over_blocks(work, record_blocks(n_models, n_records), values=log_p.size)
    ratio /= log_p.shape[-1]
    return ratio


def _score(log_ratio: Floats, log_ratio_z: Floats, log_gamma: float) -> Floats:
    score = np.arctan(log_ratio)
    score /= math.pi
    score += 0.5  # in (0, 1): it orders records inside one count and can never lift one over another count
    score += rmia_counts(log_ratio, log_ratio_z, log_gamma)
    score /= log_ratio_z.size + 1.0
    return score


def _floored(log_p: Floats) -> Floats:
    p = np.maximum(log_p, LOWEST_LOG)
    np.exp(p, out=p)
    return p


def _population(answers: View | Reference) -> Answers:
    if answers.population is None:
        raise MissingNeed("rmia needs population records that no model was trained on. Provide them or leave it out")
    answers.require_disjoint(answers.population, "population")
    return answers.population
